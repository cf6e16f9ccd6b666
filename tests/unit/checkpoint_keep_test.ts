/** Which checkpoints stay: examples, and against a model that is written the slow and plain way. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { expired, type KeepRules, planKeep, SAFETY_KEPT_MS } from "../../src/checkpoint/keep_rules.ts";
import type { CheckpointRecord } from "../../src/checkpoint/types.ts";
import { checkpointRecord } from "../support/fake_control.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const NOW_MS = Date.UTC(2026, 5, 15, 12, 30);
const NONE: KeepRules = { last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0, withinMs: 0, labels: [] };

const facts = (checkpoints: readonly CheckpointRecord[], current = checkpoints.at(-1)?.id ?? null) => ({
  checkpoints,
  current,
  intent: null,
});
/** Oldest first, made at these times. */
const at = (...times: readonly number[]) =>
  times.map((time, i) => checkpointRecord(i + 1, { time, kind: "interval" }));
const kept = (records: readonly CheckpointRecord[], rules: Partial<KeepRules>, nowMs = NOW_MS) => {
  const plan = planKeep(facts(records), { ...NONE, ...rules }, nowMs);
  return plan.filter(({ reasons }) => reasons.length > 0).map(({ record }) => record.n).sort((a, b) => a - b);
};

Deno.test("keep rules keep the newest of each hour, day, week and month in UTC", () => {
  const times = [
    Date.UTC(2026, 3, 30, 23, 59), // April
    Date.UTC(2026, 4, 1, 0, 0), // May
    Date.UTC(2026, 5, 7, 23, 0), // Sunday
    Date.UTC(2026, 5, 8, 0, 0), // Monday: the next week
    Date.UTC(2026, 5, 14, 10, 0),
    Date.UTC(2026, 5, 15, 11, 10),
    Date.UTC(2026, 5, 15, 11, 50),
    Date.UTC(2026, 5, 15, 12, 0),
  ];
  const records = at(...times);
  assert.deepEqual(kept(records, { hourly: 2 }), [7, 8]);
  assert.deepEqual(kept(records, { daily: 3 }), [4, 5, 8]);
  assert.deepEqual(kept(records, { weekly: 3 }), [3, 5, 8]);
  assert.deepEqual(kept(records, { monthly: 3 }), [1, 2, 8]);
  assert.deepEqual(kept(records, { last: 3 }), [6, 7, 8]);
  assert.deepEqual(kept(records, { withinMs: 2 * HOUR_MS }), [6, 7, 8]);
});

Deno.test("keep rules keep what is current, pinned, labelled, or named by a restore that is not finished", () => {
  const records = at(...Array.from({ length: 8 }, (_, i) => NOW_MS - (8 - i) * DAY_MS)).map((record) => {
    if (record.n === 2) return { ...record, pinned: true };
    if (record.n === 3) return { ...record, labels: { release: "7" } };
    return record;
  });
  const [first, , , , fifth] = records;
  assert.ok(first !== undefined && fifth !== undefined);
  const intent = {
    record: checkpointRecord(9, { kind: "restore", restored_from: fifth.id }),
    on_start: null,
  };
  const plan = planKeep({ checkpoints: records, current: first.id, intent }, {
    ...NONE,
    labels: ["release=7", "release=8", "other"],
  }, NOW_MS);
  assert.deepEqual(expired(plan).map(({ n }) => n), [4, 6, 7]);
  assert.deepEqual(
    Object.fromEntries(plan.map(({ record, reasons }) => [record.n, reasons])),
    {
      1: ["current"],
      2: ["pinned"],
      3: ["label"],
      4: [],
      5: ["restore"],
      6: [],
      7: [],
      8: ["newest", "newest-clean"],
    },
  );
});

Deno.test("keep rules never let a checkpoint with warnings take the place of a clean one", () => {
  const hour = Date.UTC(2026, 5, 15, 10);
  const records = at(hour, hour + 1, hour + 2, hour + HOUR_MS, hour + 2 * HOUR_MS).map((record) =>
    [2, 3, 5].includes(record.n) ? { ...record, warnings: 1 } : record
  );
  // Hour 10: 1 is clean. Hour 12: only 5 is there.
  assert.deepEqual(kept(records, { hourly: 3 }), [1, 4, 5]);
  // Nothing but warnings: the newest stands for its hour.
  assert.deepEqual(kept(records.map((record) => ({ ...record, warnings: 2 })), { hourly: 3 }), [3, 4, 5]);
  // However many bad ones follow, the newest clean one stays.
  const bad = at(...Array.from({ length: 40 }, (_, i) => hour + i * DAY_MS)).map((record) =>
    record.n > 1 ? { ...record, warnings: 1 } : record
  );
  assert.ok(kept(bad, { last: 5, daily: 5 }).includes(1));
});

Deno.test("keep rules keep a safety checkpoint for a day, then as any other", () => {
  const records = at(...Array.from({ length: 4 }, (_, i) => NOW_MS - DAY_MS + i)).map((record) =>
    record.n < 3 ? { ...record, kind: "safety" as const } : record
  );
  const [first] = records;
  assert.ok(first !== undefined);
  assert.deepEqual(kept(records, {}, first.time + SAFETY_KEPT_MS), [2, 4]);
  assert.deepEqual(kept(records, {}, first.time + SAFETY_KEPT_MS - 1), [1, 2, 4]);
  assert.deepEqual(kept(records, { last: 3 }, NOW_MS + 9 * DAY_MS), [2, 3, 4]);
});

Deno.test("keep rules delete nothing at once when the clock is set", () => {
  const day = (i: number) => NOW_MS - (20 - i) * DAY_MS;
  const rules: KeepRules = {
    last: 3,
    hourly: 4,
    daily: 7,
    weekly: 5,
    monthly: 6,
    withinMs: DAY_MS,
    labels: [],
  };
  const before = at(...Array.from({ length: 20 }, (_, i) => day(i)));
  const stays = kept(before, rules);
  // A year ahead, a year back: what was kept stays, but for what only `within` wanted.
  for (const nowMs of [NOW_MS + 365 * DAY_MS, NOW_MS - 365 * DAY_MS]) {
    const now = kept(before, rules, nowMs);
    assert.deepEqual(stays.filter((n) => !now.includes(n)), []);
  }
  // One that was made while the clock was a year ahead is the newest by its ordinal and takes one place of each kind.
  const odd = [...before, checkpointRecord(21, { time: NOW_MS + 365 * DAY_MS })];
  const after = kept(odd, rules);
  assert.ok(after.includes(21));
  assert.ok(stays.filter((n) => !after.includes(n)).length <= 4, `${stays} then ${after}`);
});

// ---- the model

/** As one would do it by hand: for each bucket from the newest ordinal on, its newest clean one, else its newest. */
function modelKept(
  checkpoints: readonly CheckpointRecord[],
  current: string | null,
  rules: KeepRules,
  nowMs: number,
): Set<number> {
  const stays = new Set<number>();
  const sorted = [...checkpoints].sort((a, b) => a.n - b.n);
  const newest = sorted.at(-1);
  if (newest !== undefined) stays.add(newest.n);
  const clean = sorted.filter(({ warnings }) => warnings === 0).at(-1);
  if (clean !== undefined) stays.add(clean.n);
  for (const record of sorted) {
    if (record.id === current || record.pinned === true) stays.add(record.n);
    if (rules.withinMs > 0 && nowMs - record.time < rules.withinMs) stays.add(record.n);
    if (record.kind === "safety" && nowMs - record.time < 24 * HOUR_MS) stays.add(record.n);
    if (rules.labels.includes("keep") && "keep" in record.labels) stays.add(record.n);
  }
  for (const record of sorted.slice(Math.max(0, sorted.length - rules.last))) stays.add(record.n);
  const texts: Record<string, (date: Date) => string> = {
    hourly: (date) => date.toISOString().slice(0, 13),
    daily: (date) => date.toISOString().slice(0, 10),
    weekly: (date) => {
      const monday = new Date(date);
      monday.setUTCDate(monday.getUTCDate() - (monday.getUTCDay() + 6) % 7);
      return monday.toISOString().slice(0, 10);
    },
    monthly: (date) => date.toISOString().slice(0, 7),
  };
  for (const [rule, textOf] of Object.entries(texts)) {
    const count = rules[rule as "hourly"];
    const buckets: string[] = [];
    for (const record of sorted.toReversed()) {
      const text = textOf(new Date(record.time));
      if (!buckets.includes(text)) buckets.push(text);
    }
    for (const text of buckets.slice(0, count)) {
      const inIt = sorted.filter((record) => textOf(new Date(record.time)) === text);
      const best = inIt.filter(({ warnings }) => warnings === 0).at(-1) ?? inIt.at(-1);
      if (best !== undefined) stays.add(best.n);
    }
  }
  return stays;
}

const counts = fc.integer({ min: 0, max: 6 });
const rulesOf = fc.record({
  last: counts,
  hourly: counts,
  daily: counts,
  weekly: counts,
  monthly: counts,
  withinMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 60 * DAY_MS })),
  labels: fc.constantFrom([], ["keep"]),
});
/** Times go forward in steps of minutes to weeks, and now and then somewhere else. */
const recordsOf = fc.array(
  fc.record({
    step: fc.oneof(
      fc.integer({ min: 0, max: 3 * HOUR_MS }),
      fc.integer({ min: 0, max: 20 * DAY_MS }),
      fc.integer({ min: -400 * DAY_MS, max: 400 * DAY_MS }),
    ),
    warnings: fc.constantFrom(0, 0, 0, 2),
    pinned: fc.constantFrom(false, false, false, false, true),
    kind: fc.constantFrom("interval", "interval", "safety", "request"),
    label: fc.constantFrom("", "", "", "keep"),
  }),
  { maxLength: 40 },
).map((items) => {
  let time = NOW_MS - 60 * DAY_MS;
  return items.map(({ step, warnings, pinned, kind, label }, i) => {
    time = Math.max(0, time + step);
    const labels: Record<string, string> = label === "" ? {} : { [label]: "1" };
    return checkpointRecord(i + 1, { time, warnings, kind: kind as "interval", pinned, labels });
  });
});

Deno.test("keep rules agree with the model for any history and any clock", () => {
  fc.assert(
    fc.property(
      recordsOf,
      rulesOf,
      fc.integer({ min: -400, max: 400 }),
      fc.nat(),
      (records, rules, days, which) => {
        const nowMs = NOW_MS + days * DAY_MS;
        const current = records[which % Math.max(1, records.length)]?.id ?? null;
        const plan = planKeep(facts(records, current), rules, nowMs);
        const stays = new Set(plan.filter(({ reasons }) => reasons.length > 0).map(({ record }) => record.n));
        assert.deepEqual([...stays].sort(), [...modelKept(records, current, rules, nowMs)].sort());
        assert.ok(stays.size >= Math.min(records.length, rules.last));
        // Pruned by the plan and asked again at once, nothing more goes. Where a clock went back, a bucket whose newest one
        // had warnings and went may come behind another bucket, which then takes its place: that one is left out.
        const ascends = records.every(({ time }, i) => i === 0 || time >= (records[i - 1]?.time ?? 0));
        if (!ascends && records.some(({ warnings }) => warnings > 0)) return;
        const left = records.filter(({ n }) => stays.has(n));
        assert.deepEqual(expired(planKeep(facts(left, current), rules, nowMs)), []);
      },
    ),
    { numRuns: 3000 },
  );
});
