/**
 * The time in which this process may send anything: until the deadline of the lease that it was last told. One window
 * serves all databases of a process. Requests that are under way when it closes are ended; those of an unconditional
 * kind (deletes) are therefore never sent by a holder that has overstayed, except where the whole process was stopped
 * between the check and the send.
 */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";

export class SendWindow {
  readonly #clock: Clock;
  #deadlineMs: number;
  #changed = Promise.withResolvers<void>();

  /** `deadlineMs`: CLOCK_BOOTTIME; null: closed, until told. */
  constructor(clock: Clock, deadlineMs: number | null) {
    this.#clock = clock;
    this.#deadlineMs = deadlineMs ?? -Infinity;
  }

  /** The lease was renewed until `deadlineMs`; null: it is not ours any more. */
  renew(deadlineMs: number | null): void {
    this.#deadlineMs = deadlineMs ?? -Infinity;
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  get deadlineMs(): number {
    return this.#deadlineMs;
  }

  get isOpen(): boolean {
    return this.#clock.monotonicMs() < this.#deadlineMs;
  }

  /** Resolves at the next `renew`. */
  whenRenewed(): Promise<void> {
    return this.#changed.promise;
  }

  /** Runs one request; rejects with `lease-not-held` when the window is closed or closes meanwhile. */
  async within<T>(signal: AbortSignal, send: (signal: AbortSignal) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    const closed = new AbortController();
    if (!this.isOpen) throw notHeld();
    const done = new AbortController();
    const watch = this.#watch(closed, done.signal);
    try {
      return await send(AbortSignal.any([signal, closed.signal]));
    } finally {
      done.abort();
      await watch;
    }
  }

  /** Aborts `closed` when the deadline passes, as often as it may be moved meanwhile. */
  async #watch(closed: AbortController, done: AbortSignal): Promise<void> {
    const ended = new Promise<void>((resolve) =>
      done.addEventListener("abort", () => resolve(), { once: true })
    );
    while (!done.aborted) {
      const leftMs = this.#deadlineMs - this.#clock.monotonicMs();
      if (leftMs <= 0) return closed.abort(notHeld());
      const tick = new AbortController();
      const sleep = this.#clock.sleep(leftMs, { signal: tick.signal }).catch(() => {});
      await Promise.race([sleep, this.whenRenewed(), ended]);
      tick.abort();
    }
  }
}

function notHeld(): StateManagerError {
  return new StateManagerError(
    "lease-not-held",
    "send to the store: the time that the lease allows is over",
    {
      hint: "it goes on as soon as the lease is renewed",
    },
  );
}
