/** Tells about each operation that ended, for metrics and logs. */

import type { Clock } from "../platform/clock.ts";
import { type ErrorCode, isError } from "../platform/errors.ts";
import type { ObjectStore } from "./object_store.ts";
import type { OperationKind } from "./store_errors.ts";

export interface StoreOperation {
  readonly kind: OperationKind;
  /** The prefix of a listing. */
  readonly key: string;
  readonly durationMs: number;
  /** Bytes of the body sent or received; 0 for an operation without one or that failed. */
  readonly bytes: number;
  /** "cancelled" also when the caller's signal ended it. */
  readonly outcome: "ok" | ErrorCode;
}

export type StoreObserver = (operation: StoreOperation) => void;

export function observed(store: ObjectStore, clock: Clock, observe: StoreObserver): ObjectStore {
  async function watch<T>(
    kind: OperationKind,
    key: string,
    signal: AbortSignal | undefined,
    call: () => Promise<T>,
    bytesOf: (result: T) => number = () => 0,
  ): Promise<T> {
    const since = clock.monotonicMs();
    const tell = (outcome: StoreOperation["outcome"], bytes: number) =>
      observe({ kind, key, durationMs: clock.monotonicMs() - since, bytes, outcome });
    let result: T;
    try {
      result = await call();
    } catch (error) {
      tell(isError(error) ? error.code : signal?.aborted ? "cancelled" : "internal", 0);
      throw error;
    }
    tell("ok", bytesOf(result));
    return result;
  }

  return {
    description: store.description,
    get: (key, options = {}) =>
      watch("get", key, options.signal, () => store.get(key, options), ({ body }) => body.length),
    head: (key, options = {}) => watch("head", key, options.signal, () => store.head(key, options)),
    put: (key, body, options = {}) =>
      watch("put", key, options.signal, () => store.put(key, body, options), () => body.length),
    putLarge: (key, pieces, options) =>
      watch(
        "put",
        key,
        options.signal,
        () => store.putLarge(key, pieces, options),
        () => options.sizeBytes,
      ),
    list: (options) => watch("list", options.prefix, options.signal, () => store.list(options)),
    delete: (key, options = {}) => watch("delete", key, options.signal, () => store.delete(key, options)),
    clockMs: () => store.clockMs(),
    close: () => store.close(),
  };
}
