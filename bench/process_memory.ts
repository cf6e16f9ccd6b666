/**
 * Largest memory of a process and all below it. The kernel keeps the peak of each process, so looking seldom misses
 * nothing but the last moments of one that ends, and costs those who are measured little of their two cores.
 */

const POLL_MS = 50;

function childrenOf(pid: number): number[] {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim().split(" ").filter(Boolean).map(
      Number,
    );
  } catch {
    return [];
  }
}

/** Children of any thread: a program may start them from each. */
function descendants(pid: number): number[] {
  const direct: number[] = [];
  try {
    for (const task of Deno.readDirSync(`/proc/${pid}/task`)) {
      const text = Deno.readTextFileSync(`/proc/${pid}/task/${task.name}/children`);
      direct.push(...text.trim().split(" ").filter(Boolean).map(Number));
    }
  } catch {
    direct.push(...childrenOf(pid));
  }
  return direct.flatMap((child) => [child, ...descendants(child)]);
}

function peakBytes(pid: number): number {
  try {
    return Number(/^VmHWM:\s+(\d+) kB/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

export interface Memory {
  /** Of the process itself, and of what ran below it before. */
  readonly own: number;
  /** Of all that came below it meanwhile, together. */
  readonly below: number;
}

/** Runs `work`; the largest of both, apart, while it runs. */
export async function watched<T>(
  pid: number,
  work: () => Promise<T>,
): Promise<{ result: T; memory: Memory }> {
  let [own, below] = [0, 0];
  const before = [pid, ...descendants(pid)];
  const sum = (pids: readonly number[]) => pids.reduce((all, each) => all + peakBytes(each), 0);
  const look = () => {
    own = Math.max(own, sum(before));
    below = Math.max(below, sum(descendants(pid).filter((each) => !before.includes(each))));
  };
  const timer = setInterval(look, POLL_MS);
  try {
    const result = await work();
    return { result, memory: { own, below } };
  } finally {
    clearInterval(timer);
  }
}
