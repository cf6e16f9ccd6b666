/** What of the machine this process may use: cores and memory, as the container's limits leave them, and who overran them. */

/** Cores by affinity and by the quota of the control group; at least 1. */
export function usableCores(): number {
  return Math.max(1, navigator.hardwareConcurrency);
}

const CGROUP_ROOT = "/sys/fs/cgroup";

/** Null: there is no such file. */
type ReadText = (path: string) => string | null;

const readText: ReadText = (path) => {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return null;
  }
};

/** Folders of this process's groups from the innermost to the root, in both versions of control groups. */
function memoryGroups(read: ReadText): string[] {
  const folders: string[] = [];
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (path === undefined || (controllers !== "" && controllers !== "memory")) continue;
    const root = controllers === "" ? CGROUP_ROOT : `${CGROUP_ROOT}/memory`;
    for (let at = path; at !== ""; at = at.slice(0, at.lastIndexOf("/"))) folders.push(root + at);
    folders.push(root);
  }
  return folders;
}

/** Bytes that all processes of this container may use together: the smallest limit above us, else the machine's memory. */
export function memoryLimitBytes(
  read: ReadText = readText,
  machineBytes: number = Deno.systemMemoryInfo().total,
): number {
  const limits = memoryGroups(read).flatMap((folder) =>
    ["memory.max", "memory.limit_in_bytes"].map((name) => read(`${folder}/${name}`)?.trim() ?? "")
  );
  // "max": none
  return Math.min(machineBytes, ...limits.filter((limit) => /^\d+$/.test(limit)).map(Number));
}

/**
 * Reads how many processes of our memory control group the kernel has killed for memory, ever; null where that cannot be
 * told. What we start is in the same group, unless it leaves by itself. One small file of the kernel's a time.
 */
export function oomKillReader(read: ReadText = readText): () => number | null {
  let file: string | null = null;
  const countIn = (path: string): number | null => {
    // "oom_kill 3" in both versions: memory.events, and memory.oom_control since Linux 4.13.
    const [, count] = /^oom_kill (\d+)$/m.exec(read(path) ?? "") ?? [];
    return count === undefined ? null : Number(count);
  };
  // The innermost group that has the controller is the one that our memory is charged to.
  const findFile = () =>
    memoryGroups(read)
      .flatMap((folder) => [`${folder}/memory.events`, `${folder}/memory.oom_control`])
      .find((path) => countIn(path) !== null) ?? null;
  let looked = false;
  return () => {
    if (!looked) file = findFile();
    looked = true;
    return file === null ? null : countIn(file);
  };
}
