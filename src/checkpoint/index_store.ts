/**
 * Loads the live indexes into one table. They are immutable and named by hash in the head, so a copy in the cache folder
 * is as good as the store's; a damaged copy is fetched again.
 */

import { isError } from "../platform/errors.ts";
import {
  ensureFolder,
  listFolder,
  readBytesIfPresent,
  removeIfPresent,
  writeFileAtomically,
} from "../platform/files.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { ChunkTable } from "./chunk_table.ts";
import { type Codec, damaged } from "./codec.ts";
import { sha256Hex } from "./ids.ts";
import { decodeIndex } from "./index_format.ts";
import type { Head } from "./types.ts";

export type IndexRef = Head["indexes"][number];

/** Indexes fetched at one time: mostly small objects, so latency counts. */
const FETCHES_IN_FLIGHT = 8;

export interface LoadedIndex {
  readonly ref: IndexRef;
  readonly records: number;
  /** Numbers of its packs in the table. */
  readonly packs: readonly number[];
  /** It names doomed packs, too, which the table does not have. */
  readonly namesDoomed: boolean;
}

export interface LoadedIndexes {
  readonly table: ChunkTable;
  readonly indexes: readonly LoadedIndex[];
}

export interface LoadOptions {
  readonly codec: Codec;
  /** Folder for copies; null: none are kept. */
  readonly cacheFolder: string | null;
  readonly signal: AbortSignal;
  /** Packs that garbage collection may delete: what is in them counts as not stored. Left out: none. */
  readonly doomed?: ReadonlySet<string>;
}

const NONE: ReadonlySet<string> = new Set();

export async function loadIndexes(
  store: ObjectStore,
  refs: readonly IndexRef[],
  options: LoadOptions,
): Promise<LoadedIndexes> {
  const table = new ChunkTable();
  const folder = copiesIn(options);
  if (folder !== null) await ensureFolder(folder, 0o700);
  const indexes: LoadedIndex[] = [];
  for (let i = 0; i < refs.length; i += FETCHES_IN_FLIGHT) {
    const group = refs.slice(i, i + FETCHES_IN_FLIGHT);
    const bodies = await Promise.all(group.map((ref) => readIndex(store, ref, options)));
    group.forEach((ref, j) => {
      const bytes = bodies[j];
      if (bytes !== undefined) indexes.push(addIndex(table, ref, bytes, options));
    });
  }
  if (folder !== null) await removeStale(folder, refs);
  return { table, indexes };
}

function copiesIn({ cacheFolder }: Pick<LoadOptions, "cacheFolder">): string | null {
  return cacheFolder === null ? null : `${cacheFolder}/indexes`;
}

function addIndex(
  table: ChunkTable,
  ref: IndexRef,
  bytes: Uint8Array,
  { codec, doomed = NONE }: LoadOptions,
): LoadedIndex {
  const numbers = new Map<object, number>();
  let records = 0;
  const packs = decodeIndex(codec, bytes, ref.key, (record, pack) => {
    if (doomed.has(pack.name)) return;
    const number = numbers.get(pack) ?? table.addPack(pack);
    numbers.set(pack, number);
    table.add(record, number);
    records++;
  }, (count) => table.reserve(count));
  // A pack without records cannot be, but if one were, it must not be lost from the index.
  for (const pack of packs) {
    if (!numbers.has(pack) && !doomed.has(pack.name)) numbers.set(pack, table.addPack(pack));
  }
  const namesDoomed = packs.some(({ name }) => doomed.has(name));
  return { ref, records, packs: [...numbers.values()], namesDoomed };
}

/** The bytes that the head's hash names: the copy, or the store's. */
export async function readIndex(
  store: ObjectStore,
  ref: IndexRef,
  options: Pick<LoadOptions, "cacheFolder" | "signal">,
): Promise<Uint8Array<ArrayBuffer>> {
  const folder = copiesIn(options);
  const path = folder === null ? null : `${folder}/${ref.sha256}`;
  const copy = path === null ? null : await readBytesIfPresent(path).catch(() => null);
  if (copy !== null && sha256Hex(copy) === ref.sha256) return copy;
  const bytes = await fetchIndex(store, ref, options.signal);
  if (path !== null) await keepCopy(path, bytes);
  return bytes;
}

/** The index object as the store has it, whatever copy there is. Error: `data-damaged`, also when it is not there. */
export async function fetchIndex(
  store: ObjectStore,
  ref: IndexRef,
  signal: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const { body } = await store.get(ref.key, { signal });
    if (sha256Hex(body) !== ref.sha256) throw damaged(ref.key, "SHA-256 is not the one that the head names");
    return body;
  } catch (error) {
    if (isError(error, "object-not-found")) throw damaged(ref.key, "the object is not there", error);
    throw error;
  }
}

/** A copy saves a fetch next time; without it all goes on. */
export async function keepCopy(path: string, bytes: Uint8Array): Promise<void> {
  await writeFileAtomically(path, bytes).catch(() => {});
}

async function removeStale(folder: string, refs: readonly IndexRef[]): Promise<void> {
  const live = new Set(refs.map((ref) => ref.sha256));
  for (const name of await listFolder(folder)) {
    if (!live.has(name)) await removeIfPresent(`${folder}/${name}`).catch(() => {});
  }
}
