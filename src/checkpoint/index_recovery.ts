/**
 * Indexes of which some may be lost, and what the packs' own footers say in their place. Reads only; repair writes the
 * result, salvage just uses it.
 */

import type { ObjectStore } from "../storage/object_store.ts";
import { listAll } from "../storage/object_store.ts";
import { ChunkTable } from "./chunk_table.ts";
import type { Cipher } from "./cipher.ts";
import type { Codec } from "./codec.ts";
import { isPackName, packKey, PACKS_PREFIX } from "./ids.ts";
import { decodeIndex, type IndexedPack } from "./index_format.ts";
import { fetchIndex, type IndexRef } from "./index_store.ts";
import { eachInParallel, fetchFooter, type ObjectProblem, packProblemOf, problemOf } from "./pack_check.ts";
import { PackContents } from "./pack_contents.ts";
import type { Pacer } from "./pacer.ts";
import { isError } from "../platform/errors.ts";
import { EntryList } from "./pack.ts";

export interface RecoveryOptions {
  readonly store: ObjectStore;
  readonly codec: Codec;
  readonly cipher: Cipher;
  readonly signal: AbortSignal;
  readonly pacer: Pacer;
}

/** Requests for small objects at one time. */
const SMALL_IN_FLIGHT = 8;
/** A guess of a footer's entries where nothing is known: most packs have fewer, so one request is enough. */
const LIKELY_ENTRIES = 512;

export interface ReadIndexes {
  readonly contents: PackContents;
  readonly packsOf: ReadonlyMap<IndexRef, readonly IndexedPack[]>;
  readonly lost: readonly { readonly key: string; readonly problem: ObjectProblem }[];
}

/** All indexes that can be read. Errors: `format-too-new`, those of the store. */
export async function readIndexes(refs: readonly IndexRef[], options: RecoveryOptions): Promise<ReadIndexes> {
  const { store, codec, signal, pacer } = options;
  const contents = new PackContents();
  const packsOf = new Map<IndexRef, readonly IndexedPack[]>();
  const lost: { key: string; problem: ObjectProblem }[] = [];
  for (const ref of refs) {
    try {
      const bytes = await fetchIndex(store, ref, signal);
      // Not yet into the contents: it may prove damaged further on.
      const records = new EntryList();
      const packOf: IndexedPack[] = [];
      const packs = decodeIndex(codec, bytes, ref.key, (record, pack) => {
        records.push(record);
        packOf.push(pack);
      });
      for (const pack of packs) contents.addPack(pack);
      let next = 0;
      for (const record of records) {
        const pack = packOf[next++];
        if (pack !== undefined) contents.add(pack, record);
      }
      packsOf.set(ref, packs);
    } catch (error) {
      const missing = isError(error) && isError(error.cause, "object-not-found");
      lost.push({ key: ref.key, problem: problemOf(missing ? error.cause : error) });
    }
    await pacer.turn();
  }
  return { contents, packsOf, lost };
}

/** Every pack in the store by name, with its size. */
export async function listPackSizes(options: RecoveryOptions): Promise<Map<string, number>> {
  const sizes = new Map<string, number>();
  for await (const { key, sizeBytes } of listAll(options.store, PACKS_PREFIX, { signal: options.signal })) {
    const name = key.slice(PACKS_PREFIX.length);
    if (isPackName(name)) sizes.set(name, sizeBytes);
    await options.pacer.turn();
  }
  return sizes;
}

export interface RecoveredPack {
  readonly pack: IndexedPack;
  readonly entries: EntryList;
}

/**
 * What the footers of packs say that no readable index names: what a lost index said, and garbage of checkpoints that
 * were never finished. Never those of `doomed`, which may be deleted at any moment, nor of a term after `epoch`.
 */
export async function readUnknownPacks(
  sizes: ReadonlyMap<string, number>,
  known: PackContents,
  limits: { readonly doomed: ReadonlySet<string>; readonly epoch: number },
  options: RecoveryOptions,
): Promise<{
  readonly found: readonly RecoveredPack[];
  readonly unreadable: readonly { readonly key: string; readonly problem: ObjectProblem }[];
}> {
  const found: RecoveredPack[] = [];
  const unreadable: { key: string; problem: ObjectProblem }[] = [];
  const unknown = [...sizes].filter(([name]) =>
    known.find(name) === null && !limits.doomed.has(name) && termOf(name) <= limits.epoch
  );
  await eachInParallel(unknown, SMALL_IN_FLIGHT, options.signal, async ([name, sizeBytes], signal) => {
    const pack = { name, sizeBytes };
    try {
      found.push({
        pack,
        entries: await fetchFooter(pack, LIKELY_ENTRIES, { store: options.store, signal }),
      });
    } catch (error) {
      unreadable.push({ key: packKey(name), problem: packProblemOf(error) });
    }
    options.pacer.count(1, 0);
    await options.pacer.turn();
  });
  // The order of names is that of time: what an older pack has stays where it is.
  return { found: found.sort((a, b) => (a.pack.name < b.pack.name ? -1 : 1)), unreadable };
}

function termOf(pack: string): number {
  return Number.parseInt(pack.slice(0, pack.indexOf("/")), 16);
}

/** The chunks of `contents`, then those of `more` that it does not have. */
export function tableOf(contents: PackContents, more: readonly RecoveredPack[] = []): ChunkTable {
  const table = new ChunkTable();
  const add = ({ pack, entries }: RecoveredPack) => {
    const number = table.addPack(pack);
    for (const entry of entries) table.add(entry, number);
  };
  for (const pack of contents.packs) add({ pack, entries: contents.entriesOf(pack.name) });
  more.forEach(add);
  return table;
}
