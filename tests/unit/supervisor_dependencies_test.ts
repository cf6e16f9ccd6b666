/** Order, circles, conditions, outcomes, and who belongs to an incarnation. */

import assert from "node:assert/strict";
import type { ProcessInfo } from "../../src/platform/proc.ts";
import { parseStat } from "../../src/platform/proc.ts";
import { isError } from "../../src/platform/errors.ts";
import type { Condition } from "../../src/supervisor/dependencies.ts";
import { conditionOf, orderOf } from "../../src/supervisor/dependencies.ts";
import type { Machine } from "../../src/supervisor/machine.ts";
import { newMachine } from "../../src/supervisor/machine.ts";
import { findMembers } from "../../src/supervisor/members.ts";
import { areAllIn, seenOf } from "../../src/supervisor/unit_members.ts";
import { outcomeOf } from "../../src/supervisor/outcome.ts";
import type { ProcessSpec } from "../../src/supervisor/types.ts";
import { processSpec } from "../support/process_specs.ts";

const node = (name: string, ...others: string[]) => ({
  name,
  dependsOn: Object.fromEntries(
    others.map((other) => [other, "started" as const]),
  ),
});

Deno.test("orderOf puts each process after all it depends on, as early as it can", () => {
  const levels = orderOf([
    node("web", "app", "cache"),
    node("app", "db"),
    node("db"),
    node("cache"),
  ]);
  assert.deepEqual(levels, [["db", "cache"], ["app"], ["web"]]);
  assert.deepEqual(orderOf([]), []);
});

Deno.test("orderOf names an unknown process and a circle", () => {
  const message = (specs: ReturnType<typeof node>[]) => {
    try {
      orderOf(specs);
    } catch (error) {
      if (isError(error, "config-invalid")) return error.message;
    }
    return "no error";
  };
  assert.match(message([node("web", "ap")]), /there is no process "ap"/);
  assert.match(
    message([node("x", "a"), node("a", "b"), node("b", "c"), node("c", "a")]),
    /circle: a → b → c → a/,
  );
  assert.match(message([node("a", "a")]), /circle: a → a/);
});

Deno.test("conditionOf tells met, open and never for each condition on each state", () => {
  const ran = { exit: { kind: "exit", code: 1 } } as const;
  const cases: [Partial<Machine>, Record<Condition, string>][] = [
    [{ state: "pending", wanted: "up" }, {
      started: "open",
      ready: "open",
      completed: "open",
      succeeded: "open",
    }],
    [{ state: "pending", wanted: "down" }, {
      started: "never",
      ready: "never",
      completed: "never",
      succeeded: "never",
    }],
    [{ state: "waiting" }, {
      started: "open",
      ready: "open",
      completed: "open",
      succeeded: "open",
    }],
    [{ state: "starting" }, {
      started: "open",
      ready: "open",
      completed: "open",
      succeeded: "open",
    }],
    [{ state: "starting", leaderAlive: true }, {
      started: "met",
      ready: "open",
      completed: "open",
      succeeded: "open",
    }],
    [{ state: "running", leaderAlive: true }, {
      started: "met",
      ready: "open",
      completed: "open",
      succeeded: "open",
    }],
    [{ state: "running", leaderAlive: true, ready: true }, {
      started: "met",
      ready: "met",
      completed: "open",
      succeeded: "open",
    }],
    [{ state: "draining" }, {
      started: "open",
      ready: "open",
      completed: "open",
      succeeded: "open",
    }],
    [{ state: "backoff" }, {
      started: "open",
      ready: "open",
      completed: "open",
      succeeded: "open",
    }],
    [{ state: "completed" }, {
      started: "met",
      ready: "never",
      completed: "met",
      succeeded: "met",
    }],
    [{ state: "failed", ...ran }, {
      started: "met",
      ready: "never",
      completed: "met",
      succeeded: "never",
    }],
    [{ state: "skipped" }, {
      started: "never",
      ready: "never",
      completed: "never",
      succeeded: "never",
    }],
    [{ state: "stopped" }, {
      started: "never",
      ready: "never",
      completed: "never",
      succeeded: "never",
    }],
  ];
  for (const [change, verdicts] of cases) {
    for (const [condition, verdict] of Object.entries(verdicts)) {
      const machine = { ...newMachine(), ...change };
      assert.equal(
        conditionOf(machine, condition as Condition),
        verdict,
        `${change.state} ${condition}`,
      );
    }
  }
  const failed = { ...newMachine(), state: "failed", exit: { kind: "exit", code: 1 } } as const;
  assert.deepEqual([conditionOf(failed, "started"), conditionOf(failed, "started", true)], ["met", "never"]);
});

Deno.test("outcomeOf gives the essential failure's code, and 0 only when nothing essential failed", () => {
  const end = (change: Partial<Machine>, spec: Partial<ProcessSpec> = {}) => ({
    spec: processSpec(spec),
    machine: { ...newMachine(), ...change },
  });
  const exit = (code: number) => ({ exit: { kind: "exit", code } }) as const;
  const killed = {
    exit: { kind: "signal", signal: "SIGKILL", number: 9 },
  } as const;
  const running = end({ state: "running" });
  const code = (ends: ReturnType<typeof end>[], requested = false) =>
    outcomeOf(ends, requested)?.exitCode ?? null;

  assert.equal(code([end({ state: "failed", ...exit(7) }), running]), 7);
  assert.equal(code([end({ state: "failed", ...killed }), running]), 137);
  assert.equal(code([end({ state: "failed", ...exit(0) }), running]), 1);
  assert.equal(code([end({ state: "skipped" }), running]), 1);
  assert.equal(
    code([end({ state: "failed", ...exit(7) }, { essential: false }), running]),
    null,
  );
  assert.equal(
    code([
      end({ state: "failed", ...exit(7) }, { essential: false }),
      end({ state: "completed" }),
    ]),
    0,
  );
  assert.equal(code([end({ state: "completed", ...exit(3) })]), 3);
  assert.equal(code([end({ state: "stopped", ...killed })]), null); // a person's stop is no end
  assert.equal(code([end({ state: "stopped", ...killed })], true), 137);
  assert.equal(
    code(
      [end({ state: "stopped", ...killed }), end({ state: "stopped" })],
      true,
    ),
    0,
  );
});

Deno.test("parseStat reads names with brackets, spaces and newlines", () => {
  const tail = "S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
  assert.deepEqual(parseStat(`42 (a) b\n(c) ${tail}`), {
    pid: 42,
    name: "a) b\n(c",
    state: "S",
    parentPid: 7,
    groupId: 42,
    startTicks: 98765,
  });
  assert.equal(parseStat("nonsense"), null);
});

Deno.test("parseStat counts a process as a zombie only when its last thread has ended", () => {
  const stat = (threads: number) =>
    `42 (app) Z 1 42 42 0 -1 4227084 0 0 0 0 0 0 0 0 20 0 ${threads} 0 777 0 0`;
  assert.equal(parseStat(stat(1))?.state, "Z");
  assert.equal(parseStat(stat(2))?.state, "S");
});

Deno.test("findMembers finds the group, tagged and descended strays, and nobody else", () => {
  const info = (
    pid: number,
    parentPid: number,
    groupId: number,
    startTicks = 100,
    state = "S",
  ): ProcessInfo => ({
    pid,
    name: "p",
    state,
    parentPid,
    groupId,
    startTicks,
  });
  const processes = [
    info(10, 1, 10), // leader
    info(11, 10, 10),
    info(12, 10, 10, 100, "Z"), // a zombie does nothing any more
    info(22, 21, 21), // child of the stray below, listed first
    info(21, 11, 21), // left the group, its parent is a member
    info(30, 1, 30), // cut its chain, has the tag
    info(31, 1, 31), // another incarnation's
    info(32, 1, 32, 50), // older than the leader: its number was used before
    info(40, 1, 40), // seen before, same start
    info(41, 1, 41, 200), // seen before with another start: somebody else now
  ];
  const tags = new Map([[30, "app.2.n"], [31, "app.1.n"], [32, "app.2.n"]]);
  const unit = {
    groupId: 10,
    startTicks: 100,
    tag: "app.2.n",
    strays: new Map([[40, 100], [41, 100]]),
  };
  const table = {
    readProcesses: () => processes,
    readStartVariable: (pid: number) => tags.get(pid) ?? null,
  };
  const { group, strays } = findMembers(unit, table);
  assert.deepEqual(group.map(({ pid }) => pid), [10, 11]);
  assert.deepEqual(strays.map(({ pid }) => pid).sort(), [21, 22, 30, 40]);
  assert.deepEqual([...unit.strays.keys()].sort(), [21, 22, 30, 40]);
});

Deno.test("areAllIn does not know where somebody is there who is not seen, but for one who is seen in another state", () => {
  const in_ = (state: string) => ({ pid: 5, name: "a", state, parentPid: 1, groupId: 5, startTicks: 1 });
  const seen = (states: string, isKnown: boolean, isAlive: boolean) =>
    seenOf({ group: [...states].map(in_), strays: [], isKnown }, isAlive);
  assert.equal(areAllIn("T", []), true);
  assert.equal(areAllIn("T", [seen("TT", true, true), seen("", true, false)]), true);
  assert.equal(areAllIn("T", [seen("TS", true, true)]), false);
  assert.equal(areAllIn("T", [seen("", false, true)]), null, "no descriptor for a look");
  assert.equal(areAllIn("T", [seen("", true, true)]), null, "no /proc: its leader lives");
  assert.equal(areAllIn("T", [seen("", false, true), seen("S", true, true)]), false);
});
