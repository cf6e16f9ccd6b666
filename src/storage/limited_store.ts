/** At most so many operations at a time; the others wait in order. */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { LimitedTurns } from "../platform/limited_turns.ts";
import { withDeadline } from "./deadline.ts";
import type { ObjectStore, RequestOptions } from "./object_store.ts";

export interface LimitedOptions {
  readonly concurrency: number;
  readonly clock: Clock;
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
  const turns = new LimitedTurns(`use ${store.description}`, concurrency);
  // Of their own: what a large put is made of may be read from this very store, so it must not hold the turn that
  // its own source waits for.
  const largeTurns = new LimitedTurns(`use ${store.description}`, Math.min(concurrency, LARGE_PUTS));

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
    clockMs: () => store.clockMs(),
    close: () => store.close(),
  };
}
