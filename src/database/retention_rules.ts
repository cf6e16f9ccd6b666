/**
 * What may be deleted: pure decisions over a listing. Litestream's rules (store.go and compactor.go in
 * https://github.com/benbjohnson/litestream) with two differences, both to the safe side: the snapshot that the points
 * of the retention time begin with is kept too, and so is whatever the TXID of a kept checkpoint is made of.
 *
 * Deleting is the one act that no condition of the store guards. It is done under the lease only, of files that were
 * listed and are older than any request can be late: a commit's slot stays taken for `COMMIT_RETENTION_MS`, so that a
 * former holder's put that arrives late finds it taken (slot_rules.ts).
 */

import { plannable, reachedBy } from "./compaction_rules.ts";
import { COMMIT_LEVEL, SNAPSHOT_LEVEL } from "./replica_layout.ts";
import type { ReplicaFile } from "./replica_listing.ts";
import { planRestore } from "./restore_plan.ts";

/** Litestream's l0-retention. Also how late a put may land (above); a store gives up on a request long before. */
export const COMMIT_RETENTION_MS = 5 * 60_000;

export interface RetentionOptions {
  /** TXIDs of the checkpoints that are kept, and of those that are being made. */
  readonly pins: readonly number[];
  /** Wall clock, the earlier one of the machine's and the store's. */
  readonly nowMs: number;
}

export interface RetentionPlan {
  /** Oldest first, lower levels first. */
  readonly deletable: readonly ReplicaFile[];
  /** Pins that no plan reaches, before anything is deleted: for an alarm. */
  readonly unreachablePins: readonly number[];
}

/**
 * The commits (level 0) that may go: those that the first level has merged, old enough, up to the first young one, never the newest.
 * One that lies before a pin goes only where some other file holds it and ends no later than the pin: a restore to the
 * pin then takes that file and never this one. Cheap, for it is asked for twice a minute.
 */
export function deletableCommits(
  files: readonly ReplicaFile[],
  options: RetentionOptions,
): readonly ReplicaFile[] {
  const limitMs = options.nowMs - COMMIT_RETENTION_MS;
  const commits = files.filter((file) => file.level === COMMIT_LEVEL).sort((a, b) => a.maxTxid - b.maxTxid);
  const compactedTxid = reachedBy(files, COMMIT_LEVEL + 1);
  const covers = files.filter((file) => file.level !== COMMIT_LEVEL).sort((a, b) => a.maxTxid - b.maxTxid);
  const pins = [...options.pins].sort((a, b) => a - b);
  const deletable: ReplicaFile[] = [];
  for (const [index, file] of commits.entries()) {
    if (index === commits.length - 1 || file.maxTxid > compactedTxid) break;
    // Not its commit's time: a machine whose clock was ahead would keep all commits until that time has come.
    if (file.modifiedMs > limitMs) break;
    // The first pin at or after it is the nearest that could need it.
    const pin = pins[lowerBound(pins, file.maxTxid, (each) => each)] ?? Infinity;
    if (isCovered(file, covers, pin)) deletable.push(file);
  }
  return deletable;
}

/** Whether one of `covers` (by max TXID) holds `file` and ends at or before `limitTxid`. */
function isCovered(file: ReplicaFile, covers: readonly ReplicaFile[], limitTxid: number): boolean {
  for (let at = lowerBound(covers, file.maxTxid, (each) => each.maxTxid); at < covers.length; at++) {
    const cover = covers[at];
    if (cover === undefined || cover.maxTxid > limitTxid) return false;
    if (cover.minTxid <= file.minTxid) return true;
  }
  return false;
}

/**
 * The files of levels 1 to 9 that may go: what lies before the snapshot that the retention time begins with, except the
 * newest of each level and all that a restore to a pin reads. Due once per snapshot.
 */
export function planRetention(
  files: readonly ReplicaFile[],
  options: RetentionOptions & { readonly retentionMs: number },
): RetentionPlan {
  const { retentionMs, pins, nowMs } = options;
  const base = retentionBase(files, nowMs - retentionMs);
  const index = new PathIndex(files);
  const kept = new Set<ReplicaFile>();
  const unreachablePins: number[] = [];
  for (const pin of new Set(pins)) {
    const path = index.pathTo(pin);
    for (const file of path.files) kept.add(file);
    if (!path.reaches) unreachablePins.push(pin);
  }
  if (base === null) return { deletable: [], unreachablePins };
  for (const level of new Set(files.map((file) => file.level))) {
    const newest = newestOf(files, level);
    if (newest !== null) kept.add(newest);
  }
  const deletable = files.filter((file) =>
    file.level !== COMMIT_LEVEL && file !== base && file.maxTxid <= base.maxTxid && !kept.has(file)
  );
  return { deletable, unreachablePins };
}

/**
 * The newest snapshot that is at least as old as the retention: where the oldest point that must stay begins. Null:
 * none is as old, everything counts.
 */
function retentionBase(files: readonly ReplicaFile[], limitMs: number): ReplicaFile | null {
  let base: ReplicaFile | null = null;
  for (const file of files) {
    if (file.level !== SNAPSHOT_LEVEL || file.minTxid !== 1) continue;
    if (timeOf(file) > limitMs) continue;
    if (base === null || file.maxTxid > base.maxTxid) base = file;
  }
  return base;
}

/** The later of its commit time, where that is known, and the time that the store got it. */
function timeOf(file: ReplicaFile): number {
  return Math.max(file.timestampMs ?? 0, file.modifiedMs);
}

function newestOf(files: readonly ReplicaFile[], level: number): ReplicaFile | null {
  let newest: ReplicaFile | null = null;
  for (const file of files) {
    if (file.level === level && (newest === null || file.maxTxid >= newest.maxTxid)) newest = file;
  }
  return newest;
}

/** Index of the first item that is at least `wanted`; `items` ascend by `valueOf`. */
function lowerBound<T>(items: readonly T[], wanted: number, valueOf: (item: T) => number): number {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const item = items[middle];
    if (item !== undefined && valueOf(item) < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Plans to many points of one listing: each looks only at what lies between its snapshot and itself. */
class PathIndex {
  readonly #snapshots: readonly ReplicaFile[];
  readonly #others: readonly ReplicaFile[];

  constructor(files: readonly ReplicaFile[]) {
    const sorted = [...files].sort((a, b) => a.maxTxid - b.maxTxid);
    this.#snapshots = sorted.filter((file) => file.level === SNAPSHOT_LEVEL && file.minTxid === 1);
    this.#others = sorted.filter((file) => file.level !== SNAPSHOT_LEVEL);
  }

  /** The files that a restore to `txid` reads, or those on the way there as far as it goes. */
  pathTo(txid: number): { readonly files: readonly ReplicaFile[]; readonly reaches: boolean } {
    const snapshot = this.#snapshots[lowerBound(this.#snapshots, txid + 1, (file) => file.maxTxid) - 1];
    const maxTxid = (file: ReplicaFile) => file.maxTxid;
    const others = this.#others.slice(
      lowerBound(this.#others, (snapshot?.maxTxid ?? 0) + 1, maxTxid),
      lowerBound(this.#others, txid + 1, maxTxid),
    );
    const within = snapshot === undefined ? others : [snapshot, ...others];
    if (within.length === 0) return { files: [], reaches: false };
    const plan = (target: Parameters<typeof planRestore>[1]) =>
      planRestore(within.map(plannable), target).map(({ file }) => file);
    try {
      return { files: plan({ kind: "txid", txid }), reaches: true };
    } catch {
      // A hole, or no file that ends there: said by `reaches`. The nearest state before it is kept.
    }
    try {
      return { files: plan({ kind: "newest" }), reaches: false };
    } catch {
      return { files: snapshot === undefined ? [] : [snapshot], reaches: false };
    }
  }
}
