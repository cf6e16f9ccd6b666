/**
 * The few process calls of libc that the runtime lacks: subreaper, reaping one given pid, file limits. Starts are in libc_spawn.ts.
 * Never `waitpid(-1)`: the runtime waits for its own children, and taking one of theirs loses its exit code.
 * Where libc cannot be opened (another libc, no FFI) everything here answers "not done" and the manager goes on.
 */

import { errnoReader } from "./errno.ts";

const PR_SET_CHILD_SUBREAPER = 36;
const RLIMIT_NOFILE = 7;
const WNOHANG = 1;
const ESRCH = 3;
const SIG_IGN = 1n;
const SIG_SETMASK = 2;
/** Of glibc's sigset_t. */
const SIGNAL_SET_BYTES = 128;
/** HUP, INT, QUIT, USR1, USR2, PIPE, TERM, TSTP, TTIN, TTOU: all that asks a process to end or stop, where it may say no. */
const REFUSABLE_SIGNALS = [1, 2, 3, 10, 12, 13, 15, 20, 21, 22];
/** While fewer files than this are free below the old soft limit, a child keeps the raised one (see withFileLimitOfChildren). */
const SPAWN_RESERVE_FILES = 64;

function openLibc() {
  try {
    return Deno.dlopen("libc.so.6", {
      prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" },
      waitpid: { parameters: ["i32", "buffer", "i32"], result: "i32" },
      prlimit: { parameters: ["i32", "i32", "buffer", "buffer"], result: "i32" },
      getpagesize: { parameters: [], result: "i32" },
      signal: { parameters: ["i32", "usize"], result: "usize" },
      pthread_sigmask: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
      kill: { parameters: ["i32", "i32"], result: "i32" },
    }).symbols;
  } catch {
    return undefined;
  }
}

let opened: ReturnType<typeof openLibc> | null = null;
const libc = () => opened === null ? (opened = openLibc()) : opened;

let adopts = false;

/** Orphans below us become our children from now on, also when we are not PID 1. True when the kernel agreed. */
export function becomeSubreaper(): boolean {
  adopts = libc()?.prctl(PR_SET_CHILD_SUBREAPER, 1n, 0n, 0n, 0n) === 0;
  return adopts;
}

/** Whether they do. */
export function isSubreaper(): boolean {
  return adopts;
}

/** False where no process, no zombie either, is a member of the group; true also where that cannot be told. */
export function mayHaveMembers(groupId: number): boolean {
  const calls = libc();
  if (calls === undefined || !Number.isInteger(groupId) || groupId <= 1) return true;
  const errno = errnoReader();
  return calls.kill(-groupId, 0) === 0 || errno() !== ESRCH;
}

/** Only KILL and STOP reach this process from now on. For one that starts no children: they would inherit it. */
export function ignoreSignals(): void {
  for (const signal of REFUSABLE_SIGNALS) libc()?.signal(signal, SIG_IGN);
}

/**
 * No signal is blocked any more: who starts us may have left some so, and then neither we nor any program that we start
 * would ever see them. Of this thread, the one that starts programs; a signal to the process needs no more than one.
 */
export function unblockSignals(): void {
  libc()?.pthread_sigmask(SIG_SETMASK, new Uint8Array(SIGNAL_SET_BYTES), null);
}

/**
 * Reaps child `pid` if it is dead; never waits. True when it was reaped. The caller must have made sure that the
 * runtime does not wait for it.
 */
export function reapChild(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 1) return false;
  return libc()?.waitpid(pid, new Uint8Array(4), WNOHANG) === pid;
}

/** Of memory; what most machines have where libc cannot tell. */
export function pageSizeBytes(): number {
  return libc()?.getpagesize() ?? 4096;
}

interface FileLimit {
  readonly soft: bigint;
  readonly hard: bigint;
}

function readFileLimit(): FileLimit | undefined {
  const limit = new BigUint64Array(2);
  if (libc()?.prlimit(0, RLIMIT_NOFILE, null, new Uint8Array(limit.buffer)) !== 0) return undefined;
  return { soft: limit[0] ?? 0n, hard: limit[1] ?? 0n };
}

function writeFileLimit(limit: FileLimit): boolean {
  const words = new BigUint64Array([limit.soft, limit.hard]);
  return libc()?.prlimit(0, RLIMIT_NOFILE, new Uint8Array(words.buffer), null) === 0;
}

let raised: { readonly from: FileLimit; readonly to: FileLimit } | undefined;

/**
 * Raises the soft limit of open files to the hard one (a compiled binary keeps 1024: two pipes a process and the
 * files of a checkpoint pass that). Returns the limit in force, undefined when it cannot be told.
 */
export function raiseFileLimit(): number | undefined {
  const from = readFileLimit();
  if (from === undefined) return undefined;
  const to = { soft: from.hard, hard: from.hard };
  if (from.soft === from.hard) return Number(from.soft);
  if (!writeFileLimit(to)) return Number(from.soft);
  raised = { from, to };
  return Number(to.soft);
}

function openFiles(): number {
  // Newer kernels say how many there are; older ones say 0.
  const { size } = Deno.statSync("/proc/self/fd");
  if (size > 0) return size;
  let count = 0;
  for (const _ of Deno.readDirSync("/proc/self/fd")) count++;
  return count;
}

/**
 * Runs `spawn` with the soft limit that we were started with, so that a child sees what its operator set: programs
 * that use select(), or close every possible descriptor at start, misbehave with a million. The limit is the whole
 * process's, but `spawn` is synchronous and takes about a millisecond; when we hold so many files that another
 * thread could be refused one meanwhile, the child gets the raised limit instead.
 */
export function withFileLimitOfChildren<T>(spawn: () => T): T {
  if (raised === undefined) return spawn();
  try {
    if (BigInt(openFiles() + SPAWN_RESERVE_FILES) > raised.from.soft) return spawn();
  } catch {
    return spawn(); // no /proc: cannot tell
  }
  writeFileLimit({ soft: raised.from.soft, hard: raised.to.hard });
  try {
    return spawn();
  } finally {
    writeFileLimit(raised.to);
  }
}
