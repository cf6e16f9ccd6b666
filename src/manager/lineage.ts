/**
 * Which data wins at a start: the lineage rules of docs/architecture.md as pure functions, and the marker file
 * that they read. Decided per files root from who held the lease and what the bucket holds, never by clocks.
 *
 * The marker `<data dir>/lineage.json` is written before every step it describes, so a crash leaves it claiming
 * at most what may have happened:
 *   claimed  written before the head is taken over: if we die in between, the head's epoch is our claim or the old one.
 *            A claim that a later one replaces is kept (`claimed_before`): its take-over may have landed, or land late;
 *   pending  written before a checkpoint's head swap: if we die in between, the head's current is either of the two.
 */

import * as v from "valibot";
import type { CheckpointRecord, Head } from "../checkpoint/types.ts";
import { StateManagerError } from "../platform/errors.ts";
import { readTextIfPresent, writeFileAtomically } from "../platform/files.ts";
import { finishedIntent } from "./head_changes.ts";
import { type LocalFiles, systemFiles } from "../platform/local_files.ts";

const MarkerItemSchema = v.object({
  repo_id: v.string(),
  path: v.string(),
  /** Fencing token of our last term in which this item was proven ours. */
  token: v.number(),
  claimed: v.nullable(v.number()),
  /** Earlier claims since `token`, oldest first. */
  claimed_before: v.exactOptional(v.array(v.number())),
  /** Checkpoint that the local content descends from; null: none yet. */
  checkpoint: v.nullable(v.string()),
  pending: v.nullable(v.string()),
});

/** Of a replicated database. Its position is in its local L0 files; here is what the restore that made it brought. */
const DatabaseMarkerSchema = v.object({
  repo_id: v.string(),
  path: v.string(),
  token: v.number(),
  claimed: v.nullable(v.number()),
  claimed_before: v.exactOptional(v.array(v.number())),
  /** TXID that the content was, when it was last restored; null: it never was, all of it is ours. */
  txid: v.nullable(v.number()),
});

const MarkerSchema = v.object({
  v: v.literal(1),
  files: v.record(v.string(), MarkerItemSchema),
  databases: v.exactOptional(v.record(v.string(), DatabaseMarkerSchema)),
});

export type MarkerItem = v.InferOutput<typeof MarkerItemSchema>;
export type DatabaseMarker = v.InferOutput<typeof DatabaseMarkerSchema>;
export type Marker = v.InferOutput<typeof MarkerSchema>;

export const EMPTY_MARKER: Marker = { v: 1, files: {} };

/** The marker of a database as the journal of its swap carries it; this program wrote it. */
export function parseDatabaseMarker(value: unknown): DatabaseMarker {
  return v.parse(DatabaseMarkerSchema, value);
}

/** A change of the marker as data; each is one durable write. Items that do not exist are left out, but for `own`. */
export type MarkerChange =
  /** The head is about to be taken over under `token`; what is not named is not ours at it, and loses its claims. */
  | {
    readonly kind: "claim";
    readonly names: readonly string[];
    /** Left out: none. */
    readonly databases?: readonly string[];
    readonly token: number;
  }
  /** A swap that makes checkpoint `id` of the local content is about to be sent. */
  | { readonly kind: "pending"; readonly names: readonly string[]; readonly id: string }
  /** The local content is, or descends from, checkpoint `id`. */
  | { readonly kind: "content"; readonly names: readonly string[]; readonly id: string }
  /** These items are ours as of this term. */
  | { readonly kind: "own"; readonly items: Readonly<Record<string, MarkerItem>> }
  /** These databases are ours as of this term, or will be by what comes next. */
  | { readonly kind: "own-databases"; readonly databases: Readonly<Record<string, DatabaseMarker>> };

/** A start that fails again and again adds a claim each time; what is forgotten counts as stale and is moved aside. */
const CLAIMS_LIMIT = 32;

export function changeMarker(marker: Marker, change: MarkerChange): Marker {
  if (change.kind === "own") return { ...marker, files: { ...marker.files, ...change.items } };
  if (change.kind === "own-databases") {
    return { ...marker, databases: { ...marker.databases, ...change.databases } };
  }
  const files = Object.entries(marker.files).map(([name, item]) => [name, changeItem(name, item, change)]);
  const changed = { ...marker, files: Object.fromEntries(files) };
  if (change.kind !== "claim" || marker.databases === undefined) return changed;
  const databases = Object.entries(marker.databases).map(([name, item]) => [
    name,
    claim(item, (change.databases ?? []).includes(name), change.token),
  ]);
  return { ...changed, databases: Object.fromEntries(databases) };
}

function claim<Item extends Pick<MarkerItem, "claimed" | "claimed_before">>(
  item: Item,
  named: boolean,
  token: number,
): Item {
  // The head has moved on from what the earlier claims were made on: their take-overs cannot land any more.
  if (!named) return { ...item, claimed: null, claimed_before: [] };
  const before = item.claimed === null ? [] : [item.claimed];
  const claims = [...item.claimed_before ?? [], ...before].filter((each) => each !== token);
  return { ...item, claimed: token, claimed_before: claims.slice(-CLAIMS_LIMIT) };
}

function changeItem(
  name: string,
  item: MarkerItem,
  change: Exclude<MarkerChange, { kind: "own" | "own-databases" }>,
): MarkerItem {
  const named = change.names.includes(name);
  if (!named && change.kind !== "claim") return item;
  switch (change.kind) {
    case "claim":
      return claim(item, named, change.token);
    case "pending":
      return { ...item, pending: change.id };
    case "content":
      return { ...item, checkpoint: change.id, pending: null };
  }
}

/** What a start does with one files root. `keep` and `adopt` also ship the local content soon after the start. */
export type LineageDecision =
  | {
    readonly kind: "restore";
    readonly moveAside: boolean;
    readonly reason: string;
  }
  | { readonly kind: "keep"; readonly reason: string }
  | { readonly kind: "adopt"; readonly reason: string }
  | { readonly kind: "empty"; readonly reason: string }
  | { readonly kind: "refuse"; readonly reason: string };

export interface LineageFacts {
  readonly name: string;
  /** Missing, empty, or nothing but lost+found. */
  readonly localEmpty: boolean;
  readonly marker: MarkerItem | null;
  readonly repoId: string;
  /** The head as it stood before this term took it over. */
  readonly previousHead: Head | null;
  readonly onConflict: "refuse" | "bucket" | "local";
  /** `restore.on_start: none`: local data stays whatever the bucket holds. */
  readonly restoreNothing: boolean;
}

/** The record that is the head's current state; null while there is none. */
export function currentRecord(head: Head | null): CheckpointRecord | null {
  if (head === null || head.current === null) return null;
  return head.checkpoints.find((record) => record.id === head.current) ?? null;
}

/**
 * True when the item was written under the term that last held the head (its epoch; null: there was none), so nobody
 * else wrote since.
 */
export function heldAtEpoch(
  marker: Pick<MarkerItem | DatabaseMarker, "token" | "claimed" | "claimed_before">,
  epoch: number | null,
): boolean {
  return epoch !== null && [marker.token, marker.claimed, ...marker.claimed_before ?? []].includes(epoch);
}

/** True when the head has a restore of this item that has begun, and the local content is not its. */
function awaitsRestore(name: string, marker: MarkerItem, head: Head): boolean {
  const { intent } = head;
  return intent !== null && marker.checkpoint !== intent.record.id && (intent.files ?? []).includes(name);
}

/** True when the head's current content of the item is what the local content descends from. */
function bucketIsNotAhead(
  name: string,
  marker: MarkerItem,
  head: Head,
): boolean {
  if (head.current === marker.checkpoint || head.current === marker.pending) {
    return true;
  }
  // Another root's restore made a new checkpoint: ours is not behind if its own content there is the same.
  const known = head.checkpoints.find((record) => record.id === marker.checkpoint);
  const mine = known?.files[name]?.manifest_sha256;
  return mine !== undefined &&
    mine === currentRecord(head)?.files[name]?.manifest_sha256;
}

/**
 * True when this item was ours up to the head as it stands: the test for `keep`. A restore that has begun counts as
 * done, since whoever holds the lease next finishes it.
 */
export function isOurs(
  name: string,
  marker: MarkerItem | null,
  repoId: string,
  head: Head | null,
): boolean {
  if (marker === null || marker.repo_id !== repoId || head === null) {
    return false;
  }
  return heldAtEpoch(marker, head.epoch) && !awaitsRestore(name, marker, head) &&
    bucketIsNotAhead(name, marker, finishedIntent(head));
}

/** The rows of the lineage table, top to bottom. */
export function decideLineage(facts: LineageFacts): LineageDecision {
  const { name, marker, previousHead } = facts;
  const coming = previousHead === null ? null : finishedIntent(previousHead);
  const inBucket = currentRecord(coming)?.files[name] !== undefined;
  if (facts.localEmpty) {
    if (!inBucket) {
      return { kind: "empty", reason: "neither local data nor a checkpoint" };
    }
    if (facts.restoreNothing) {
      return { kind: "empty", reason: "restore.on_start is none" };
    }
    return { kind: "restore", moveAside: false, reason: "no local data" };
  }
  if (!inBucket) {
    return { kind: "adopt", reason: "local data, nothing in the bucket yet" };
  }
  if (facts.restoreNothing) {
    return { kind: "keep", reason: "restore.on_start is none" };
  }
  if (isOurs(name, marker, facts.repoId, previousHead)) {
    return { kind: "keep", reason: "nobody held the lease since we last did" };
  }
  if (marker !== null && marker.repo_id === facts.repoId) {
    return {
      kind: "restore",
      moveAside: true,
      reason: "somebody held the lease since, or the bucket is ahead",
    };
  }
  const origin = marker === null ? "no lineage marker here" : "marker of another repository";
  if (facts.onConflict === "bucket") {
    return {
      kind: "restore",
      moveAside: true,
      reason: `${origin}; on_conflict: bucket`,
    };
  }
  if (facts.onConflict === "local") {
    return { kind: "keep", reason: `${origin}; on_conflict: local` };
  }
  return { kind: "refuse", reason: origin };
}

/** Items of the bucket that the configuration does not name. */
export function orphansError(names: readonly string[]): StateManagerError {
  return new StateManagerError(
    "config-invalid",
    `start: the bucket holds files roots that the configuration does not name: ${names.join(", ")}`,
    {
      hint:
        "name them under files (or with --files NAME=PATH), or set restore.orphans=keep to carry them on unseen",
      details: names.map((name) => ({
        pointer: `/files/${name}`,
        detail: "in the bucket, not in the configuration",
      })),
    },
  );
}

/** The error for roots that only an operator can decide about. */
export function conflictError(
  roots: readonly { name: string; path: string; reason: string }[],
): StateManagerError {
  return new StateManagerError(
    "origin-unknown",
    `start: local data of unknown origin in ${
      roots.map((root) => root.path).join(", ")
    }, the bucket has its own`,
    {
      hint: "choose: restore.on_conflict=bucket moves the local data aside and restores, " +
        "restore.on_conflict=local keeps it as a new checkpoint; or empty the folder",
      details: roots.map((root) => ({
        pointer: `/files/${root.name}`,
        detail: root.reason,
      })),
    },
  );
}

/** Reads the marker. A damaged one counts as absent: every root is then of unknown origin, which asks the operator. */
export async function readMarker(
  path: string,
  files: LocalFiles = systemFiles,
): Promise<{ marker: Marker; damaged: boolean }> {
  const text = await readTextIfPresent(path, files);
  if (text === null) return { marker: EMPTY_MARKER, damaged: false };
  try {
    const parsed = v.safeParse(MarkerSchema, JSON.parse(text));
    if (parsed.success) return { marker: parsed.output, damaged: false };
  } catch {
    // fall through: not JSON
  }
  return { marker: EMPTY_MARKER, damaged: true };
}

/** Keeps the marker of one data dir in memory and on disk; every change is durable before it resolves. */
export class LineageFile {
  readonly #path: string;
  readonly #files: LocalFiles;
  #marker: Marker = EMPTY_MARKER;

  constructor(path: string, files: LocalFiles = systemFiles) {
    this.#path = path;
    this.#files = files;
  }

  /** Returns true when there was a marker that could not be read. */
  async load(): Promise<boolean> {
    const { marker, damaged } = await readMarker(this.#path, this.#files);
    this.#marker = marker;
    return damaged;
  }

  item(name: string): MarkerItem | null {
    return this.#marker.files[name] ?? null;
  }

  get marker(): Marker {
    return this.#marker;
  }

  async apply(change: MarkerChange): Promise<void> {
    const next = changeMarker(this.#marker, change);
    await writeFileAtomically(this.#path, JSON.stringify(next, null, 1) + "\n", { files: this.#files });
    this.#marker = next;
  }
}
