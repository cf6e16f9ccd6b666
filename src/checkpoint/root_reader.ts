/** From a checkpoint's record to its entries: root object, manifest pieces, each step verified by hash. */

import { isError } from "../platform/errors.ts";
import type { ObjectStore, RequestOptions } from "../storage/object_store.ts";
import type { ChunkTable } from "./chunk_table.ts";
import { fetchChunks, planFetch } from "./chunk_fetcher.ts";
import type { Cipher } from "./cipher.ts";
import { type Codec, damaged } from "./codec.ts";
import { sha256Hex } from "./ids.ts";
import { ManifestReader } from "./manifest.ts";
import { type FilesItem, parseRoot, type RootObject } from "./records.ts";
import type { CheckpointRecord, ManifestEntry } from "./types.ts";

/** What leads to a root object. */
export type RootRef = Pick<CheckpointRecord, "id" | "root" | "root_sha256">;

export async function loadRoot(
  store: ObjectStore,
  record: RootRef,
  { cipher, ...options }: RequestOptions & { readonly cipher: Cipher },
): Promise<RootObject> {
  try {
    const { body } = await store.get(record.root, options);
    return parseRoot(body, record, { sha256: sha256Hex(body), cipher });
  } catch (error) {
    if (isError(error, "object-not-found")) throw damaged(record.root, "the root object is not there", error);
    throw error;
  }
}

/** What reading chunks needs. */
export interface ReadingOptions {
  readonly store: ObjectStore;
  readonly codec: Codec;
  readonly cipher: Cipher;
  readonly table: ChunkTable;
  readonly signal: AbortSignal;
  readonly onFetched?: (bytes: number) => void;
}

/** Entries of a manifest to be held as objects at one time: some 100 MiB with all that a stage knows of them. */
export const BATCH_ENTRIES = 65_536;

/** A manifest whose text is at hand. As objects its entries would take several times the memory. */
export interface StoredManifest {
  /**
   * All entries in path order, in batches of `entries`; the last may have less, or none. The whole is proven when the last batch comes, and each
   * piece by its id before.
   */
  batches(entries: number): Generator<readonly ManifestEntry[]>;
}

export async function fetchManifest(
  item: FilesItem,
  name: string,
  options: ReadingOptions,
): Promise<StoredManifest> {
  const pieces = new Map<string, Uint8Array>();
  await fetchChunks(planFetch(options.table, new Set(item.manifest)), {
    ...options,
    // A copy: the chunk is a view of its whole pack, which must not live as long as the piece.
    deliver: (id, bytes) => void pieces.set(id, bytes.slice()),
    usersOf: () => `the manifest of "${name}"`,
  });
  return {
    *batches(entries) {
      const reader = new ManifestReader(`manifest of "${name}"`, item, options.cipher);
      for (const id of item.manifest) {
        const piece = pieces.get(id);
        if (piece === undefined) throw damaged(`manifest of "${name}"`, `piece ${id} did not come`);
        reader.add(piece);
        while (reader.complete >= entries) yield reader.take(entries);
      }
      yield reader.finish();
    },
  };
}
