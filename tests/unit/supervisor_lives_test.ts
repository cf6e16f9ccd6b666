/** Random lives against the table of states.ts, in a world that believes it. */

import assert from "node:assert/strict";
import fc from "fast-check";
import type { MachineEvent } from "../../src/supervisor/machine.ts";
import { isEnded, isLive, newMachine, nextTickMs } from "../../src/supervisor/machine.ts";
import { FINISH_LIMIT_MS, transition } from "../../src/supervisor/states.ts";
import type { ProcessSpec } from "../../src/supervisor/types.ts";
import { EVENTS, exit, RESTART_REASONS, signal } from "../support/process_life.ts";
import { processSpec } from "../support/process_specs.ts";
import { say } from "../support/say.ts";

Deno.test("transition keeps its promises over random lives", () => {
  const runs = 100_000;
  let lived = 0;
  let events = 0;
  const seed = Date.now() % 2 ** 31;
  say(`seed ${seed}`);
  const event = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.constantFrom<MachineEvent>(
        EVENTS["want-up"],
        EVENTS.met,
        EVENTS.tick,
      ),
    },
    fc.nat(5_000).map((afterMs): MachineEvent => ({
      type: "want-down",
      deadlineMs: afterMs,
    })),
    {
      weight: 1,
      arbitrary: fc.constantFrom<MachineEvent>(EVENTS.fence, EVENTS.unmeetable),
    },
    fc.tuple(fc.nat(2), fc.boolean()).map((
      [code, groupGone],
    ): MachineEvent => ({
      type: "leader-exited",
      cause: code === 2 ? signal("SIGSEGV", 11) : exit(code),
      groupGone,
    })),
    fc.constantFrom<MachineEvent>(EVENTS["group-gone"], EVENTS["output-ended"]),
    fc.constant<MachineEvent>(EVENTS["hook-ended"]),
    fc.constantFrom<MachineEvent>(EVENTS.ready, EVENTS["not-ready"]),
    fc.constantFrom(...RESTART_REASONS).map((reason): MachineEvent => ({
      type: "restart",
      reason,
      detail: null,
    })),
  );
  const plan = fc.array(
    fc.record({ event, waitMs: fc.nat(3_000), spawnFails: fc.nat(9) }),
    { maxLength: 40, size: "max" },
  );
  const policy = fc.constantFrom<ProcessSpec["restart"]>(
    "always",
    "on-failure",
    "no",
  );
  const commands = fc.record({
    stopMode: fc.constantFrom<ProcessSpec["stopMode"]>("group", "mixed"),
    stopCommand: fc.constantFrom(null, ["stop"]),
    finishCommand: fc.constantFrom(null, ["finish"]),
  });
  fc.assert(
    fc.property(
      plan,
      policy,
      commands,
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      (steps, restart, how, roll) => {
        const spec = processSpec({
          ...how,
          restart,
          timeoutStopMs: 2_000,
          restartDelayMs: 500,
          restartMaxDelayMs: 4_000,
        });
        new World(spec, roll).live(steps);
        lived++;
        events += steps.length;
      },
    ),
    { numRuns: runs, seed },
  );
  say(`${lived} lives of ${events} events`);
  assert.ok(lived >= runs);
});

/** A machine and the world it believes in: one leader, its group, its pipes. */
class World {
  machine = newMachine();
  nowMs = 0;
  leader = false;
  group = false;
  output = false;
  /** A command of ours that hangs until it is killed, or until its end happens. */
  hook = false;
  /** Of the incarnation that was there: its finish command has not come yet. */
  owesFinish = false;
  finishingSinceMs: number | null = null;
  stoppingSinceMs: number | null = null;
  fenced = false;

  constructor(readonly spec: ProcessSpec, readonly roll: number) {}

  live(
    steps: readonly {
      event: MachineEvent;
      waitMs: number;
      spawnFails: number;
    }[],
  ): void {
    for (const { event, waitMs, spawnFails } of steps) {
      this.pass(this.nowMs + waitMs, spawnFails === 0);
      this.happen(event, spawnFails === 0);
    }
    // The end: it must come to rest by the deadline and a second, in a world where KILL kills.
    const deadlineMs = this.nowMs + 1_000;
    this.send({ type: "want-down", deadlineMs }, false);
    this.pass(deadlineMs + 1_000, false);
    assert.ok(
      isEnded(this.machine),
      `still ${this.machine.state} a second after the deadline`,
    );
    assert.ok(!this.leader && !this.group && !this.hook);
    assert.ok(!this.owesFinish || this.fenced || this.spec.finishCommand === null, "no finish command");
  }

  /** Lets time pass, with a tick whenever one is due. */
  pass(untilMs: number, spawnFails: boolean): void {
    for (
      let due = nextTickMs(this.machine);
      due !== null && due <= untilMs;
      due = nextTickMs(this.machine)
    ) {
      this.nowMs = Math.max(this.nowMs, due);
      this.send(EVENTS.tick, spawnFails);
    }
    this.nowMs = untilMs;
  }

  /** Only what can happen in this world reaches the machine. */
  happen(event: MachineEvent, spawnFails: boolean): void {
    switch (event.type) {
      case "leader-exited":
        if (!this.leader) return;
        this.leader = false;
        if (event.groupGone) this.group = false;
        break;
      case "group-gone":
        if (this.leader || !this.group) return;
        this.group = false;
        break;
      case "output-ended":
        if (!this.output) return;
        this.output = false;
        break;
      case "hook-ended":
        if (!this.hook) return;
        this.hook = false;
        break;
      case "want-down":
        return this.send({
          type: "want-down",
          deadlineMs: this.nowMs + event.deadlineMs,
        }, spawnFails);
      case "fence":
        this.fenced = true;
        break;
    }
    this.send(event, spawnFails);
  }

  send(event: MachineEvent, spawnFails: boolean): void {
    const step = transition(this.spec, this.machine, event, {
      nowMs: this.nowMs,
      roll: this.roll,
    });
    this.machine = step.machine;
    if (event.type === "want-down") assert.equal(this.machine.wanted, "down");
    assert.ok(!this.machine.ready || this.machine.state === "running", `ready while ${this.machine.state}`);
    this.checkStop();
    assert.equal(
      isLive(this.machine) || this.machine.groupGone,
      true,
      "at rest with a living group",
    );
    for (const effect of step.effects) {
      if (effect === "spawn") this.spawn(spawnFails);
      if (effect === "kill-group") this.kill();
      if (effect === "signal-group" || effect === "signal-leader") this.checkSignal(effect);
      if (effect === "run-stop-command") this.runHook(this.leader);
      if (effect === "run-finish-command") this.finish();
      if (effect === "skip-finish-command") this.owesFinish = false;
      if (effect === "end-hook") {
        this.hook = false;
        this.send(EVENTS["hook-ended"], false);
      }
    }
  }

  checkSignal(effect: "signal-group" | "signal-leader"): void {
    assert.ok(!this.hook, "asked while the stop command does");
    assert.equal(effect, this.spec.stopMode === "mixed" ? "signal-leader" : "signal-group");
    assert.ok(this.leader || (this.group && effect === "signal-group"), "nobody is there to ask");
  }

  runHook(mayRun: boolean): void {
    assert.ok(!this.hook, "two commands at once");
    assert.ok(mayRun && !this.fenced, "a command that may not be");
    this.hook = true;
  }

  finish(): void {
    assert.ok(this.owesFinish, "a second finish command");
    this.owesFinish = false;
    this.runHook(!this.leader && !this.group);
  }

  /** A stop, of whatever origin, has its end: a KILL is due at the latest after the timeout, in this world it ends it. */
  checkStop(): void {
    const { state, groupGone, killAtMs } = this.machine;
    const { hook } = this.machine;
    this.finishingSinceMs = hook === "finish_command" ? this.finishingSinceMs ?? this.nowMs : null;
    assert.ok(
      this.finishingSinceMs === null || this.nowMs <= this.finishingSinceMs + FINISH_LIMIT_MS,
      "a finish command beyond its end",
    );
    this.stoppingSinceMs = state === "stopping" ? this.stoppingSinceMs ?? this.nowMs : null;
    if (this.stoppingSinceMs === null) return;
    assert.ok(!groupGone && killAtMs !== null, "a stop without an end");
    assert.ok(this.nowMs <= this.stoppingSinceMs + this.spec.timeoutStopMs + 1_000, "a stop beyond its end");
  }

  spawn(fails: boolean): void {
    assert.ok(!this.leader && !this.group && !this.hook, "two incarnations");
    assert.ok(!this.owesFinish || this.spec.finishCommand === null, "no finish command before the next");
    assert.equal(this.machine.wanted, "up", "spawned while not wanted");
    assert.ok(!this.fenced, "spawned after the fence");
    if (fails) return this.send(EVENTS["spawn-failed"], false);
    this.leader =
      this.group =
      this.output =
      this.owesFinish =
        true;
    this.send(EVENTS.spawned, false);
  }

  kill(): void {
    this.output = false;
    const { leader, group } = this;
    this.leader = this.group = false;
    this.send(EVENTS["output-ended"], false);
    if (leader) {
      this.send({
        type: "leader-exited",
        cause: signal("SIGKILL", 9),
        groupGone: true,
      }, false);
    } else if (group) this.send(EVENTS["group-gone"], false);
  }
}
