/**
 * The one storage port. Everything the product keeps goes through it; S3, a folder and memory implement it, and
 * every other quality (retries, limits, metrics, a key prefix) is a decorator around it. The comments here are the
 * contract: tests/contract/object_store_contract.ts runs it against every implementation.
 *
 * Consistency wanted from a store: read-after-write and list-after-write, and conditional puts that are linearizable
 * per key. `probe.ts` checks what can be checked before a store is trusted.
 */

import { isError } from "../platform/errors.ts";

/**
 * 1 to 900 characters: segments of 1 to 200 characters of [A-Za-z0-9._-], joined by "/", none of them "." or "..".
 * Narrow on purpose: every store keeps these unchanged (docs/storage_format.md). All else is `key-invalid`.
 */
export type ObjectKey = string;

/** Opaque version tag of one object's content; compare only for equality. Equal bodies may have equal tags. */
export type ETag = string;

export interface ObjectInfo {
  readonly key: ObjectKey;
  readonly sizeBytes: number;
  readonly etag: ETag;
  /** The store's own time, milliseconds since the epoch; not a clock to decide by. */
  readonly modifiedMs: number;
  /** User metadata, lower-case ASCII names and values; only from get and head (a listing leaves it empty). */
  readonly metadata: Readonly<Record<string, string>>;
}

export interface StoredObject extends ObjectInfo {
  /**
   * The bytes asked for: the whole object or the range. `sizeBytes` is always the whole object's size. Nobody else has
   * any part of its buffer, so that it may be transferred.
   */
  readonly body: Uint8Array<ArrayBuffer>;
}

export interface RequestOptions {
  /** Ends the request; the promise rejects with the signal's reason, and a put may still land (`outcome-unknown`). */
  readonly signal?: AbortSignal;
  /** Longest wait in milliseconds for this one call, retries of a decorator included. */
  readonly timeoutMs?: number;
}

export interface GetOptions extends RequestOptions {
  /** Bytes [start, end) of the object; `end` past the object's end is cut there, `start` past it is `invalid-request`. */
  readonly range?: { readonly start: number; readonly end: number };
  /**
   * Memory of at least so many bytes for the body, which is then a part of it; left out: the store takes its own. Asked
   * for anew for each try, and never given back: work that was given up may still write into it. A store may do without.
   */
  readonly memory?: (sizeBytes: number) => Uint8Array<ArrayBuffer>;
  /** true: it is read once, so a folder need not put it into the system's memory. A store may do without. */
  readonly uncached?: boolean;
  /**
   * true: an object of this name never changes once it is there, and its metadata is not asked for, which may be left out:
   * a folder then looks for one file and not for newer versions of it. A store may do without.
   */
  readonly immutable?: boolean;
}

export interface PutOptions extends RequestOptions {
  /**
   * `{ absent: true }`: only if no object has this key. `{ etag }`: only if the object's tag is still this one.
   * Left out: overwrite. A condition that does not hold: `precondition-failed`, nothing written; a missing object
   * under `{ etag }` is `precondition-failed` too.
   */
  readonly condition?: { readonly absent: true } | { readonly etag: ETag };
  readonly metadata?: Readonly<Record<string, string>>;
  /**
   * true: whoever puts under a condition finds out by himself whether what refuses it is his own, so it may go over a
   * connection that was used before, which can bring it twice. Left out: it comes once at most.
   */
  readonly mayComeTwice?: boolean;
  /** true: it is not read soon, so a folder need not keep it in the system's memory. A store may do without. */
  readonly uncached?: boolean;
}

export interface PutLargeOptions extends PutOptions {
  /** What `pieces` sum up to, at most `MAX_LARGE_OBJECT_BYTES`; any other sum is `invalid-request`, nothing written. */
  readonly sizeBytes: number;
  /**
   * true: the way of large objects also where it is small, for a probe that must see what a condition means there.
   * Left out: up to `LARGE_PART_BYTES` it is the same as `put`.
   */
  readonly inParts?: boolean;
}

/** A large body as it is made: pieces of any size, each done with before the next one is asked for. */
export type Pieces = AsyncIterable<Uint8Array<ArrayBuffer>>;

export interface ListOptions extends RequestOptions {
  /** Only keys that begin with this text (not necessarily whole segments). "" for all. */
  readonly prefix: string;
  /** Only keys after this one in byte order. */
  readonly startAfter?: ObjectKey;
  /** Most keys in the page, 1 to 1000 (default 1000). */
  readonly limit?: number;
}

export interface ListPage {
  /** In ascending byte order of keys. */
  readonly objects: readonly ObjectInfo[];
  /** Give as `startAfter` for the next page; undefined on the last one. */
  readonly nextStartAfter?: ObjectKey;
}

/**
 * Errors (StateManagerError codes): `object-not-found`, `precondition-failed`, `key-invalid`, `store-unreachable`
 * (network, time-out, 5xx, 429: nothing known to be wrong with the request), `outcome-unknown` (a put that may or may
 * not have landed: lost reply, 409 conflict; read back before deciding), `store-access-denied`, `store-not-found`
 * (bucket or folder), `store-full`, `store-refused` (any other refusal), `cancelled`.
 */
export interface ObjectStore {
  /** For messages and logs, without secrets: `s3 bucket "b" at http://…`, `folder /srv/store`. */
  readonly description: string;
  /** At most 64 MiB (`MAX_OBJECT_BYTES`) at a time, else `body-too-large`: larger objects are read by ranges. */
  get(key: ObjectKey, options?: GetOptions): Promise<StoredObject>;
  head(key: ObjectKey, options?: RequestOptions): Promise<ObjectInfo>;
  /** Durable when it resolves. Bodies are at most 64 MiB (`MAX_OBJECT_BYTES`). */
  put(key: ObjectKey, body: Uint8Array<ArrayBuffer>, options?: PutOptions): Promise<{ readonly etag: ETag }>;
  /**
   * As `put`, for bodies of any size and in bounded memory: whole and durable when it resolves, invisible before, and
   * the condition is judged when it becomes visible (`precondition-failed` may come earlier where it is clear before).
   * Whatever fails, nothing of it is visible; only of `outcome-unknown`, or where the signal or a time limit ended it
   * at the very end, is that not known. No decorator repeats it, since `pieces` can be read once: read back, then
   * decide. What `pieces` throws comes out as it is; it is closed early when the put fails. Without `timeoutMs` it
   * may take as long as it moves on (`LARGE_STALL_LIMIT_MS`).
   */
  putLarge(key: ObjectKey, pieces: Pieces, options: PutLargeOptions): Promise<{ readonly etag: ETag }>;
  list(options: ListOptions): Promise<ListPage>;
  /** Unconditional; deleting what is not there succeeds. */
  delete(key: ObjectKey, options?: RequestOptions): Promise<void>;
  /**
   * The store's own wall clock, milliseconds since the Unix epoch, by its last answer and the time since. Null: it has
   * none of its own, or has not told it yet.
   */
  clockMs(): number | null;
  /** Frees connections and timers. No call may follow. */
  close(): Promise<void>;
}

/** Largest body of one put and one get: four packs, held in memory whole. */
export const MAX_OBJECT_BYTES = 64 * 1024 * 1024;

/** Of putLarge: a thousand parts of 64 MiB, three of which are in memory at a time. */
export const MAX_LARGE_OBJECT_BYTES = 1000 * MAX_OBJECT_BYTES;

/** Up to here putLarge is a put: S3's smallest part is 5 MiB, and more requests would cost more than they save. */
export const LARGE_PART_BYTES = 8 * 1024 * 1024;

/** As `get`; null where there is none. */
export async function getIfPresent(
  store: ObjectStore,
  key: ObjectKey,
  options?: GetOptions,
): Promise<StoredObject | null> {
  try {
    return await store.get(key, options);
  } catch (error) {
    if (isError(error, "object-not-found")) return null;
    throw error;
  }
}

/** `store`, with some of its operations done by `own`. */
export function withOperations(store: ObjectStore, own: Partial<ObjectStore>): ObjectStore {
  return {
    description: store.description,
    get: (key, options) => store.get(key, options),
    head: (key, options) => store.head(key, options),
    put: (key, body, options) => store.put(key, body, options),
    putLarge: (key, pieces, options) => store.putLarge(key, pieces, options),
    list: (options) => store.list(options),
    delete: (key, options) => store.delete(key, options),
    clockMs: () => store.clockMs(),
    close: () => store.close(),
    ...own,
  };
}

/** Every object under `prefix`, page by page. */
export async function* listAll(
  store: ObjectStore,
  prefix: string,
  options: RequestOptions = {},
): AsyncGenerator<ObjectInfo> {
  let startAfter: string | undefined;
  do {
    const page: ListPage = await store.list({
      prefix,
      ...options,
      ...(startAfter === undefined ? {} : { startAfter }),
    });
    yield* page.objects;
    startAfter = page.nextStartAfter;
  } while (startAfter !== undefined);
}
