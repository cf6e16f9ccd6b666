/**
 * Which files of a replica bring a database to a point, and which points there are: pure functions over a listing.
 * The rule is Litestream's own, so that both restorers choose the same files for the same replica: the newest snapshot
 * that is not past the point, then again and again, over all lower levels, the file that begins at or before the next
 * TXID and reaches furthest. Source: CalcRestorePlan in https://github.com/benbjohnson/litestream, replica.go.
 * Where Litestream would stop silently before a hole in the files, this is an error that names the hole.
 */

import { assert } from "../platform/assert.ts";
import { StateManagerError } from "../platform/errors.ts";
import { type ReplicaName, SNAPSHOT_LEVEL } from "./replica_layout.ts";

/** What a plan needs to know of one file. */
export interface PlannableFile extends ReplicaName {
  /** Commit time of its newest transaction; must be known for targets in time. */
  readonly timestampMs: number | null;
}

/** What to restore. Litestream's `-timestamp T` is `before` T: a commit at T itself is not part of it. */
export type RestoreTarget =
  | { readonly kind: "newest" }
  | { readonly kind: "txid"; readonly txid: number }
  | { readonly kind: "before"; readonly beforeMs: number };

/** A state that can be restored, and the file that ends there; of several the one of the highest level. */
export interface RestorePoint<F> {
  readonly txid: number;
  readonly file: F;
}

function rangeText(first: number, last: number): string {
  return first === last ? `TXID ${first}` : `TXIDs ${first} to ${last}`;
}

/**
 * The files to apply, in order. `from`: a state of this replica that is there already, to go on from; 0 is none.
 * The plan is empty only when `from` is the target. Errors: `not-found` (no such point), `data-damaged` (a hole).
 */
export function planRestore<F extends PlannableFile>(
  files: readonly F[],
  target: RestoreTarget,
  from = 0,
): readonly F[] {
  if (files.length === 0) {
    throw new StateManagerError("not-found", "plan restore: the replica has no files, wanted a snapshot", {
      hint: "check the name of the database and the prefix of the store",
    });
  }
  const eligible = files.filter((file) => isEligible(file, target));
  const snapshot = from > 0 ? null : newestSnapshot(eligible);
  const plan: F[] = snapshot === null ? [] : [snapshot];
  let reached = snapshot?.maxTxid ?? from;
  // One sweep: a file that ends before one that was taken can never be wanted again.
  const rest = eligible.filter((file) => file.level !== SNAPSHOT_LEVEL).sort((a, b) => a.minTxid - b.minTxid);
  let best: F | null = null;
  let at = 0;
  for (;;) {
    for (let next = rest[at]; next !== undefined && next.minTxid <= reached + 1; next = rest[++at]) {
      if (best === null || isBetter(next, best)) best = next;
    }
    if (best === null || best.maxTxid <= reached) break;
    plan.push(best);
    reached = best.maxTxid;
  }
  checkReached(files, eligible, target, reached);
  return plan;
}

function isEligible(file: PlannableFile, target: RestoreTarget): boolean {
  switch (target.kind) {
    case "newest":
      return true;
    case "txid":
      return file.maxTxid <= target.txid;
    case "before":
      assert(file.timestampMs !== null, "a target in time needs the times of all files");
      return file.timestampMs < target.beforeMs;
  }
}

function newestSnapshot<F extends PlannableFile>(files: readonly F[]): F | null {
  let newest: F | null = null;
  for (const file of files) {
    if (file.level !== SNAPSHOT_LEVEL || file.minTxid !== 1) continue;
    if (newest === null || file.maxTxid > newest.maxTxid) newest = file;
  }
  return newest;
}

function isBetter(next: PlannableFile, best: PlannableFile): boolean {
  if (next.maxTxid !== best.maxTxid) return next.maxTxid > best.maxTxid;
  if (next.minTxid !== best.minTxid) return next.minTxid < best.minTxid;
  return next.level > best.level;
}

/** Throws unless `reached` is what was asked for. */
function checkReached(
  files: readonly PlannableFile[],
  eligible: readonly PlannableFile[],
  target: RestoreTarget,
  reached: number,
): void {
  if (target.kind === "txid" && reached === target.txid) return;
  const wanted = target.kind === "txid" ? target.txid : newestTxid(eligible);
  const hole = findHole(files, reached + 1, wanted);
  if (hole !== null) throw holeError(hole, reached);
  if (target.kind === "txid") throw noSuchTxid(files, target.txid);
  if (reached > 0) return;
  if (target.kind === "newest") throw holeError({ first: 1, last: oldestTxid(files) - 1 }, 0);
  throw noSuchTime(files, target.beforeMs);
}

/** Largest TXID that any of the files holds; 0 when there are none. */
export function newestTxid(files: readonly Pick<PlannableFile, "maxTxid">[]): number {
  return files.reduce((most, file) => Math.max(most, file.maxTxid), 0);
}

function oldestTxid(files: readonly PlannableFile[]): number {
  return files.reduce((least, file) => Math.min(least, file.minTxid), Infinity);
}

interface TxidRange {
  readonly first: number;
  readonly last: number;
}

/** TXIDs from `first` on that no file holds, up to the next one that some file does; null when `first` is held. */
function findHole(files: readonly PlannableFile[], first: number, wanted: number): TxidRange | null {
  if (first > wanted) return null;
  let next = Infinity;
  for (const { minTxid, maxTxid } of files) {
    if (minTxid <= first && first <= maxTxid) return null;
    if (minTxid > first) next = Math.min(next, minTxid);
  }
  return next === Infinity ? null : { first, last: next - 1 };
}

function holeError({ first, last }: TxidRange, reached: number): StateManagerError {
  return new StateManagerError(
    "data-damaged",
    `plan restore: no file of the replica holds ${rangeText(first, last)}, wanted files without a gap`,
    {
      hint: reached > 0
        ? `the newest state before the gap is TXID ${reached}: restore that one by its number`
        : "without a snapshot or the files from TXID 1 on there is nothing to restore",
    },
  );
}

function noSuchTxid(files: readonly PlannableFile[], txid: number): StateManagerError {
  const points = restorePoints(files);
  const below = points.findLast((point) => point.txid < txid);
  const above = points.find((point) => point.txid > txid);
  const near = [below, above].filter((point) => point !== undefined).map((point) => point.txid);
  const why = above === undefined
    ? "it is newer than all"
    : below === undefined
    ? "it is older than all"
    : "merged files step over it";
  return new StateManagerError(
    "not-found",
    `plan restore: TXID ${txid} is not one of the restore points, ${why}`,
    {
      hint: near.length === 0
        ? "the replica has no restore points"
        : `the nearest are ${near.join(" and ")}; "db points" lists all`,
    },
  );
}

function noSuchTime(files: readonly PlannableFile[], beforeMs: number): StateManagerError {
  const [oldest] = restorePoints(files);
  return new StateManagerError(
    "not-found",
    `plan restore: there is no restore point before ${timeText(beforeMs)}`,
    {
      hint: oldest === undefined
        ? "the replica has no restore points"
        : `the oldest is TXID ${oldest.txid} of ${timeText(oldest.file.timestampMs ?? NaN)}`,
    },
  );
}

function timeText(ms: number): string {
  const time = new Date(ms);
  return Number.isNaN(time.getTime()) ? "an unknown time" : time.toISOString();
}

/**
 * All states that can be restored, oldest first. A point is the end of a file that begins at TXID 1, or that begins at or
 * before the TXID after another point: exactly those for which `planRestore` by TXID succeeds.
 */
export function restorePoints<F extends PlannableFile>(files: readonly F[]): readonly RestorePoint<F>[] {
  const points: RestorePoint<F>[] = [];
  const sorted = files.filter((file) => file.level !== SNAPSHOT_LEVEL || file.minTxid === 1)
    .sort((a, b) => a.maxTxid - b.maxTxid || b.level - a.level);
  for (const file of sorted) {
    const { minTxid, maxTxid } = file;
    const newest = points.at(-1);
    if (newest !== undefined && newest.txid === maxTxid) continue;
    if (minTxid <= (newest?.txid ?? 0) + 1) points.push({ txid: maxTxid, file });
  }
  return points;
}

/** Points in one answer, so that no list grows without bound. */
export const POINTS_PAGE_LIMIT = 1000;

export interface PointsPage<P> {
  readonly points: readonly P[];
  /** Give as `after` for the next page; null on the last one. */
  readonly nextAfter: number | null;
}

/** The points after the TXID `after` (0: from the oldest on), at most `limit`. */
export function pageOfPoints<P extends { readonly txid: number }>(
  points: readonly P[],
  after: number,
  limit: number = POINTS_PAGE_LIMIT,
): PointsPage<P> {
  const following = points.filter((point) => point.txid > after);
  const page = following.slice(0, Math.min(Math.max(1, limit), POINTS_PAGE_LIMIT));
  return { points: page, nextAfter: page.length < following.length ? page.at(-1)?.txid ?? null : null };
}
