/**
 * The entries of a files root that a restore wants, in batches: a million of them at once are more than the heap holds.
 * A tree of one batch is kept as it was read; a larger one is read twice, first for what it needs as a whole.
 */

import { selectPaths } from "./path_filter.ts";
import { BATCH_ENTRIES, type StoredManifest } from "./root_reader.ts";
import { type SpaceNeed, SpaceTally } from "./space.ts";
import type { FilesSummary, ManifestEntry } from "./types.ts";

/** A tree as it is read. */
export interface BatchedTree {
  /** In path order, as often as it is called; one batch at least. */
  batches(): Iterable<readonly ManifestEntry[]>;
}

/** One by one. */
export function* entriesOf(tree: BatchedTree): Generator<ManifestEntry> {
  for (const batch of tree.batches()) yield* batch;
}

export interface WantedTree extends BatchedTree {
  readonly entries: number;
  /** Of files, holes included; of hard links once. */
  readonly bytes: number;
  readonly need: SpaceNeed;
}

/** What of a files root. */
export interface WantedPart {
  readonly name: string;
  /** Byte texts; left out: the whole tree. */
  readonly paths?: readonly string[];
  readonly batchEntries?: number;
}

/** Entries that are read at a time where they are staged as they are read: some milliseconds of work. */
const STREAM_ENTRIES = 1024;

/**
 * A whole tree by what its checkpoint says of it: the manifest is read once, while the tree is staged, and proven at the
 * end of that. It needs at most what it says.
 */
export function declaredTree(
  manifest: StoredManifest,
  { entries, bytes }: FilesSummary,
  batchEntries = STREAM_ENTRIES,
): WantedTree {
  return { entries, bytes, need: { bytes, files: entries }, batches: () => manifest.batches(batchEntries) };
}

/** Errors: those of a manifest, `not-found` for a path that it lacks. */
export function wantedTree(
  manifest: StoredManifest,
  { name, paths, batchEntries = BATCH_ENTRIES }: WantedPart,
): WantedTree {
  const need = new SpaceTally();
  let count = 0;
  let bytes = 0;
  let batches = 0;
  let only: readonly ManifestEntry[] | null = null;
  for (const batch of selected(manifest, name, paths, batchEntries)) {
    need.add(batch);
    count += batch.length;
    for (const { parts } of batch) for (const part of parts) bytes += part.length;
    only = batches++ === 0 ? batch : null;
  }
  const kept = only;
  return {
    entries: count,
    bytes,
    need,
    batches: () => kept !== null ? [kept] : selected(manifest, name, paths, batchEntries),
  };
}

function selected(
  manifest: StoredManifest,
  name: string,
  paths: readonly string[] | undefined,
  batchEntries: number,
): Iterable<readonly ManifestEntry[]> {
  const batches = manifest.batches(batchEntries);
  return paths === undefined ? batches : selectPaths(batches, paths, name);
}
