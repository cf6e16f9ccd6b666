/**
 * How long this machine stood still: what is promised of a machine that is well is not asked of one whose disk or processor
 * was somebody else's for seconds.
 */

import { systemClock } from "../../src/platform/clock.ts";
import { scratchFolder } from "./manager_process.ts";

/** Opened once: it holds libc open for good, which a test's own check would take for a leak. */
const clock = systemClock();
const PERIOD_MS = 100;

/** Writes a byte to the disk of `folder` again and again, until it is disposed. */
export class MachineStall implements AsyncDisposable {
  readonly #path: string;
  readonly #end = new AbortController();
  readonly #running: Promise<void>;
  /** When each write began, and how much later than it should the next could. */
  readonly #seen: { readonly atMs: number; readonly stallMs: number }[] = [];
  #beganMs = clock.monotonicMs();

  constructor(folder: string) {
    this.#path = `${folder}/stall`;
    this.#running = this.#run();
  }

  /** The longest in the last `ms`, the one that may last just now included. */
  longestMs(ms: number): number {
    const nowMs = clock.monotonicMs();
    const stalls = this.#seen.filter(({ atMs, stallMs }) => atMs + stallMs > nowMs - ms);
    return Math.max(nowMs - this.#beganMs - PERIOD_MS, ...stalls.map(({ stallMs }) => stallMs), 0);
  }

  async #run(): Promise<void> {
    while (!this.#end.signal.aborted) {
      this.#beganMs = clock.monotonicMs();
      using file = await Deno.open(this.#path, { write: true, create: true });
      await file.write(new Uint8Array(1));
      await file.syncData();
      await clock.sleep(PERIOD_MS, { signal: this.#end.signal }).catch(() => {});
      this.#seen.push({ atMs: this.#beganMs, stallMs: clock.monotonicMs() - this.#beganMs - PERIOD_MS });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort();
    await this.#running;
  }
}

/** A stall as long as this may be why something took more than seconds. */
const STALL_MS = 700;
/** Some look at what happened a while after it did. */
const LOOK_BACK_MS = 60_000;

/**
 * For what is promised within seconds: it may fail twice where the machine stood still for a part of them, or for
 * `stallMs` where the promise is for a moment.
 */
export async function unlessStalled(
  attempt: (root: string) => Promise<void>,
  stallMs = STALL_MS,
): Promise<void> {
  for (let more = 2;; more--) {
    using scratch = scratchFolder();
    await using stall = new MachineStall(scratch.path);
    try {
      return await attempt(scratch.path);
    } catch (error) {
      if (more === 0 || stall.longestMs(LOOK_BACK_MS) < stallMs) throw error;
    }
  }
}
