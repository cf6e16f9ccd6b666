/** Where everything is kept: one port (object_store.ts), its stores and its decorators. */

export {
  type ETag,
  getIfPresent,
  type GetOptions,
  LARGE_PART_BYTES,
  listAll,
  type ListOptions,
  type ListPage,
  MAX_LARGE_OBJECT_BYTES,
  MAX_OBJECT_BYTES,
  type ObjectInfo,
  type ObjectKey,
  type ObjectStore,
  type Pieces,
  type PutLargeOptions,
  type PutOptions,
  type RequestOptions,
  type StoredObject,
  withOperations,
} from "./object_store.ts";
export { assertKey, normalizeKeyPrefix } from "./object_key.ts";
export { memoryStore, type MemoryStoreOptions } from "./memory_store.ts";
export { directoryStore, type DirectoryStoreOptions } from "./directory_store.ts";
export { s3Store, type S3StoreOptions } from "./s3/s3_store.ts";
export type { S3Credentials } from "./s3/request.ts";
export { retrying, type RetryingOptions } from "./retrying_store.ts";
export { limited, type LimitedOptions } from "./limited_store.ts";
export { RateLimit, rateLimited, type StoreRates } from "./rate_limit.ts";
export { observed, type StoreObserver, type StoreOperation } from "./observed_store.ts";
export { prefixed } from "./prefixed_store.ts";
export { type FaultRule, faulty, type FaultyStore } from "./faulty_store.ts";
export { type ProbeOptions, type ProbeResult, probeStore } from "./probe.ts";
export { openStore, type OpenStoreEffects, type OpenStoreOptions } from "./open_store.ts";
export { earlierNowMs, laterNowMs, storeNowMs, StoreTime } from "./store_time.ts";
export type { OperationKind } from "./store_errors.ts";
export {
  credentialsFromWire,
  credentialsToWire,
  openWireStore,
  storeToWire,
  type WireCredentials,
  type WireStore,
} from "./wire_store.ts";
