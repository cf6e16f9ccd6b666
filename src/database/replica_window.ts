/**
 * The time in which this process may send anything: until the deadline of the lease that it was last told. One window
 * serves all databases of a process. Requests that are under way when it closes are ended; those of an unconditional
 * kind (deletes) are therefore never sent by a holder that has overstayed, except where the whole process was stopped
 * between the check and the send.
 */

import { type Clock, startTimer } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";

export class SendWindow {
  readonly #clock: Clock;
  #deadlineMs: number;
  #changed = Promise.withResolvers<void>();
  readonly #requests = new Set<AbortController>();
  /** Runs while there are requests. */
  #timer: (() => void) | null = null;

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
    this.#watch();
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
    if (!this.isOpen) throw notHeld();
    const request = new AbortController();
    const onAbort = () => request.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#requests.add(request);
    if (this.#timer === null) this.#watch();
    try {
      return await send(request.signal);
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#requests.delete(request);
      if (this.#requests.size === 0) this.#endWatch();
    }
  }

  /** Ends the requests when the deadline passes, as often as it may be moved meanwhile. One timer for all of them. */
  #watch(): void {
    this.#endWatch();
    if (this.#requests.size === 0) return;
    const leftMs = this.#deadlineMs - this.#clock.monotonicMs();
    if (leftMs <= 0) {
      for (const request of this.#requests) request.abort(notHeld());
      return;
    }
    this.#timer = startTimer(this.#clock, leftMs, () => this.#watch());
  }

  #endWatch(): void {
    this.#timer?.();
    this.#timer = null;
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
