/** Kills a process, by strace, at a system call that it makes. Needs strace and the right to trace. */

import { tracerOfDead, waitFor } from "./manager_process.ts";

export const haveStrace = new Deno.Command("sh", { args: ["-c", "strace -o /dev/null true"], stderr: "null" })
  .outputSync().success;

export interface TracedCalls {
  /** Names of system calls, with commas between. */
  readonly calls: string;
  /** Only calls about these; of a rename, strace looks at the name before. */
  readonly paths: readonly string[];
  readonly nth?: number;
}

/** The first such call of any thread ends in `signal`; SIGKILL keeps it from being made, SIGSTOP comes after it. */
export function straceArgs(
  { calls, paths, nth = 1 }: TracedCalls,
  log: string,
  signal: "SIGKILL" | "SIGSTOP" = "SIGKILL",
): string[] {
  return [
    ...["-f", "-q", "-o", log, "-e", `trace=${calls}`, "-e", `inject=${calls}:signal=${signal}:when=${nth}`],
    ...paths.flatMap((path) => ["-P", path]),
  ];
}

const LIMIT_MS = 60_000;
/** Whoever is traced beside the dead stands still meanwhile, a manager with its lease among them. */
const RELEASE_MS = 1_000;

function textOf(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

/** Every thread of the process has its tracer; true also when the process is gone. */
function isTraced(pid: number): boolean {
  try {
    return [...Deno.readDirSync(`/proc/${pid}/task`)].every(({ name }) =>
      !/^TracerPid:\s+0$/m.test(textOf(`/proc/${pid}/task/${name}/status`))
    );
  } catch {
    return true;
  }
}

/** A process that has ended, whose end its tracer has not taken. */
function hasDead(tracer: number): boolean {
  return [...Deno.readDirSync("/proc")].some(({ name }) =>
    /^\d+$/.test(name) && tracerOfDead(Number(name)) === tracer
  );
}

/** A strace at work on a process that runs already, and on the children that it starts from then on. */
export class CallTrace implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #log: string;

  private constructor(child: Deno.ChildProcess, log: string) {
    this.#child = child;
    this.#log = log;
  }

  static async attach(
    pid: number,
    traced: TracedCalls,
    log: string,
    signal: "SIGKILL" | "SIGSTOP" = "SIGKILL",
  ): Promise<CallTrace> {
    const args = [...straceArgs(traced, log, signal), "-p", `${pid}`];
    const child = new Deno.Command("strace", { args, stdin: "null", stdout: "null", stderr: "null" }).spawn();
    const trace = new CallTrace(child, log);
    await waitFor(`strace on ${pid}`, () => isTraced(pid), LIMIT_MS);
    return trace;
  }

  get hasKilled(): boolean {
    return hasKilled(this.#log);
  }

  get hasStopped(): boolean {
    return textOf(this.#log).includes("stopped by SIGSTOP");
  }

  /**
   * Lets go of what lives. An strace that is told to end while a process dies under it may wait for that for ever: so
   * the dead are first left to it, and one that waits all the same is killed; the kernel then lets go of what it held.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    const { pid, status } = this.#child;
    let hasEnded = false;
    const ended = status.then(() => {
      hasEnded = true;
    });
    await within(RELEASE_MS, () => hasEnded || !hasDead(pid));
    if (!hasEnded) signalTo(this.#child, "SIGTERM");
    await within(RELEASE_MS, () => hasEnded);
    if (!hasEnded) signalTo(this.#child, "SIGKILL");
    await ended;
  }
}

function signalTo(child: Deno.ChildProcess, signal: Deno.Signal): void {
  try {
    child.kill(signal);
  } catch {
    // It has ended.
  }
}

/** Until it holds, or the time is over. */
async function within(limitMs: number, holds: () => boolean): Promise<void> {
  await waitFor("", () => holds() ? true : null, limitMs).catch(() => {});
}

/** By the log of a strace. */
export function hasKilled(log: string): boolean {
  return textOf(log).includes("killed by SIGKILL");
}
