/** A store in memory, for tests and the simulator: the contract of ObjectStore and nothing else. */

import { createHash } from "node:crypto";
import type { Clock } from "../platform/clock.ts";
import { assertLargeSize, collectPieces } from "./large_put.ts";
import { assertBody, assertKey, assertMetadata, readableRange } from "./object_key.ts";
import { isListed, pageLimit, pageOf } from "./listing.ts";
import type { ObjectInfo, ObjectStore, PutOptions } from "./object_store.ts";
import { objectNotFound, preconditionFailed } from "./store_errors.ts";

export interface MemoryStoreOptions {
  /** Gives the objects' times; without it they are all 0. */
  readonly clock?: Pick<Clock, "wallMs">;
  /** "content": equal bodies have equal tags, as in S3 (default). "unique": every write has its own. */
  readonly tags?: "content" | "unique";
  readonly description?: string;
  /** Largest object of a large put, which is collected here; default 1 GiB. */
  readonly largestBytes?: number;
}

const LARGEST_BYTES = 1024 ** 3;

interface Entry {
  readonly info: ObjectInfo;
  readonly body: Uint8Array<ArrayBuffer>;
}

function conditionFault(entry: Entry | undefined, condition: PutOptions["condition"]): string | undefined {
  if (condition === undefined) return undefined;
  if ("absent" in condition) return entry === undefined ? undefined : "it exists, wanted none";
  if (entry === undefined) return "no such object, wanted a certain version";
  return entry.info.etag === condition.etag ? undefined : "another version is there";
}

export function memoryStore(options: MemoryStoreOptions = {}): ObjectStore {
  const description = options.description ?? "memory";
  const entries = new Map<string, Entry>();
  let writes = 0;

  const tagOf = (body: Uint8Array): string =>
    options.tags === "unique" ? `"${writes}"` : `"${createHash("md5").update(body).digest("hex")}"`;

  function find(kind: "get" | "head", key: string): Entry {
    assertKey(key);
    const entry = entries.get(key);
    if (entry === undefined) throw objectNotFound(kind, key, description);
    return entry;
  }

  function store(
    key: string,
    body: Uint8Array<ArrayBuffer>,
    request: PutOptions,
  ): { readonly etag: string } {
    const metadata = { ...request.metadata };
    assertMetadata(metadata);
    const fault = conditionFault(entries.get(key), request.condition);
    if (fault !== undefined) throw preconditionFailed(key, description, fault);
    writes++;
    const etag = tagOf(body);
    const modifiedMs = options.clock?.wallMs() ?? 0;
    entries.set(key, { info: { key, sizeBytes: body.length, etag, modifiedMs, metadata }, body });
    return { etag };
  }

  return {
    description,
    // Async functions, so that every fault is a rejection and none is thrown at the caller directly.
    // deno-lint-ignore require-await
    async get(key, request = {}) {
      request.signal?.throwIfAborted();
      const { info, body } = find("get", key);
      const { start, end } = readableRange(key, request.range, body.length);
      return { ...info, body: body.slice(start, end) };
    },
    // deno-lint-ignore require-await
    async head(key, request = {}) {
      request.signal?.throwIfAborted();
      return find("head", key).info;
    },
    // deno-lint-ignore require-await
    async put(key, body, request = {}) {
      request.signal?.throwIfAborted();
      assertKey(key);
      assertBody(key, body);
      return store(key, body.slice(), request);
    },
    async putLarge(key, pieces, request) {
      request.signal?.throwIfAborted();
      assertKey(key);
      assertLargeSize(key, request.sizeBytes, options.largestBytes ?? LARGEST_BYTES);
      assertMetadata(request.metadata ?? {});
      const body = await collectPieces(key, pieces, request);
      request.signal?.throwIfAborted();
      return store(key, body, request);
    },
    // deno-lint-ignore require-await
    async list(request) {
      request.signal?.throwIfAborted();
      const limit = pageLimit(request);
      const keys = [...entries.keys()].filter((key) => isListed(key, request)).sort();
      const infos = keys.slice(0, limit + 1).flatMap((key) => entries.get(key)?.info ?? []);
      return pageOf(infos.map((info) => ({ ...info, metadata: {} })), limit);
    },
    // deno-lint-ignore require-await
    async delete(key, request = {}) {
      request.signal?.throwIfAborted();
      assertKey(key);
      entries.delete(key);
    },
    clockMs: () => null,
    async close() {},
  };
}
