/** What of the machine this process may use: cores and memory, as the container's limits leave them. */

/** Cores by affinity and by the quota of the control group; at least 1. */
export function usableCores(): number {
  return Math.max(1, navigator.hardwareConcurrency);
}

const CGROUP_ROOT = "/sys/fs/cgroup";

function readNumber(path: string): number | null {
  try {
    const text = Deno.readTextFileSync(path).trim();
    return /^\d+$/.test(text) ? Number(text) : null; // "max": none
  } catch {
    return null;
  }
}

/** Folders of this process's groups from the innermost to the root, in both versions of control groups. */
function memoryGroups(): string[] {
  let text: string;
  try {
    text = Deno.readTextFileSync("/proc/self/cgroup");
  } catch {
    return [];
  }
  const folders: string[] = [];
  for (const line of text.split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (path === undefined || (controllers !== "" && controllers !== "memory")) continue;
    const root = controllers === "" ? CGROUP_ROOT : `${CGROUP_ROOT}/memory`;
    for (let at = path; at !== ""; at = at.slice(0, at.lastIndexOf("/"))) folders.push(root + at);
    folders.push(root);
  }
  return folders;
}

/** Bytes that all processes of this container may use together: the smallest limit above us, else the machine's memory. */
export function memoryLimitBytes(): number {
  const limits = memoryGroups().flatMap((folder) => [
    readNumber(`${folder}/memory.max`),
    readNumber(`${folder}/memory.limit_in_bytes`),
  ]);
  const known = limits.filter((limit) => limit !== null);
  return Math.min(Deno.systemMemoryInfo().total, ...known);
}
