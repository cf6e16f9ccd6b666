/**
 * Bytes per second that may go to or come from a store. A line that is taken in turns: each transfer waits until the
 * ones before it have had their time at this rate. A single object still goes at the speed of the line, so the rate
 * holds over a few objects, not within one.
 */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { ObjectStore, Pieces } from "./object_store.ts";

export class RateLimit {
  readonly #bytesPerSecond: number;
  readonly #clock: Clock;
  /** When all that was taken so far has had its time. */
  #freeAtMs = 0;

  constructor(bytesPerSecond: number, clock: Clock) {
    if (!(bytesPerSecond > 0)) {
      throw new StateManagerError(
        "invalid-request",
        `limit rate: ${bytesPerSecond} bytes per second, wanted more than 0`,
      );
    }
    this.#bytesPerSecond = bytesPerSecond;
    this.#clock = clock;
  }

  /** Waits for the turn of a transfer of so many bytes, in order of the calls. Rejects with the signal's reason. */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const now = this.#clock.monotonicMs();
    const startMs = Math.max(now, this.#freeAtMs);
    this.#freeAtMs = startMs + bytes / this.#bytesPerSecond * 1000;
    if (startMs > now) await this.#clock.sleep(startMs - now, signal === undefined ? {} : { signal });
  }
}

export interface StoreRates {
  /** Of what is put; left out: no limit. */
  readonly upload?: RateLimit;
  /** Of what is got; counted when it has come, since nobody knows the size of an object before. */
  readonly download?: RateLimit;
}

/** A store whose transfers keep to these rates. Waiting for a turn does not count against a call's own time limit. */
export function rateLimited(store: ObjectStore, { upload, download }: StoreRates): ObjectStore {
  async function* paced(pieces: Pieces, limit: RateLimit, signal: AbortSignal | undefined): Pieces {
    for await (const piece of pieces) {
      await limit.take(piece.length, signal);
      yield piece;
    }
  }
  return {
    description: store.description,
    head: (key, options) => store.head(key, options),
    list: (options) => store.list(options),
    delete: (key, options) => store.delete(key, options),
    clockMs: () => store.clockMs(),
    close: () => store.close(),
    async get(key, options = {}) {
      const object = await store.get(key, options);
      await download?.take(object.body.length, options.signal);
      return object;
    },
    async put(key, body, options = {}) {
      await upload?.take(body.length, options.signal);
      return await store.put(key, body, options);
    },
    putLarge: (key, pieces, options) =>
      store.putLarge(key, upload === undefined ? pieces : paced(pieces, upload, options.signal), options),
  };
}
