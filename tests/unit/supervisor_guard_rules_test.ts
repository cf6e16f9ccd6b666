/** The guard's rules in virtual time: when it kills, whom it spares, when it leaves. */

import assert from "node:assert/strict";
import type { GuardReport } from "../../src/supervisor/guard_protocol.ts";
import type { GuardEvent } from "../../src/supervisor/guard_rules.ts";
import { guardStep, guardWaitMs, newGuardState } from "../../src/supervisor/guard_rules.ts";

const RUN = "0123456789abcdef";

interface Living {
  readonly groupId: number;
  readonly tag: string;
  /** State D: survives every KILL. */
  isStuck: boolean;
}

/** A machine with processes, and the shell around the rules as guard.ts is one. */
class GuardWorld {
  nowMs = 1_000;
  state = newGuardState();
  left = false;
  readonly reports: GuardReport[] = [];
  readonly living = new Map<number, Living>();
  readonly kills: { readonly pid: number; readonly atMs: number }[] = [];
  sweeps = 0;

  constructor() {
    this.feed({ type: "run", protocol: 1, runId: RUN });
  }

  feed(event: GuardEvent): void {
    const step = guardStep(this.state, event, this.nowMs);
    this.state = step.state;
    for (const effect of step.effects) {
      if (effect.type === "exit") this.left = true;
      else if (effect.type === "tell") this.reports.push(effect.report);
      else {
        this.sweeps++;
        const groups = new Set(effect.units.map(({ groupId }) => groupId));
        const found = [...this.living].filter(([, { groupId, tag }]) =>
          groups.has(groupId) || (effect.runId !== null && tag.endsWith(`.${effect.runId}`))
        );
        for (const [pid, { isStuck }] of found) {
          if (!isStuck) this.living.delete(pid);
          this.kills.push({ pid, atMs: this.nowMs });
        }
        const seen = found.map(([pid, { isStuck }]) => ({ pid, name: "app", state: isStuck ? "D" : "S" }));
        this.feed({ type: "swept", found: seen });
      }
    }
  }

  /** Spawns a program and tells of it, unless `isTold` is false. */
  spawn(pid: number, { isTold = true, isStuck = false } = {}): void {
    const tag = `app.${pid}.${RUN}`;
    this.living.set(pid, { groupId: pid, tag, isStuck });
    if (isTold) this.feed({ type: "watch", unit: { name: "app", groupId: pid, startTicks: pid, tag } });
  }

  deadline(killAtMs: number | null): void {
    this.feed({ type: "deadline", killAtMs });
  }

  /** Lets `ms` pass as the shell would: it sleeps as long as the rules allow and then ticks. */
  pass(ms: number): void {
    const endMs = this.nowMs + ms;
    this.feed({ type: "tick" });
    while (!this.left) {
      const waitMs = guardWaitMs(this.state, this.nowMs);
      if (this.nowMs + waitMs > endMs) break;
      assert.ok(waitMs > 0, "the guard spins");
      this.nowMs += waitMs;
      this.feed({ type: "tick" });
    }
    this.nowMs = endMs;
  }

  pids(): number[] {
    return [...this.living.keys()];
  }
}

Deno.test("guard kills all units and tagged processes at once when its pipe ends, and leaves after a second look", () => {
  const world = new GuardWorld();
  world.spawn(10);
  world.spawn(11);
  world.spawn(12, { isTold: false });
  world.living.set(13, { groupId: 13, tag: `app.1.ffffffffffffffff`, isStuck: false });
  const endMs = world.nowMs;
  world.feed({ type: "end" });
  world.pass(0);
  assert.deepEqual(world.pids(), [13]);
  assert.ok(world.kills.every(({ atMs }) => atMs === endMs));
  assert.equal(world.left, false);
  world.pass(1_000);
  assert.equal(world.left, true);
});

Deno.test("guard finds a child that bore no tag yet at the first look", () => {
  const world = new GuardWorld();
  world.feed({ type: "end" });
  world.pass(20);
  assert.equal(world.left, false);
  world.spawn(10, { isTold: false });
  world.pass(1_000);
  assert.deepEqual(world.pids(), []);
  assert.equal(world.left, true);
});

Deno.test("guard stays while something cannot be killed, says so, and goes on trying", () => {
  const world = new GuardWorld();
  world.spawn(10, { isStuck: true });
  world.feed({ type: "end" });
  world.pass(60_000);
  assert.equal(world.left, false);
  assert.deepEqual(world.reports, [{ type: "stuck", processes: ["10 (app, D)"] }]);
  assert.ok(world.kills.length > 50, `${world.kills.length} kills in a minute`);
  const process = world.living.get(10);
  assert.ok(process);
  process.isStuck = false;
  world.pass(2_000);
  assert.equal(world.left, true);
});

Deno.test("guard kills at the deadline, tells it, and goes on guarding", () => {
  const world = new GuardWorld();
  world.spawn(10);
  world.deadline(world.nowMs + 5_050);
  world.pass(5_049);
  assert.deepEqual(world.pids(), [10]);
  world.pass(1);
  assert.deepEqual(world.pids(), []);
  world.pass(1_000);
  assert.deepEqual(world.reports, [{ type: "killed", reason: "deadline", pids: [10] }]);
  assert.equal(world.left, false);
});

Deno.test("guard spares everything while the deadline is renewed in time, for a thousand renewals", () => {
  const world = new GuardWorld();
  world.spawn(10);
  for (let renewal = 0; renewal < 1_000; renewal++) {
    world.deadline(world.nowMs + 10_000);
    world.pass(9_999);
  }
  assert.deepEqual(world.pids(), [10]);
  assert.equal(world.sweeps, 0);
});

Deno.test("guard spares what a line saved that came before it looked at the time", () => {
  const world = new GuardWorld();
  world.spawn(10);
  world.deadline(world.nowMs + 1_000);
  world.nowMs += 30_000; // the guard alone did not run; the renewal waits in the pipe
  world.deadline(world.nowMs + 1_000);
  world.pass(500);
  assert.deepEqual(world.pids(), [10]);
});

Deno.test("guard without a deadline sleeps until a line comes", () => {
  const world = new GuardWorld();
  world.spawn(10);
  assert.equal(guardWaitMs(world.state, world.nowMs), Infinity);
  world.deadline(world.nowMs + 60_000);
  assert.equal(guardWaitMs(world.state, world.nowMs), 100);
  world.deadline(null);
  assert.equal(guardWaitMs(world.state, world.nowMs), Infinity);
});

Deno.test("guard notices a deadline that passed in a suspend within 100 ms", () => {
  const world = new GuardWorld();
  world.spawn(10);
  world.deadline(world.nowMs + 10_000);
  const sleepsMs = guardWaitMs(world.state, world.nowMs);
  world.nowMs += 3_600_000 + sleepsMs; // timers stood still, CLOCK_BOOTTIME did not
  world.feed({ type: "tick" });
  assert.deepEqual(world.pids(), []);
  assert.ok(sleepsMs <= 100);
});

Deno.test("guard kills what is started while the deadline is passed, told or not", () => {
  const world = new GuardWorld();
  world.deadline(world.nowMs + 100);
  world.pass(500);
  world.spawn(10);
  world.pass(0);
  assert.deepEqual(world.pids(), []);
  world.spawn(11, { isTold: false });
  world.pass(2_000);
  assert.deepEqual(world.pids(), []);
});

Deno.test("guard spares what is started after a later deadline, and still ends what the earlier one condemned", () => {
  const world = new GuardWorld();
  world.spawn(10, { isStuck: true });
  world.deadline(world.nowMs + 100);
  world.pass(1_000);
  world.deadline(world.nowMs + 60_000);
  world.spawn(11);
  world.pass(500);
  const condemned = world.living.get(10);
  assert.ok(condemned);
  condemned.isStuck = false;
  world.pass(5_000);
  assert.deepEqual(world.pids(), [11]);
  assert.equal(world.state.sweepAtMs, null);
  world.pass(60_000);
  assert.deepEqual(world.pids(), []);
});

Deno.test("guard told of no deadline any more lets go of the one that passed", () => {
  const world = new GuardWorld();
  world.deadline(world.nowMs + 100);
  world.pass(1_000);
  world.deadline(null);
  world.spawn(10);
  world.pass(60_000);
  assert.deepEqual(world.pids(), [10]);
});

Deno.test("guard counts a deadline that lies behind as passed", () => {
  const world = new GuardWorld();
  world.spawn(10);
  world.deadline(world.nowMs - 1);
  world.pass(0);
  assert.deepEqual(world.pids(), []);
  world.deadline(world.nowMs - 1);
  world.spawn(11);
  world.pass(0);
  assert.deepEqual(world.pids(), []);
});

Deno.test("guard leaves at the goodbye at once when nothing is watched, else after it has killed what is left", () => {
  const empty = new GuardWorld();
  empty.spawn(10);
  empty.living.delete(10);
  empty.feed({ type: "forget", groupId: 10 });
  empty.feed({ type: "bye" });
  assert.equal(empty.left, true);
  assert.equal(empty.sweeps, 0);

  const left = new GuardWorld();
  left.spawn(10);
  left.feed({ type: "bye" });
  left.feed({ type: "end" });
  left.pass(1_000);
  assert.deepEqual(left.pids(), []);
  assert.equal(left.left, true);
});

Deno.test("guard forgets a group so that its number, given to somebody else, is not signalled", () => {
  const world = new GuardWorld();
  world.spawn(10);
  world.living.delete(10);
  world.feed({ type: "forget", groupId: 10 });
  world.living.set(10, { groupId: 10, tag: "", isStuck: false });
  world.feed({ type: "end" });
  world.pass(1_000);
  assert.deepEqual(world.pids(), [10]);
});

Deno.test("guard answers each ping with its number", () => {
  const world = new GuardWorld();
  world.feed({ type: "ping", n: 7 });
  assert.deepEqual(world.reports, [{ type: "pong", n: 7 }]);
});
