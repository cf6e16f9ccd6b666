/**
 * Nothing leaves for the store unless the lease is known to be held: the gate stands below every retry and every
 * writer, so none of them can forget it. It opens with the deadline that the manager tells at each renewal, and closes
 * by itself when that passes on CLOCK_BOOTTIME, which ends what is under way too. A request that the store has received
 * by then may still be carried out: the slot fence, not the gate, makes that harmless.
 */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { ObjectStore, RequestOptions } from "../storage/object_store.ts";

export class SendGate {
  readonly #clock: Clock;
  readonly #underWay = new Set<AbortController>();
  #deadlineMs: number | null = null;
  #timer: AbortController | null = null;
  #opened = Promise.withResolvers<void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get isOpen(): boolean {
    return this.#deadlineMs !== null && this.#clock.monotonicMs() < this.#deadlineMs;
  }

  /** Null: closed at once. */
  deadline(bootMs: number | null): void {
    this.#deadlineMs = bootMs;
    this.#timer?.abort();
    this.#timer = null;
    if (bootMs === null || !this.isOpen) return this.#endWork();
    this.#opened.resolve();
    this.#opened = Promise.withResolvers();
    const timer = this.#timer = new AbortController();
    // It may sleep longer than asked (a suspend is not counted): `isOpen` is what every new request asks.
    this.#clock.sleep(bootMs - this.#clock.monotonicMs(), { signal: timer.signal })
      .then(() => this.#endWork(), () => {});
  }

  async untilOpen(signal: AbortSignal): Promise<void> {
    while (!this.isOpen) {
      signal.throwIfAborted();
      const { promise: aborted, reject } = Promise.withResolvers<never>();
      const onAbort = () => reject(signal.reason);
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        await Promise.race([this.#opened.promise, aborted]);
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    }
  }

  /** Runs one request with a signal that also ends it when the gate closes. */
  async pass<T, R extends RequestOptions>(request: R, call: (request: R) => Promise<T>): Promise<T> {
    if (!this.isOpen) throw closed();
    const controller = new AbortController();
    const { signal } = request;
    const onAbort = () => controller.abort(signal?.reason);
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#underWay.add(controller);
    try {
      return await call({ ...request, signal: controller.signal });
    } finally {
      this.#underWay.delete(controller);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Frees the timer. */
  close(): void {
    this.deadline(null);
  }

  #endWork(): void {
    for (const controller of this.#underWay) controller.abort(closed());
  }
}

function closed(): StateManagerError {
  return new StateManagerError("lease-not-held", "send to the store: the lease is not known to be held", {
    hint: "it goes on when the lease has been renewed",
  });
}

/** `store` behind the gate. */
export function gated(store: ObjectStore, gate: SendGate): ObjectStore {
  return {
    description: store.description,
    get: (key, options = {}) => gate.pass(options, (request) => store.get(key, request)),
    head: (key, options = {}) => gate.pass(options, (request) => store.head(key, request)),
    put: (key, body, options = {}) => gate.pass(options, (request) => store.put(key, body, request)),
    list: (options) => gate.pass(options, (request) => store.list(request)),
    delete: (key, options = {}) => gate.pass(options, (request) => store.delete(key, request)),
    close: () => store.close(),
  };
}
