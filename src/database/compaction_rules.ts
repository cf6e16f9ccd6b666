/**
 * What is merged when: pure decisions over a listing, Litestream's rules (store.go and compactor.go in
 * https://github.com/benbjohnson/litestream). Files of one level that come after the last file of the next level become
 * one file there, at moments when the wall clock passes a multiple of the level's interval; once per snapshot interval
 * all that leads to the newest TXID becomes a snapshot. Where nothing was committed nothing is due, and nothing is sent.
 */

import { compareFiles, type ReplicaFile } from "./replica_listing.ts";
import { SNAPSHOT_LEVEL } from "./replica_layout.ts";
import { planRestore } from "./restore_plan.ts";

export interface CompactionLevel {
  readonly level: number;
  readonly intervalMs: number;
}

/** Litestream's defaults: a restore then reads a dozen files or so. */
export const COMPACTION_LEVELS: readonly CompactionLevel[] = [
  { level: 1, intervalMs: 30_000 },
  { level: 2, intervalMs: 5 * 60_000 },
  { level: 3, intervalMs: 60 * 60_000 },
];

/** Files in one merge: each is held open with a piece of it (compactor.ts). The rest follows in the next merge. */
export const MOST_INPUTS = 256;

/** Files that become one. */
export interface Merge {
  readonly level: number;
  readonly minTxid: number;
  readonly maxTxid: number;
  /** Oldest first; each begins at or before the TXID after its predecessor. */
  readonly inputs: readonly ReplicaFile[];
}

/** When each level was last looked at, on the wall clock; a level that is missing is due. */
export type CompactionTimes = Readonly<Record<number, number>>;

/**
 * The levels that are due, lowest first, so that what one merge makes is there for the next. A clock that is set, back
 * or ahead, makes a level due once more: early by an interval harms nothing.
 */
export function dueLevels(
  times: CompactionTimes,
  snapshotIntervalMs: number,
  nowMs: number,
  levels: readonly CompactionLevel[] = COMPACTION_LEVELS,
): readonly number[] {
  return [...levels, { level: SNAPSHOT_LEVEL, intervalMs: snapshotIntervalMs }]
    .filter(({ level, intervalMs }) => {
      const lastMs = times[level];
      return lastMs === undefined ||
        startOfInterval(nowMs, intervalMs) !== startOfInterval(lastMs, intervalMs);
    })
    .map(({ level }) => level);
}

/** The clock at which the next level is due. */
export function nextDueMs(
  snapshotIntervalMs: number,
  nowMs: number,
  levels: readonly CompactionLevel[] = COMPACTION_LEVELS,
): number {
  const intervals = [...levels.map(({ intervalMs }) => intervalMs), snapshotIntervalMs];
  return Math.min(...intervals.map((intervalMs) => startOfInterval(nowMs, intervalMs) + intervalMs));
}

function startOfInterval(nowMs: number, intervalMs: number): number {
  return nowMs - nowMs % intervalMs;
}

/** The level whose files become files of `level`. */
export function sourceLevel(
  level: number,
  levels: readonly CompactionLevel[] = COMPACTION_LEVELS,
): number {
  return levels.reduce((below, each) => each.level < level ? Math.max(below, each.level) : below, 0);
}

export interface MergePlan {
  readonly merge: Merge | null;
  /** A hole that stops the level: files from here on wait until somebody looks. Null: none. */
  readonly gap: { readonly afterTxid: number; readonly nextTxid: number } | null;
}

/**
 * What is merged into `level` (1 to 8) now. `files`: the whole listing. A merge ends at each of `pins`, the TXIDs of
 * kept checkpoints, so that a restore to one needs no file of a lower level.
 */
export function planMerge(
  files: readonly ReplicaFile[],
  level: number,
  pins: ReadonlySet<number> = new Set(),
  levels: readonly CompactionLevel[] = COMPACTION_LEVELS,
): MergePlan {
  const from = sourceLevel(level, levels);
  const done = reachedBy(files, level);
  const source = files.filter((file) => file.level === from && file.maxTxid > done).sort(compareFiles);
  const [first] = source;
  if (first === undefined) return { merge: null, gap: null };
  // A level that has no file yet begins where its source does; what came before is in a level above.
  let reached = done === 0 ? first.minTxid - 1 : done;
  const inputs: ReplicaFile[] = [];
  for (const file of source) {
    if (file.minTxid > reached + 1) {
      const gap = { afterTxid: reached, nextTxid: file.minTxid };
      return { merge: mergeOf(level, inputs), gap };
    }
    if (file.maxTxid <= reached) continue;
    if (inputs.length === MOST_INPUTS) break;
    inputs.push(file);
    reached = file.maxTxid;
    if (pins.has(reached)) break;
  }
  return { merge: mergeOf(level, inputs), gap: null };
}

/** Where `level` ends; one that has no file yet begins after the newest snapshot, so as not to hold all of it again. */
export function reachedBy(files: readonly ReplicaFile[], level: number): number {
  const lastOf = (wanted: number) =>
    files.reduce((most, file) => file.level === wanted ? Math.max(most, file.maxTxid) : most, 0);
  return lastOf(level) || lastOf(SNAPSHOT_LEVEL);
}

function mergeOf(level: number, inputs: readonly ReplicaFile[]): Merge | null {
  const [first] = inputs;
  const last = inputs.at(-1);
  if (first === undefined || last === undefined) return null;
  return { level, minTxid: first.minTxid, maxTxid: last.maxTxid, inputs };
}

/**
 * The snapshot of the newest TXID that can be reached, made of the files that a restore would read; null when there is
 * one already. Where that would be too many files it ends earlier, and the next one goes on from it.
 */
export function planSnapshot(files: readonly ReplicaFile[]): Merge | null {
  if (files.length === 0) return null;
  const plan = planRestore(files.map(plannable), { kind: "newest" }).slice(0, MOST_INPUTS);
  const last = plan.at(-1);
  if (last === undefined || last.level === SNAPSHOT_LEVEL) return null;
  const inputs = plan.map(({ file }) => file);
  return { level: SNAPSHOT_LEVEL, minTxid: 1, maxTxid: last.maxTxid, inputs };
}

/** As the planner wants it: it reads times for targets in time only, and to break ties between equal files. */
export function plannable(file: ReplicaFile) {
  const { level, minTxid, maxTxid, timestampMs, modifiedMs } = file;
  return { level, minTxid, maxTxid, timestampMs: timestampMs ?? modifiedMs, file };
}
