/**
 * Which checkpoints stay: pure, over what the head lists, which is complete and durable. Deleting follows from it, so
 * every doubt is decided for keeping:
 * - Order is by ordinal, never by time: a clock that was set makes buckets odd, but "the newest" stays what it is. Buckets
 *   are counted, not aged, so a clock that jumps far ahead expires nothing by itself (`within` alone looks at ages).
 * - A bucket (an hour, a day … in UTC) is stood for by its newest checkpoint without warnings, and by its newest one only
 *   where all have some: a state that was read while it changed never takes the place of a clean one.
 * - A checkpoint from the future counts as young.
 */

import type { CheckpointRecord, Head } from "./types.ts";

export interface KeepRules {
  /** So many of the newest. */
  readonly last: number;
  /** One for each of the newest so many hours, days, ISO weeks and months that have any. */
  readonly hourly: number;
  readonly daily: number;
  readonly weekly: number;
  readonly monthly: number;
  /** All that are younger than this; 0: none for that reason. */
  readonly withinMs: number;
  /** `name` or `name=value`: whatever bears one of these labels stays. */
  readonly labels: readonly string[];
}

/** A safety checkpoint is as any other, but stays at least for the day in which somebody may regret the restore. */
export const SAFETY_KEPT_MS = 24 * 3_600_000;

export type KeepReason =
  | "current"
  | "newest"
  /** Of those without warnings. */
  | "newest-clean"
  | "pinned"
  /** Named by a restore that is not finished. */
  | "restore"
  | "safety"
  | "label"
  | "last"
  | "hourly"
  | "daily"
  | "weekly"
  | "monthly"
  | "within";

export interface Kept {
  readonly record: CheckpointRecord;
  /** Why it stays; empty: it goes. */
  readonly reasons: readonly KeepReason[];
}

/** What the rules look at. */
export type KeepFacts = Pick<Head, "checkpoints" | "current" | "intent">;

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** 1970-01-01 was a Thursday: ISO weeks begin three days earlier. */
const WEEK_OFFSET_MS = 3 * DAY_MS;

type Bucket = (timeMs: number) => number;

const BUCKETS: readonly {
  readonly reason: "hourly" | "daily" | "weekly" | "monthly";
  readonly of: Bucket;
}[] = [
  { reason: "hourly", of: (timeMs) => Math.floor(timeMs / HOUR_MS) },
  { reason: "daily", of: (timeMs) => Math.floor(timeMs / DAY_MS) },
  { reason: "weekly", of: (timeMs) => Math.floor((timeMs + WEEK_OFFSET_MS) / (7 * DAY_MS)) },
  { reason: "monthly", of: monthOf },
];

function monthOf(timeMs: number): number {
  const date = new Date(timeMs);
  return date.getUTCFullYear() * 12 + date.getUTCMonth();
}

/** Every listed checkpoint, newest first, with why it stays. `nowMs`: wall clock, the earlier one of the machine's and the store's. */
export function planKeep(facts: KeepFacts, rules: KeepRules, nowMs: number): readonly Kept[] {
  const newestFirst = [...facts.checkpoints].sort((a, b) => b.n - a.n);
  const reasons = new Map<string, KeepReason[]>(newestFirst.map(({ id }) => [id, []]));
  const keep = (record: CheckpointRecord | undefined, reason: KeepReason) => {
    if (record !== undefined) reasons.get(record.id)?.push(reason);
  };
  keep(newestFirst.find(({ id }) => id === facts.current), "current");
  keep(newestFirst[0], "newest");
  keep(newestFirst.find(isClean), "newest-clean");
  for (const record of newestFirst) {
    for (const reason of ownReasons(record, facts, rules, nowMs)) keep(record, reason);
  }
  for (const record of newestFirst.slice(0, rules.last)) keep(record, "last");
  for (const { reason, of } of BUCKETS) {
    for (const record of newestOfBuckets(newestFirst, of, rules[reason])) keep(record, reason);
  }
  return newestFirst.map((record) => ({ record, reasons: reasons.get(record.id) ?? [] }));
}

/** The checkpoints that go, oldest first. */
export function expired(plan: readonly Kept[]): readonly CheckpointRecord[] {
  return plan.filter(({ reasons }) => reasons.length === 0).map(({ record }) => record).reverse();
}

function isClean({ warnings }: CheckpointRecord): boolean {
  return warnings === 0;
}

/** Reasons that have to do with no other checkpoint. */
function ownReasons(
  record: CheckpointRecord,
  { intent }: KeepFacts,
  rules: KeepRules,
  nowMs: number,
): readonly KeepReason[] {
  const found: KeepReason[] = [];
  const ageMs = nowMs - record.time; // below zero: from the future
  if (record.pinned === true) found.push("pinned");
  if (intent !== null && [intent.record.id, intent.record.restored_from].includes(record.id)) {
    found.push("restore");
  }
  if (record.kind === "safety" && ageMs < SAFETY_KEPT_MS) found.push("safety");
  if (rules.labels.some((label) => bears(record, label))) found.push("label");
  if (rules.withinMs > 0 && ageMs < rules.withinMs) found.push("within");
  return found;
}

function bears({ labels }: CheckpointRecord, label: string): boolean {
  const cut = label.indexOf("=");
  if (cut < 0) return Object.hasOwn(labels, label);
  const name = label.slice(0, cut);
  return Object.hasOwn(labels, name) && labels[name] === label.slice(cut + 1);
}

/** What stands for each of the first `count` buckets, met from the newest on. */
function newestOfBuckets(
  newestFirst: readonly CheckpointRecord[],
  bucketOf: Bucket,
  count: number,
): Iterable<CheckpointRecord> {
  const chosen = new Map<number, CheckpointRecord>();
  for (const record of newestFirst) {
    const bucket = bucketOf(record.time);
    const before = chosen.get(bucket);
    if (before === undefined ? chosen.size < count : !isClean(before) && isClean(record)) {
      chosen.set(bucket, record);
    }
  }
  return chosen.values();
}
