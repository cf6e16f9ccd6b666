/** One wait with a signal and a deadline around it. */

import { type Clock, startTimer } from "../platform/clock.ts";

export interface Deadline {
  /** Aborted when the caller gave up or the time is over; hand it to whatever can stop early. */
  readonly signal: AbortSignal;
  /** Bytes moved: where the limit is a stall limit, it begins anew. */
  progress(): void;
}

export interface DeadlineOptions {
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
  /** A function: asked for when the time seems to be over; it may have grown. */
  readonly limitMs: number | (() => number);
  /** "total": progress changes nothing. "stall": the limit counts from the last progress. */
  readonly counts: "total" | "stall";
  /** The error when the time is over. */
  readonly timedOut: () => Error;
}

/**
 * Runs `work` until it ends, the caller's signal aborts (rejects with its reason) or the time is over. Work that
 * ignores the signal is left behind: its result is dropped, its late failure is swallowed.
 */
export async function withDeadline<T>(
  options: DeadlineOptions,
  work: (deadline: Deadline) => Promise<T>,
): Promise<T> {
  const { clock, signal, limitMs } = options;
  const limit = typeof limitMs === "function" ? limitMs : () => limitMs;
  signal?.throwIfAborted();
  const controller = new AbortController();
  let since = clock.monotonicMs();
  const { promise: interrupted, reject } = Promise.withResolvers<never>();
  interrupted.catch(() => {});
  const stop = (reason: unknown) => {
    reject(reason);
    controller.abort(reason);
  };
  const onAbort = () => stop(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  let endWatch = () => {};
  const watch = () => {
    const leftMs = since + limit() - clock.monotonicMs();
    if (leftMs <= 0) return stop(options.timedOut());
    endWatch = startTimer(clock, leftMs, watch);
  };
  watch();
  try {
    const progress = () => {
      if (options.counts === "stall") since = clock.monotonicMs();
    };
    const running = work({ signal: controller.signal, progress });
    running.catch(() => {});
    return await Promise.race([running, interrupted]);
  } finally {
    endWatch();
    signal?.removeEventListener("abort", onAbort);
  }
}
