/** What is merged and what is deleted, over random lives of a replica that is only a listing. */

import assert from "node:assert/strict";
import {
  type CompactionLevel,
  dueLevels,
  type Merge,
  nextDueMs,
  planMerge,
  planSnapshot,
} from "../../src/database/compaction_rules.ts";
import { replicaKey, SNAPSHOT_LEVEL } from "../../src/database/replica_layout.ts";
import { chainDefects, HolderListing, type ReplicaFile } from "../../src/database/replica_listing.ts";
import { planRestore, restorePoints } from "../../src/database/restore_plan.ts";
import { COMMIT_RETENTION_MS, deletableCommits, planRetention } from "../../src/database/retention_rules.ts";
import { seededRandom } from "../support/tree_model.ts";

const PLACE = { layout: "bucket", name: "app" } as const;
const LEVELS: readonly CompactionLevel[] = [
  { level: 1, intervalMs: 30_000 },
  { level: 2, intervalMs: 300_000 },
  { level: 3, intervalMs: 1_200_000 },
];
const SNAPSHOT_INTERVAL_MS = 3_600_000;
const RETENTION_MS = 3_600_000;
const STEP_MS = 15_000;

function file(level: number, minTxid: number, maxTxid: number, atMs = 0): ReplicaFile {
  const key = replicaKey(PLACE, { level, minTxid, maxTxid });
  return { level, minTxid, maxTxid, key, sizeBytes: 200, timestampMs: atMs, modifiedMs: atMs };
}

const planned = (files: readonly ReplicaFile[]) =>
  files.map((each) => ({ ...each, timestampMs: each.modifiedMs }));
const ranges = (files: readonly ReplicaFile[]) =>
  files.map((each) => [each.level, each.minTxid, each.maxTxid]);

/** A replica that commits, merges, snapshots and deletes by the rules. */
class Life {
  readonly listing = HolderListing.of(PLACE, []);
  readonly pins = new Set<number>();
  /** TXID → wall time. */
  readonly commits: number[] = [0];
  nowMs = 1_000_000_000_000;
  #times: Record<number, number> = {};

  commit(): void {
    const txid = this.commits.push(this.nowMs) - 1;
    this.listing.added(file(0, txid, txid, this.nowMs));
  }

  turn(pinsKnown: boolean): void {
    const pins = pinsKnown ? this.pins : new Set<number>();
    for (const level of dueLevels(this.#times, SNAPSHOT_INTERVAL_MS, this.nowMs, LEVELS)) {
      if (level === SNAPSHOT_LEVEL) this.#made(planSnapshot(this.listing.files));
      else {
        for (;;) {
          const { merge, gap } = planMerge(this.listing.files, level, pins, LEVELS);
          assert.equal(gap, null);
          if (merge === null) break;
          this.#made(merge);
        }
      }
      this.#times = { ...this.#times, [level]: this.nowMs };
    }
    const options = { pins: [...this.pins], nowMs: this.nowMs, retentionMs: RETENTION_MS };
    for (const { key } of deletableCommits(this.listing.files, options)) this.listing.removed(key);
    const plan = planRetention(this.listing.files, options);
    assert.deepEqual(plan.unreachablePins, []);
    for (const { key } of plan.deletable) this.listing.removed(key);
  }

  #made(merge: Merge | null): void {
    if (merge === null) return;
    // What is merged holds every TXID of its range.
    let reached = merge.minTxid - 1;
    for (const input of merge.inputs) {
      assert.ok(input.minTxid <= reached + 1 && input.maxTxid > reached);
      reached = input.maxTxid;
    }
    assert.equal(reached, merge.maxTxid);
    this.listing.added(file(merge.level, merge.minTxid, merge.maxTxid, this.nowMs));
  }
}

for (const pinsKnown of [true, false]) {
  const when = pinsKnown ? "merges know the pins" : "pins come after the merges";
  Deno.test(`retention keeps a path to every pin, to the newest and through the retention time when ${when}`, () => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = seededRandom(seed);
      const life = new Life();
      for (let step = 0; step < 1_600; step++) {
        life.nowMs += STEP_MS;
        const busy = Math.floor(step / 100) % 3 !== 2;
        for (let n = Math.floor(random() * 3); busy && n > 0; n--) life.commit();
        if (life.commits.length > 1 && random() < 0.01) life.pins.add(life.commits.length - 1);
        if (life.pins.size > 8 && random() < 0.02) life.pins.delete([...life.pins][0] ?? 0);
        if (step % 2 === 1) life.turn(pinsKnown);
        if (step % 40 !== 39) continue;
        const where = `seed ${seed}, step ${step}`;
        const files = planned(life.listing.files);
        const newest = life.commits.length - 1;
        assert.equal(planRestore(files, { kind: "newest" }).at(-1)?.maxTxid, newest, where);
        for (const pin of life.pins) planRestore(files, { kind: "txid", txid: pin });
        // Every moment of the retention time is within a minute of a point.
        const points = restorePoints(files).map(({ txid }) => life.commits[txid] ?? 0);
        for (const [txid, atMs] of life.commits.entries()) {
          if (txid === 0 || atMs < life.nowMs - RETENTION_MS) continue;
          assert.ok(
            points.some((pointMs) => Math.abs(pointMs - atMs) <= 60_000),
            `${where}: TXID ${txid} has no point`,
          );
        }
        assert.deepEqual(chainDefects(life.listing.files), [], where);
      }
      // The replica does not grow with its age.
      assert.ok(life.listing.files.length < 900, `seed ${seed}: ${life.listing.files.length} files`);
    }
  });
}

Deno.test("retention leaves an idle replica its newest files and then wants nothing any more", () => {
  const life = new Life();
  for (let commit = 0; commit < 20; commit++) life.commit();
  for (let step = 0; step < 2_000; step++) {
    life.nowMs += STEP_MS;
    life.turn(true);
  }
  const before = ranges(life.listing.files);
  assert.deepEqual(before, [[0, 20, 20], [1, 1, 20], [2, 1, 20], [3, 1, 20], [9, 1, 20]]);
  for (let step = 0; step < 500; step++) {
    life.nowMs += STEP_MS;
    life.turn(true);
  }
  assert.deepEqual(ranges(life.listing.files), before);
});

Deno.test("deletableCommits stops at the first young commit and at the first that is not merged", () => {
  const old = (txid: number) => file(0, txid, txid, 0);
  const nowMs = COMMIT_RETENTION_MS + 10;
  const merged = [file(1, 1, 4, 0)];
  const commits = [old(1), old(2), file(0, 3, 3, 100), old(4), old(5)];
  assert.deepEqual(ranges(deletableCommits([...commits, ...merged], { pins: [], nowMs })), [[0, 1, 1], [
    0,
    2,
    2,
  ]]);
  const later = { pins: [], nowMs: nowMs + 200 };
  assert.equal(deletableCommits([...commits, ...merged], later).at(-1)?.maxTxid, 4);
  assert.equal(deletableCommits([...commits], later).length, 0);
  assert.equal(
    deletableCommits([...commits, ...merged], { pins: [2], nowMs: nowMs + 200 }).at(0)?.maxTxid,
    3,
  );
});

Deno.test("planRetention says which pins cannot be reached, and keeps what leads to the state before them", () => {
  const nowMs = 10 * RETENTION_MS;
  const files = [file(9, 1, 2), file(1, 3, 5), file(9, 1, 9), file(9, 1, 12, 1), file(1, 6, 12)];
  const { deletable, unreachablePins } = planRetention(files, {
    pins: [7, 99],
    nowMs,
    retentionMs: RETENTION_MS,
  });
  assert.deepEqual(unreachablePins, [7, 99]);
  assert.deepEqual(ranges(deletable), [[9, 1, 9]]);
});

Deno.test("planMerge takes what comes after its level, stops before a gap and ends at a pin", () => {
  const files = [file(0, 1, 1), file(0, 2, 2), file(0, 3, 3), file(0, 5, 5), file(1, 1, 1)];
  const { merge, gap } = planMerge(files, 1);
  assert.deepEqual([merge?.minTxid, merge?.maxTxid, gap], [2, 3, { afterTxid: 3, nextTxid: 5 }]);
  assert.equal(planMerge(files, 1, new Set([2])).merge?.maxTxid, 2);
  assert.deepEqual(planMerge([file(0, 1, 1), file(1, 1, 1)], 1), { merge: null, gap: null });
  // A level without files begins after the newest snapshot.
  const first = planMerge([file(0, 1, 1), file(0, 2, 2), file(9, 1, 1)], 1).merge;
  assert.deepEqual([first?.minTxid, first?.maxTxid], [2, 2]);
});

Deno.test("dueLevels makes a level due once per interval of the wall clock, also when that is set", () => {
  const at = 1_000 * SNAPSHOT_INTERVAL_MS;
  const times = Object.fromEntries([1, 2, 3, 9].map((level) => [level, at + 1]));
  const due = (nowMs: number) => dueLevels(times, SNAPSHOT_INTERVAL_MS, nowMs, LEVELS);
  assert.deepEqual(due(at + 29_999), []);
  assert.deepEqual(due(at + 30_000), [1]);
  assert.deepEqual(due(at + 300_000), [1, 2]);
  assert.deepEqual(due(at + SNAPSHOT_INTERVAL_MS), [1, 2, 3, 9]);
  assert.deepEqual(due(at - 1), [1, 2, 3, 9]);
  assert.deepEqual(dueLevels({}, SNAPSHOT_INTERVAL_MS, at, LEVELS), [1, 2, 3, 9]);
  assert.equal(nextDueMs(SNAPSHOT_INTERVAL_MS, at + 1, LEVELS), at + 30_000);
});
