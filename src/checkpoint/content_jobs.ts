/**
 * Cuts what is to be read into jobs: small files in batches, large ones in segments, so that one file uses every core.
 * Where a file is cut is where the chunker begins anew anyway, so its parts are the same however it is read. Pure.
 */

import { SEGMENT_BYTES } from "./chunker.ts";
import type { FileOutcome, ReadFacts } from "./content_job.ts";
import { type ContentRange, joinParts } from "./content_reader.ts";
import { sizeOf } from "./content_job.ts";
import type { ScannedEntry } from "./scan.ts";

const MIB = 1024 * 1024;
/** A batch takes about as long as a segment of a large file, or as long as it takes to open so many. */
const BATCH_BYTES = 4 * MIB;
const BATCH_FILES = 512;
/** Databases are cut at fixed places, so their segments may be as small as is good for the cores. */
const SQLITE_SEGMENT_BYTES = 16 * MIB;
/** Near its end: a database is read last, and no core is to wait for another one's last segment. */
const LAST_SEGMENTS_BYTES = 64 * MIB;
const LAST_SEGMENT_BYTES = 4 * MIB;

/** True for a file of several segments. One with holes is read at once: only its reader knows where they are. */
export function isSegmented({ entry, facts }: ScannedEntry): boolean {
  return entry.size > SEGMENT_BYTES && facts.blocks * 512 >= entry.size;
}

/** The parts of a file of about this size; the last one goes to wherever it ends. */
export function fileSegments(size: number, sqlite: boolean): readonly ContentRange[] {
  const ranges: ContentRange[] = [];
  for (let start = 0; start < Math.max(1, size);) {
    const end = start + (sqlite ? databaseSegment(size - start) : SEGMENT_BYTES);
    ranges.push({ start, end: end < size ? end : null });
    start = end;
  }
  return ranges;
}

function databaseSegment(leftBytes: number): number {
  return leftBytes > LAST_SEGMENTS_BYTES ? SQLITE_SEGMENT_BYTES : LAST_SEGMENT_BYTES;
}

/** A file to read, by its number in the scan. */
export interface Planned {
  readonly index: number;
  readonly scanned: ScannedEntry;
}

/** Batches in the order of the files; databases that are taken as they are come by themselves. */
export function* readBatches(files: Iterable<Planned>): Generator<readonly Planned[]> {
  let batch: Planned[] = [];
  let bytes = 0;
  for (const file of files) {
    const { size, sqlite } = file.scanned.entry;
    const joins = sqlite !== true && bytes + size <= BATCH_BYTES && batch.length < BATCH_FILES;
    if (!joins && batch.length > 0) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(file);
    bytes += sqlite === true ? BATCH_BYTES + 1 : size;
  }
  if (batch.length > 0) yield batch;
}

/** What was read of the ranges of one file, as one: settled only if all of them saw the same state. */
export function mergeSegments(
  ranges: readonly (ContentRange | null)[],
  outcomes: readonly FileOutcome[],
): FileOutcome {
  const [first] = outcomes;
  if (first === undefined) return { kind: "failed", errno: "ENOENT" };
  if (outcomes.length === 1 && ranges[0] === null) return first;
  if (first.kind !== "read") return first;
  const lists = [];
  let settled = true;
  let isWhole = true;
  for (const [i, outcome] of outcomes.entries()) {
    if (outcome.kind !== "read") return outcome;
    settled &&= outcome.settled && sameState(first.facts, outcome.facts);
    // What follows a part that ended early is not where it was.
    if (isWhole) lists.push(outcome.parts);
    const range = ranges[i] ?? null;
    isWhole &&= range === null || range.end === null || sizeOf(outcome.parts) === range.end - range.start;
  }
  const parts = joinParts(lists);
  const isSettled = settled && sizeOf(parts) === first.facts.size;
  return { kind: "read", facts: first.facts, settled: isSettled, parts, problems: first.problems };
}

function sameState(a: ReadFacts, b: ReadFacts): boolean {
  return a.ino === b.ino && a.dev === b.dev && a.size === b.size && a.mtimeNs === b.mtimeNs &&
    a.ctimeNs === b.ctimeNs;
}
