/** Memory: the rule of the limit, and who is counted. */

import assert from "node:assert/strict";
import { parseUse, type ProcessUse } from "../../src/platform/proc.ts";
import { FigureReader } from "../../src/supervisor/figures.ts";
import { type MemoryState, memoryStep, NEW_MEMORY_STATE } from "../../src/supervisor/memory_rules.ts";

const LIMIT = { warnBytes: 900, maxBytes: 1000, forMs: 15_000 };

/** Verdicts of samples 5 s apart. */
function verdicts(samples: readonly (number | { bytes: number; incarnation: number })[]): string[] {
  let state: MemoryState = NEW_MEMORY_STATE;
  return samples.map((sample, index) => {
    const { bytes, incarnation } = typeof sample === "number" ? { bytes: sample, incarnation: 1 } : sample;
    const step = memoryStep(LIMIT, state, { bytes, incarnation, nowMs: index * 5_000 });
    state = step.state;
    return step.verdict;
  });
}

Deno.test("memoryStep restarts only after the whole time above the limit, and warns once before", () => {
  assert.deepEqual(verdicts([1, 950, 1001, 1001, 1001, 1001]), [
    "fine",
    "warn",
    "fine",
    "fine",
    "fine",
    "restart",
  ]);
  // The limit itself is allowed.
  assert.deepEqual(verdicts([1000, 1000, 1000, 1000, 1000]), ["warn", "fine", "fine", "fine", "fine"]);
});

Deno.test("memoryStep forgets a peak that fell below the limit", () => {
  assert.ok(!verdicts([2000, 2000, 2000, 999, 2000, 2000, 2000, 999]).includes("restart"));
});

Deno.test("memoryStep warns again only after the memory fell clearly below the warning", () => {
  assert.deepEqual(verdicts([900, 899, 900, 811, 900, 809, 900]), [
    "warn",
    "fine",
    "fine",
    "fine",
    "fine",
    "fine",
    "warn",
  ]);
});

Deno.test("memoryStep does not hold an old incarnation's memory against the new one", () => {
  const old = { bytes: 2000, incarnation: 1 };
  const anew = { bytes: 2000, incarnation: 2 };
  assert.deepEqual(verdicts([old, old, old, anew, anew, anew, anew]), [
    "warn",
    "fine",
    "fine",
    "warn",
    "fine",
    "fine",
    "restart",
  ]);
});

Deno.test("parseUse reads memory and CPU time of a name with anything in it", () => {
  const text = "42 (a) b (c) S 1 42 42 0 -1 0 0 0 0 0 100 50 25 25 20 0 1 0 777 4096 10 0";
  const use = parseUse(text, 4096);
  assert.ok(use !== null);
  const { pid, groupId, startTicks, residentBytes, cpuSeconds } = use;
  assert.deepEqual([pid, groupId, startTicks, residentBytes, cpuSeconds], [42, 42, 777, 40_960, 2]);
});

function use(pid: number, parentPid: number, groupId: number, residentBytes = 1): ProcessUse {
  return { pid, name: "p", state: "S", parentPid, groupId, startTicks: pid, residentBytes, cpuSeconds: 1 };
}

Deno.test("FigureReader counts the group, descendants that left it and tagged orphans, and reads each tag once", () => {
  const own = 100;
  let uses: ProcessUse[] = [
    use(120, 110, 120, 1000), // left the group; comes before its parent
    use(110, own, 110, 10),
    use(111, 110, 110, 20),
    use(130, own, 130, 5000), // orphan of ours
    use(131, 130, 131, 7), // its child
    use(140, own, 140, 9), // a child of the manager's own
    use(150, own, 150, 11), // another process
    use(160, 7, 160, 99_999), // of others
  ];
  const asked: number[] = [];
  const tags: Record<number, string> = { 130: "a", 140: "guard", 150: "b" };
  const reader = new FigureReader(own, {
    readProcessUses: () => uses,
    readStartVariable: (pid) => {
      asked.push(pid);
      return tags[pid] ?? null;
    },
  });
  const units = [{ groupId: 110, tag: "a" }, { groupId: 150, tag: "b" }];
  const figures = reader.measure(units);
  assert.equal(figures.get("a")?.memoryBytes, 6037);
  assert.equal(figures.get("a")?.processes, 5);
  assert.equal(figures.get("b")?.memoryBytes, 11);
  assert.deepEqual(asked, [130, 140]);
  reader.measure(units);
  assert.deepEqual(asked, [130, 140]);
  // A member that ended takes no CPU time back.
  uses = uses.filter(({ pid }) => pid !== 111);
  assert.equal(reader.measure(units).get("a")?.cpuSeconds, 5);
});
