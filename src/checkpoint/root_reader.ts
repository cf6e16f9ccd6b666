/** From a checkpoint's record to its entries: root object, manifest pieces, each step verified by hash. */

import { isError } from "../platform/errors.ts";
import type { ObjectStore, RequestOptions } from "../storage/object_store.ts";
import type { ChunkTable } from "./chunk_table.ts";
import { fetchRanges, planFetch, storedIn } from "./chunk_fetcher.ts";
import { readChunk, type StoredChunk } from "./chunk_reader.ts";
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

/** A manifest that is at hand as it is stored. As objects its entries would take ten times the memory. */
export interface StoredManifest {
  /**
   * All entries in path order, in batches of `entries`; the last may have less, or none. Each piece is unpacked, and proven
   * by its id, when it is come to; the whole is proven when the last batch comes.
   */
  batches(entries: number): Generator<readonly ManifestEntry[]>;
}

interface StoredPiece {
  readonly stored: Uint8Array;
  readonly chunk: StoredChunk;
}

/** Whoever begins with the first batch need not wait for the last piece to be proven. */
export async function fetchManifest(
  item: FilesItem,
  name: string,
  options: ReadingOptions,
): Promise<StoredManifest> {
  const { ranges } = planFetch(options.table, new Set(item.manifest));
  const users = () => `the manifest of "${name}"`;
  const pieces = new Map<string, StoredPiece>();
  await fetchRanges(ranges, { ...options, usersOf: users }, (range) => {
    for (const chunk of range.chunks) {
      // A copy: the range may be most of its pack, which must not live as long as the piece.
      const stored = storedIn(range, chunk).slice();
      pieces.set(chunk.id, { stored, chunk: { ...chunk, pack: range.pack.name } });
    }
    return Promise.resolve();
  });
  const { codec, cipher } = options;
  return {
    *batches(entries) {
      const reader = new ManifestReader(`manifest of "${name}"`, item, cipher);
      for (const id of item.manifest) {
        const piece = pieces.get(id);
        if (piece === undefined) throw damaged(`manifest of "${name}"`, `piece ${id} did not come`);
        reader.add(readChunk({ codec, cipher }, piece.stored, piece.chunk, () => `, needed by ${users()}`));
        while (reader.complete >= entries) yield reader.take(entries);
      }
      yield reader.finish();
    },
  };
}
