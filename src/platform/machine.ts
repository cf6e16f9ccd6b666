/** What of the machine this process may use: cores and memory, as the container's limits leave them, and who overran them. */

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
function groupsOf(controller: "cpu" | "memory", read: ReadText): string[] {
  const folders: string[] = [];
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    if (controllers !== "" && !controllers.split(",").includes(controller)) continue;
    const root = controllers === "" ? CGROUP_ROOT : `${CGROUP_ROOT}/${controller}`;
    for (let at = path; at !== ""; at = at.slice(0, at.lastIndexOf("/"))) folders.push(root + at);
    folders.push(root); // in a container that sees only its own groups, the path is one of the machine
  }
  return folders;
}

/** Cores that the quota of a group comes to; null where it has none. */
function quotaCores(folder: string, read: ReadText): number | null {
  const number = (name: string) => Number.parseInt(read(`${folder}/${name}`) ?? "", 10);
  const [quota = NaN, period = NaN] = read(`${folder}/cpu.max`)?.split(" ").map(Number) ??
    [number("cpu.cfs_quota_us"), number("cpu.cfs_period_us")];
  return quota > 0 && period > 0 ? quota / period : null; // "max" and -1: none
}

/**
 * Cores by affinity (`machineCores`) and by the smallest quota above us; at least 1. Whole ones: a thread for a part of one
 * would stand still for the rest of each period, and others with it.
 */
export function usableCores(
  read: ReadText = readText,
  machineCores: number = navigator.hardwareConcurrency,
): number {
  const quotas = groupsOf("cpu", read).map((folder) => quotaCores(folder, read) ?? Infinity);
  return Math.max(1, Math.floor(Math.min(machineCores, ...quotas)));
}

/** Of both versions. The middle one is kept by slowing down who is above it, which is no place to work. */
const MEMORY_LIMITS = ["memory.max", "memory.high", "memory.limit_in_bytes"];

/** Bytes that all processes of this container may use together: the smallest limit above us, else the machine's memory. */
export function memoryLimitBytes(
  read: ReadText = readText,
  machineBytes: number = Deno.systemMemoryInfo().total,
): number {
  const limits = groupsOf("memory", read).flatMap((folder) =>
    MEMORY_LIMITS.map((name) => read(`${folder}/${name}`)?.trim() ?? "")
  );
  // "max": none
  return Math.min(machineBytes, ...limits.filter((limit) => /^\d+$/.test(limit)).map(Number));
}

const SHORT_MEMORY_BYTES = 1024 * 1024 * 1024;

/** True where the container's programs need what larger heaps and buffers of ours would take. */
export function isMemoryShort(limitBytes: number = memoryLimitBytes()): boolean {
  return limitBytes < SHORT_MEMORY_BYTES;
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
    groupsOf("memory", read)
      .flatMap((folder) => [`${folder}/memory.events`, `${folder}/memory.oom_control`])
      .find((path) => countIn(path) !== null) ?? null;
  let isKnown = false;
  return () => {
    if (!isKnown) file = findFile();
    // Where not even the list of groups could be read, it is looked for again.
    isKnown ||= file !== null || read("/proc/self/cgroup") !== null;
    return file === null ? null : countIn(file);
  };
}
