/**
 * Time, always passed in. `wallMs` is for names and display only; every duration, deadline and margin uses
 * `monotonicMs`, which is CLOCK_BOOTTIME: it counts suspend and never steps (docs/architecture.md, "Time").
 */

/** Source of time. Tests and the simulator bring their own. */
export interface Clock {
  /** Milliseconds since the Unix epoch; may step either way. */
  wallMs(): number;
  /** Milliseconds since some fixed point of this boot; never goes back, counts suspend. */
  monotonicMs(): number;
  /** Resolves after `ms` (at least 0). Rejects with the signal's reason when it aborts first. */
  sleep(ms: number, options?: { signal?: AbortSignal }): Promise<void>;
  /** See `startTimer`. */
  timer?(ms: number, action: () => void): () => void;
}

/**
 * Calls `action` after `ms`, until what it gives back is called. A request has two or three of them, nearly none of which
 * ever ends: without a signal each they cost a fraction. `action` must not throw.
 */
export function startTimer(clock: Clock, ms: number, action: () => void): () => void {
  if (clock.timer !== undefined) return clock.timer(ms, action);
  const stop = new AbortController();
  clock.sleep(ms, { signal: stop.signal }).then(() => {
    if (!stop.signal.aborted) action();
  }, () => {}); // not needed any more
  return () => stop.abort(notNeeded());
}

let notNeededError: Error | undefined;

/**
 * Reason for an abort that only ends a wait which nobody needs any more. Without one the runtime makes an exception for
 * each, with its stack, which takes longer than all else about the wait. Made at first use: for the stack of an error that
 * is made while a module loads the runtime reads all of that module once more, a fifth of an archiver's start.
 */
export function notNeeded(): Error {
  return notNeededError ??= new Error("nobody waits for it any more");
}

const CLOCK_BOOTTIME = 7;

function openBoottime(): (() => number) | undefined {
  try {
    const libc = Deno.dlopen("libc.so.6", {
      clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
    });
    const buffer = new BigInt64Array(2);
    const bytes = new Uint8Array(buffer.buffer);
    return () => {
      libc.symbols.clock_gettime(CLOCK_BOOTTIME, bytes);
      return Number(buffer[0] ?? 0n) * 1000 + Number(buffer[1] ?? 0n) / 1e6;
    };
  } catch {
    return undefined; // no glibc (another libc or system): the monotonic clock of the runtime, without suspend
  }
}

/** Longest delay setTimeout takes without wrapping round (2^31 - 1 ms, 24.8 days). */
const LONGEST_TIMEOUT_MS = 0x7fffffff;

function timeoutOf(ms: number): number {
  return Math.min(Math.max(0, ms), LONGEST_TIMEOUT_MS);
}

/** The machine's clock. */
export function systemClock(): Clock {
  const monotonicMs = openBoottime() ?? (() => performance.now());
  return {
    wallMs: () => Date.now(),
    monotonicMs,
    timer(ms, action) {
      const timer = setTimeout(action, timeoutOf(ms));
      return () => clearTimeout(timer);
    },
    sleep(ms, options = {}) {
      const { signal } = options;
      return new Promise<void>((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        const onAbort = () => {
          clearTimeout(timer);
          reject(signal?.reason);
        };
        const timer = setTimeout(() => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        }, timeoutOf(ms));
        signal?.addEventListener("abort", onAbort, { once: true });
      });
    },
  };
}
