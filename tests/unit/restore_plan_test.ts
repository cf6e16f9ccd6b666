/** Restore plans against a model of a database's history, and against a search of all chains of files. */

import assert from "node:assert/strict";
import {
  newestTxid,
  pageOfPoints,
  type PlannableFile,
  planRestore,
  restorePoints,
} from "../../src/database/restore_plan.ts";
import { isError } from "../../src/platform/errors.ts";
import { randomOf } from "../support/seeded_random.ts";
import {
  applyFiles,
  fileOf,
  randomHistory,
  randomReplica,
  stateAt,
  timeOf,
} from "../support/replica_model.ts";

const SEEDS = 300;

function names(files: readonly PlannableFile[]): string[] {
  return files.map(({ level, minTxid, maxTxid }) => `${level}:${minTxid}-${maxTxid}`);
}

function file(level: number, minTxid: number, maxTxid: number): PlannableFile {
  return { level, minTxid, maxTxid, timestampMs: timeOf(maxTxid) };
}

/** Every TXID that some chain of files ends at, by plain search. */
function reachable(files: readonly PlannableFile[]): Set<number> {
  const found = new Set([0]);
  for (let grown = true; grown;) {
    grown = false;
    for (const { level, minTxid, maxTxid } of files) {
      if (found.has(maxTxid)) continue;
      const starts = [...found].some((txid) => minTxid <= txid + 1 && txid < maxTxid);
      if (minTxid !== 1 && (level === 9 || !starts)) continue;
      found.add(maxTxid);
      grown = true;
    }
  }
  found.delete(0);
  return found;
}

Deno.test("a plan by TXID restores the state at that TXID, from any retained subset that can", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = randomOf(seed);
    const history = randomHistory(random);
    const files = randomReplica(random, history.length);
    const can = reachable(files);
    for (let txid = 1; txid <= history.length + 1; txid++) {
      try {
        const plan = planRestore(files, { kind: "txid", txid });
        assert.ok(can.has(txid), `seed ${seed}: planned ${txid} from ${names(files)}`);
        const state = applyFiles(plan.map((each) => fileOf(history, each)));
        assert.deepEqual(state, stateAt(history, txid), `seed ${seed}: TXID ${txid} by ${names(plan)}`);
      } catch (error) {
        if (!isError(error, "not-found", "data-damaged")) throw error;
        assert.ok(!can.has(txid), `seed ${seed}: refused ${txid} of ${names(files)}: ${error.message}`);
      }
    }
  }
});

Deno.test("the restore points are exactly the TXIDs that a plan reaches", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = randomOf(seed);
    const files = randomReplica(random, 40);
    const points = restorePoints(files);
    assert.deepEqual(
      points.map((point) => point.txid),
      [...reachable(files)].sort((a, b) => a - b),
      `seed ${seed}: ${names(files)}`,
    );
  }
});

Deno.test("a plan in time ends at the newest point before that time, and never past it", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = randomOf(seed);
    const history = randomHistory(random);
    const files = randomReplica(random, history.length);
    const points = restorePoints(files);
    for (let txid = 1; txid <= history.length + 1; txid++) {
      const beforeMs = timeOf(txid);
      const wanted = points.findLast((point) => timeOf(point.txid) < beforeMs);
      try {
        const plan = planRestore(files, { kind: "before", beforeMs });
        assert.equal(newestTxid(plan), wanted?.txid, `seed ${seed}: before ${txid} of ${names(files)}`);
      } catch (error) {
        if (!isError(error, "not-found", "data-damaged")) throw error;
        if (isError(error, "not-found")) assert.equal(wanted, undefined, `seed ${seed}: before ${txid}`);
      }
    }
  }
});

Deno.test("a plan that goes on from a state ends like the one from nothing", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = randomOf(seed);
    const history = randomHistory(random);
    const files = randomReplica(random, history.length);
    const points = restorePoints(files);
    const start = points[Math.floor(random.float() * points.length)];
    const end = points.at(-1);
    if (start === undefined || end === undefined) continue;
    const target = { kind: "txid", txid: end.txid } as const;
    const first = planRestore(files, { kind: "txid", txid: start.txid });
    // A chain from an older start may need files that are gone: then it is refused, never cut short.
    try {
      const rest = planRestore(files, target, start.txid);
      const state = applyFiles([...first, ...rest].map((each) => fileOf(history, each)));
      assert.deepEqual(state, stateAt(history, end.txid), `seed ${seed}`);
    } catch (error) {
      if (!isError(error, "not-found", "data-damaged")) throw error;
    }
  }
});

Deno.test("planRestore takes the furthest file, then the one that begins first, then the highest level", () => {
  const files = [file(9, 1, 10), file(1, 11, 20), file(2, 8, 20), file(0, 21, 21), file(2, 21, 21)];
  assert.deepEqual(names(planRestore(files, { kind: "newest" })), ["9:1-10", "2:8-20", "2:21-21"]);
});

Deno.test("planRestore works without a snapshot when a file begins at TXID 1", () => {
  assert.deepEqual(names(planRestore([file(0, 1, 1), file(0, 2, 2)], { kind: "newest" })), [
    "0:1-1",
    "0:2-2",
  ]);
  assert.deepEqual(names(planRestore([file(1, 1, 7)], { kind: "txid", txid: 7 })), ["1:1-7"]);
});

Deno.test("planRestore names the hole that it can't cross", () => {
  const files = [file(9, 1, 10), file(0, 11, 11), file(0, 15, 15)];
  assert.throws(() => planRestore(files, { kind: "newest" }), {
    code: "data-damaged",
    message: /no file of the replica holds TXIDs 12 to 14/,
    hint: /TXID 11: restore that one/,
  });
  assert.throws(() => planRestore(files, { kind: "txid", txid: 15 }), {
    code: "data-damaged",
    message: /TXIDs 12 to 14/,
  });
  assert.throws(() => planRestore(files, { kind: "before", beforeMs: timeOf(16) }), {
    code: "data-damaged",
    message: /TXIDs 12 to 14/,
  });
  assert.throws(() => planRestore([file(0, 5, 5)], { kind: "newest" }), {
    code: "data-damaged",
    message: /TXIDs 1 to 4/,
  });
});

Deno.test("planRestore names the nearest points when a TXID is stepped over, too old or too new", () => {
  const files = [file(9, 1, 10), file(1, 11, 20), file(9, 1, 30)];
  const refused = (txid: number) => {
    try {
      planRestore(files, { kind: "txid", txid });
    } catch (error) {
      if (isError(error, "not-found")) return `${error.message}; ${error.hint}`;
    }
    throw new assert.AssertionError({ message: `TXID ${txid} was not refused` });
  };
  assert.match(refused(15), /merged files step over it; the nearest are 10 and 20/);
  assert.match(refused(5), /older than all; the nearest are 10/);
  assert.match(refused(31), /newer than all; the nearest are 30/);
  assert.throws(() => planRestore([], { kind: "newest" }), { code: "not-found" });
});

Deno.test("a list of points comes in pages, each at most a thousand", () => {
  const points = restorePoints(Array.from({ length: 2500 }, (_, index) => file(0, index + 1, index + 1)));
  const sizes: number[] = [];
  const seen: number[] = [];
  for (let after: number | null = 0; after !== null;) {
    const page: ReturnType<typeof pageOfPoints<(typeof points)[number]>> = pageOfPoints(points, after, 5000);
    sizes.push(page.points.length);
    seen.push(...page.points.map((point) => point.txid));
    after = page.nextAfter;
  }
  assert.deepEqual(sizes, [1000, 1000, 500]);
  assert.deepEqual(seen, points.map((point) => point.txid));
});
