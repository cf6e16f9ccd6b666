/**
 * Reads /proc: who lives, in which group, under whom. A process may vanish between any two reads: that is no error. That
 * no descriptor is left to read with is one (`OutOfDescriptors`), unless something else is said.
 */

import { StateManagerError } from "./errors.ts";
import { listProcPids, OutOfDescriptors, readProcFile } from "./libc_proc.ts";
import { pageSizeBytes } from "./libc_process.ts";

const decoder = new TextDecoder();
const latin1 = new TextDecoder("latin1");

/** Text of the stat file of `pid`; null when there is no such process. */
function readStat(pid: number): string | null {
  const bytes = readProcFile(pid, "stat");
  return bytes === null ? null : decoder.decode(bytes);
}

/** One line of /proc/<pid>/stat, as far as a supervisor needs it. */
export interface ProcessInfo {
  readonly pid: number;
  readonly name: string;
  /** R running, S sleeping, D uninterruptible (cannot be killed), T stopped, Z zombie with no thread left, X dead, I idle. */
  readonly state: string;
  readonly parentPid: number;
  readonly groupId: number;
  /** Clock ticks since boot; pid and start together are never used twice. */
  readonly startTicks: number;
}

/** Parses the content of a stat file; the name in it may hold anything, `)` and newlines too. */
export function parseStat(text: string): ProcessInfo | null {
  const open = text.indexOf("(");
  const close = text.lastIndexOf(")");
  if (open < 1 || close < open) return null;
  const fields = text.slice(close + 2).split(" ");
  const threads = Number(fields[17]);
  // A first thread that ended, by pthread_exit or a moment before the others in a KILL, reads Z while they run on.
  const isHalfDead = fields[0] === "Z" && threads > 1;
  const info = {
    pid: Number(text.slice(0, open)),
    name: text.slice(open + 1, close),
    state: isHalfDead ? "S" : fields[0] ?? "",
    parentPid: Number(fields[1]),
    groupId: Number(fields[2]),
    startTicks: Number(fields[19]),
  };
  return Number.isInteger(info.pid) && Number.isInteger(info.startTicks) ? info : null;
}

/** One process with what it uses. */
export interface ProcessUse extends ProcessInfo {
  readonly residentBytes: number;
  /** Its own, and its children's that it has waited for. */
  readonly cpuSeconds: number;
}

/** Of Linux for user space, whatever the kernel's own. */
const TICKS_PER_SECOND = 100;

export function parseUse(text: string, pageBytes: number): ProcessUse | null {
  const info = parseStat(text);
  if (info === null) return null;
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const ticks = [11, 12, 13, 14].reduce((sum, index) => sum + Number(fields[index]), 0);
  return {
    ...info,
    residentBytes: Number(fields[21]) * pageBytes,
    cpuSeconds: ticks / TICKS_PER_SECOND,
  };
}

/** All who can still run, with what they use. */
export function readProcessUses(): ProcessUse[] {
  const pageBytes = pageSizeBytes();
  const uses: ProcessUse[] = [];
  for (const pid of listProcPids()) {
    const text = readStat(pid);
    const use = text === null ? null : parseUse(text, pageBytes);
    if (use !== null && isAlive(use)) uses.push(use);
  }
  return uses;
}

/** Memory of these together, what they share counted once; null when one that lives cannot be read (not ours). */
export async function readProportionalBytes(pids: readonly number[]): Promise<number | null> {
  let bytes = 0;
  for (const pid of pids) {
    try {
      const text = await Deno.readTextFile(`/proc/${pid}/smaps_rollup`);
      bytes += Number(/^Pss:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0) * 1024;
    } catch {
      if (isThere(pid)) return null;
    }
  }
  return bytes;
}

/** True also where that cannot be told. */
function isThere(pid: number): boolean {
  try {
    return readProcess(pid) !== null;
  } catch {
    return true;
  }
}

export function ownPid(): number {
  return Deno.pid;
}

/** Process `pid`, zombies included; null when there is none. */
export function readProcess(pid: number): ProcessInfo | null {
  const text = readStat(pid);
  return text === null ? null : parseStat(text);
}

/** When a child of ours that was just started began, in clock ticks since boot; 0 where that cannot be told. */
export function startTicksOf(pid: number): number {
  try {
    return readProcess(pid)?.startTicks ?? 0;
  } catch {
    return 0;
  }
}

/** All processes that we can see, zombies included. Throws where there is no /proc. About 10 microseconds each. */
export function readProcesses(): ProcessInfo[] {
  const processes: ProcessInfo[] = [];
  for (const pid of listProcPids()) {
    const info = readProcess(pid);
    if (info !== null) processes.push(info);
  }
  return processes;
}

/** True for a process that still can run code or hold files. */
export function isAlive(info: ProcessInfo): boolean {
  return info.state !== "Z" && info.state !== "X";
}

/**
 * Value of `name` in the environment that `pid` was started with; null when it has none or it cannot be read (not
 * ours, or a zombie). A program may overwrite that memory: a hint, never a proof.
 */
export function readStartVariable(pid: number, name: string): string | null {
  const bytes = readProcFile(pid, "environ");
  if (bytes === null) return null;
  const text = `\0${latin1.decode(bytes)}`;
  const start = text.indexOf(`\0${name}=`);
  if (start < 0) return null;
  const from = start + name.length + 2;
  const end = text.indexOf("\0", from);
  return text.slice(from, end < 0 ? undefined : end);
}

/**
 * Pids of our children, zombies and adopted orphans included. From the kernel's lists per thread where it keeps them
 * (CONFIG_PROC_CHILDREN; may miss some while children end, so ask again later), else by a scan of all of /proc.
 */
export function readChildren(): number[] {
  const children: number[] = [];
  try {
    for (const thread of Deno.readDirSync("/proc/self/task")) {
      const text = Deno.readTextFileSync(`/proc/self/task/${thread.name}/children`);
      for (const pid of text.split(" ")) if (pid.trim() !== "") children.push(Number(pid));
    }
    return children;
  } catch {
    // A thread that ended meanwhile, or a kernel without these lists: the scan is right for both.
    return readProcesses().filter((info) => info.parentPid === Deno.pid).map((info) => info.pid);
  }
}

/**
 * Pids of the children of our first thread, to which the kernel gives the orphans, as it keeps them (CONFIG_PROC_CHILDREN);
 * null where it does not, or they cannot be read. Complete as long as no other thread takes the status of one of them
 * meanwhile.
 */
export function readAdopted(): number[] | null {
  try {
    const bytes = readProcFile(Deno.pid, `task/${Deno.pid}/children`);
    if (bytes === null) return null;
    return decoder.decode(bytes).split(" ").filter((pid) => pid.trim() !== "").map(Number);
  } catch (error) {
    if (error instanceof OutOfDescriptors) return null;
    throw error;
  }
}

const BOOT_ID = "/proc/sys/kernel/random/boot_id";

/**
 * Names this boot of the kernel: pids and start times mean nothing in another one. Null where there is none, or it is closed
 * to us. Error: `local-io` where that cannot be told just now (no descriptor left), which is another thing than another boot.
 */
export function readBootId(path = BOOT_ID): string | null {
  try {
    return Deno.readTextFileSync(path).trim();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) return null;
    throw new StateManagerError(
      "local-io",
      `read which boot of the machine this is: ${path} cannot be read`,
      {
        hint: "look at the limits of this process (open files) and the machine's, then start again",
        cause: error,
      },
    );
  }
}

/** Function of the kernel that `pid` sleeps in; null where it runs or this is not told (needs the right to trace it). */
export function readWaitChannel(pid: number): string | null {
  try {
    const text = Deno.readTextFileSync(`/proc/${pid}/wchan`).trim();
    return text === "" || text === "0" ? null : text;
  } catch {
    return null;
  }
}
