/**
 * Which data of a database wins at a start: the rows of docs/architecture.md's lineage table for one SQLite file, as a
 * pure function of facts that the caller has gathered. The same rules as for files roots (lineage.ts), with a TXID in
 * place of a checkpoint: decided by who held the lease and what the bucket holds, never by clocks.
 *
 * Why TXIDs can be compared at all: a slot of the bucket is written once and for ever (put-if-absent), each term begins
 * with a slot of its own, and a local L0 file is durable before it is sent. So a local history that the bucket's newest
 * slot is part of is the same history, perhaps longer; one that ends before it, or differs in it, is another.
 */

import type { LineageDecision } from "./lineage.ts";

/** What the data dir keeps of a database beside its L0 files; written before every step it describes. */
export interface DatabaseMarker {
  readonly repo_id: string;
  /** Absolute path of the database file. */
  readonly path: string;
  /** Fencing token of our last term in which this database was proven ours. */
  readonly token: number;
  /** As in a files root's marker: the term whose take-over of the head may have landed. */
  readonly claimed: number | null;
  readonly claimed_before?: readonly number[] | undefined;
  /** TXID that the local content is, or descends from; null: nothing of it was ever in a bucket. */
  readonly txid: number | null;
}

export interface DatabaseFacts {
  /** No file of that name, or an empty one. */
  readonly localMissing: boolean;
  readonly marker: DatabaseMarker | null;
  readonly repoId: string;
  /** Where the configuration has the file now. */
  readonly path: string;
  /** Epoch of the head before this term took it over; null: there was no head. */
  readonly previousEpoch: number | null;
  /** Newest TXID in the bucket; null: it holds no file of this database. */
  readonly bucketTxid: number | null;
  /** Newest TXID of the L0 files in the data dir; null: there are none. */
  readonly localTxid: number | null;
  /**
   * Whether the local L0 file of the bucket's newest TXID has the content (its file checksum) of the bucket's. Null: it
   * can't be told, since one of the two is not there as an L0 file.
   */
  readonly sameContent: boolean | null;
  /** The head has a restore of this database that has begun and that the local file is not the result of. */
  readonly restoreBegun: boolean;
  readonly onConflict: "refuse" | "bucket" | "local";
  /** `restore.on_start: none`: local data stays whatever the bucket holds. */
  readonly restoreNothing: boolean;
}

/** True when nobody else held the head since we last did. */
function heldLastByUs(marker: DatabaseMarker, epoch: number | null): boolean {
  return epoch !== null && [marker.token, marker.claimed, ...marker.claimed_before ?? []].includes(epoch);
}

/** TXID that the local content is at least; what the program wrote after it is found by the follower. */
function localPosition(marker: DatabaseMarker, localTxid: number | null): number {
  return Math.max(marker.txid ?? 0, localTxid ?? 0);
}

/**
 * True when the bucket holds nothing that the local content is not a continuation of. A restored database has no L0
 * files yet, and those of long ago are pruned: then the positions decide, which our own term alone could have moved.
 */
function bucketIsNotAhead(facts: DatabaseFacts, marker: DatabaseMarker, bucketTxid: number): boolean {
  return bucketTxid <= localPosition(marker, facts.localTxid) && facts.sameContent !== false;
}

/** True when this database was ours up to the head as it stood: the test for `keep`. */
export function isDatabaseOurs(facts: DatabaseFacts): boolean {
  const { marker, bucketTxid } = facts;
  if (marker === null || !isOfThisPlace(facts, marker) || bucketTxid === null) return false;
  return heldLastByUs(marker, facts.previousEpoch) && !facts.restoreBegun &&
    bucketIsNotAhead(facts, marker, bucketTxid);
}

/** The marker speaks of this repository and of the file at this path. */
function isOfThisPlace(facts: DatabaseFacts, marker: DatabaseMarker): boolean {
  return marker.repo_id === facts.repoId && marker.path === facts.path;
}

/** The rows of the lineage table, top to bottom. */
export function decideDatabaseLineage(facts: DatabaseFacts): LineageDecision {
  const { marker } = facts;
  const inBucket = facts.bucketTxid !== null;
  if (facts.localMissing) {
    if (!inBucket) return { kind: "empty", reason: "neither local data nor a replica" };
    if (facts.restoreNothing) return { kind: "empty", reason: "restore.on_start is none" };
    return { kind: "restore", moveAside: false, reason: "no local data" };
  }
  if (!inBucket) return { kind: "adopt", reason: "local data, nothing in the bucket yet" };
  if (facts.restoreNothing) return { kind: "keep", reason: "restore.on_start is none" };
  if (isDatabaseOurs(facts)) return { kind: "keep", reason: "nobody held the lease since we last did" };
  if (marker !== null && isOfThisPlace(facts, marker)) {
    return { kind: "restore", moveAside: true, reason: staleReason(facts, marker) };
  }
  const origin = marker === null
    ? "no lineage marker here"
    : marker.repo_id === facts.repoId
    ? "marker of another path"
    : "marker of another repository";
  if (facts.onConflict === "bucket") {
    return { kind: "restore", moveAside: true, reason: `${origin}; on_conflict: bucket` };
  }
  if (facts.onConflict === "local") return { kind: "keep", reason: `${origin}; on_conflict: local` };
  return { kind: "refuse", reason: origin };
}

function staleReason(facts: DatabaseFacts, marker: DatabaseMarker): string {
  if (facts.restoreBegun) return "a restore of it has begun";
  if (!heldLastByUs(marker, facts.previousEpoch)) return "somebody held the lease since";
  const local = localPosition(marker, facts.localTxid);
  return facts.sameContent === false
    ? `the bucket holds another TXID ${facts.bucketTxid}`
    : `the bucket is ahead: TXID ${facts.bucketTxid}, here ${local === 0 ? "none" : local}`;
}
