/** At most so many operations at a time; the others wait in order. */

import { StateManagerError } from "../platform/errors.ts";
import { withDeadline } from "./deadline.ts";
import type { Clock } from "../platform/clock.ts";
import type { ObjectStore, RequestOptions } from "./object_store.ts";

export interface LimitedOptions {
  readonly concurrency: number;
  readonly clock: Clock;
}

/** Waiting bodies are memory: far more than any room queues, and still bounded. */
const MOST_WAITING = 10_000;

class Turns {
  readonly #description: string;
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(description: string, concurrency: number) {
    this.#description = description;
    this.#free = concurrency;
  }

  /** Resolves with our turn; rejects, without one, when `signal` aborts first. */
  take(signal: AbortSignal): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve();
    }
    if (this.#waiting.length >= MOST_WAITING) {
      throw new StateManagerError(
        "busy",
        `use ${this.#description}: ${MOST_WAITING} operations are waiting already`,
      );
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const turn = () => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    };
    const onAbort = () => {
      this.#waiting.splice(this.#waiting.indexOf(turn), 1);
      reject(signal.reason);
    };
    this.#waiting.push(turn);
    signal.addEventListener("abort", onAbort, { once: true });
    return promise;
  }

  give(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}

/** Large puts at a time; each sends two parts at once and has three in memory. */
const LARGE_PUTS = 4;

export function limited(store: ObjectStore, options: LimitedOptions): ObjectStore {
  const { concurrency, clock } = options;
  if (!Number.isInteger(concurrency) || concurrency < 1) {
    throw new StateManagerError(
      "invalid-request",
      `limit store: concurrency is ${concurrency}, wanted 1 or more`,
    );
  }
  const turns = new Turns(store.description, concurrency);
  // Of their own: what a large put is made of may be read from this very store, so it must not hold the turn that
  // its own source waits for.
  const largeTurns = new Turns(store.description, Math.min(concurrency, LARGE_PUTS));

  /** The time in the queue counts against the caller's limit; nothing was sent when it ends there. */
  async function inTurn<T, R extends RequestOptions>(
    request: R,
    call: (request: R) => Promise<T>,
    queue = turns,
  ): Promise<T> {
    const { signal, timeoutMs } = request;
    const since = clock.monotonicMs();
    if (timeoutMs === undefined) {
      signal?.throwIfAborted();
      await queue.take(signal ?? new AbortController().signal);
    } else {
      await withDeadline({
        clock,
        signal,
        limitMs: timeoutMs,
        counts: "total",
        timedOut: () =>
          new StateManagerError(
            "store-unreachable",
            `use ${store.description}: no turn within ${timeoutMs} ms`,
            {
              hint: "the operations before it are slow: look at the store and the line to it",
            },
          ),
      }, (deadline) => queue.take(deadline.signal));
    }
    try {
      const leftMs = timeoutMs === undefined ? undefined : timeoutMs - (clock.monotonicMs() - since);
      return await call(leftMs === undefined ? request : { ...request, timeoutMs: Math.max(1, leftMs) });
    } finally {
      queue.give();
    }
  }

  return {
    description: store.description,
    get: (key, options = {}) => inTurn(options, (request) => store.get(key, request)),
    head: (key, options = {}) => inTurn(options, (request) => store.head(key, request)),
    put: (key, body, options = {}) => inTurn(options, (request) => store.put(key, body, request)),
    putLarge: (key, pieces, options) =>
      inTurn(options, (request) => store.putLarge(key, pieces, request), largeTurns),
    list: (options) => inTurn(options, (request) => store.list(request)),
    delete: (key, options = {}) => inTurn(options, (request) => store.delete(key, request)),
    close: () => store.close(),
  };
}
