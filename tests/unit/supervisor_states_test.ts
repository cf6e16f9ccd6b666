/** The table of states.ts: every state with every event, the named transitions, and random lives. */

import assert from "node:assert/strict";
import fc from "fast-check";
import type { Effect, Machine, MachineEvent } from "../../src/supervisor/machine.ts";
import { isEnded, isLive, newMachine, nextTickMs } from "../../src/supervisor/machine.ts";
import { restartDelayMs } from "../../src/supervisor/restart.ts";
import { DRAIN_OUTPUT_MS, KILL_AGAIN_MS, READY_AFTER_MS, transition } from "../../src/supervisor/states.ts";
import type { ExitCause, ProcessSpec, ProcessState } from "../../src/supervisor/types.ts";
import { processSpec } from "../support/process_specs.ts";

const exit = (code: number): ExitCause => ({ kind: "exit", code });
const signal = (name: string, number: number): ExitCause => ({
  kind: "signal",
  signal: name,
  number,
});
const spawnError = {
  kind: "spawn-error",
  error: "start app: not found",
  code: 127,
} as const;

const EVENTS: {
  readonly [E in MachineEvent["type"]]: MachineEvent & { type: E };
} = {
  "want-up": { type: "want-up" },
  "want-down": { type: "want-down", deadlineMs: 9_000 },
  "fence": { type: "fence" },
  "met": { type: "met" },
  "unmeetable": { type: "unmeetable", reason: "database is failed" },
  "spawned": { type: "spawned" },
  "spawn-failed": { type: "spawn-failed", cause: spawnError, permanent: true },
  "leader-exited": { type: "leader-exited", cause: exit(1), groupGone: true },
  "group-gone": { type: "group-gone" },
  "output-ended": { type: "output-ended" },
  "tick": { type: "tick" },
};

/** Drives a machine through events at given times. */
class Life {
  machine: Machine = newMachine();
  effects: Effect[] = [];
  nowMs = 0;
  constructor(readonly spec: ProcessSpec, readonly roll = 0.5) {}

  to(...events: (MachineEvent | MachineEvent["type"])[]): this {
    this.effects = [];
    for (const event of events) {
      const full = typeof event === "string" ? EVENTS[event] : event;
      const step = transition(this.spec, this.machine, full, {
        nowMs: this.nowMs,
        roll: this.roll,
      });
      this.machine = step.machine;
      this.effects.push(...step.effects);
    }
    return this;
  }

  at(nowMs: number): this {
    this.nowMs = nowMs;
    return this;
  }

  /** One whole run that ends with `cause` after `uptimeMs`. */
  run(cause: ExitCause, uptimeMs = 0): this {
    this.to("met", "spawned");
    this.nowMs += uptimeMs;
    return this.to(
      { type: "leader-exited", cause, groupGone: true },
      "output-ended",
    );
  }
}

function machineIn(state: ProcessState): Machine {
  const life = new Life(processSpec({ restart: "on-failure" }));
  const path: { readonly [S in ProcessState]: MachineEvent["type"][] } = {
    pending: [],
    waiting: ["want-up"],
    starting: ["want-up", "met", "spawned"],
    running: ["want-up", "met", "spawned"],
    stopping: ["want-up", "met", "spawned", "want-down"],
    draining: ["want-up", "met", "spawned", "leader-exited"],
    backoff: ["want-up", "met", "spawned", "leader-exited", "output-ended"],
    stopped: ["want-down"],
    completed: ["want-up", "met", "spawned"],
    failed: ["want-up", "met", "spawn-failed"],
    skipped: ["want-up", "unmeetable"],
  };
  life.to(...path[state]);
  if (state === "running") life.at(READY_AFTER_MS).to("tick");
  if (state === "completed") {
    life.to(
      { type: "leader-exited", cause: exit(0), groupGone: true },
      "output-ended",
    );
  }
  assert.equal(life.machine.state, state);
  return life.machine;
}

/** "=" where nothing changes, else the next state and effects. One line a state, one cell an event, in order of EVENTS. */
// deno-fmt-ignore
const EXPECTED: { readonly [S in ProcessState]: readonly string[] } = {
  //          want-up    want-down    fence       met               unmeetable  spawned  spawn-failed           leader-exited                 group-gone  output-ended tick
  pending:   ["waiting", "stopped",   "stopped",  "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "="],
  waiting:   ["=",       "stopped",   "stopped",  "starting spawn", "skipped",  "=",     "=",                   "=",                          "=",        "=",         "="],
  starting:  ["=",       "stopping signal-group", "stopping kill-group", "=", "=", "starting", "failed report-exit", "draining",             "=",        "starting",  "="],
  running:   ["=",       "stopping signal-group", "stopping kill-group", "=", "=", "=",  "=",                   "draining",                   "=",        "running",   "="],
  stopping:  ["stopping", "stopping", "stopping kill-group", "=",   "=",        "=",     "=",                   "draining",                   "=",        "stopping",  "="],
  draining:  ["=",       "draining",  "draining", "=",              "=",        "=",     "=",                   "=",                          "draining", "backoff report-exit", "="],
  backoff:   ["waiting", "stopped",   "stopped",  "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "="],
  stopped:   ["waiting", "stopped",   "stopped",  "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "="],
  completed: ["waiting", "completed", "completed", "=",             "=",        "=",     "=",                   "=",                          "=",        "=",         "="],
  failed:    ["waiting", "failed",    "failed",   "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "="],
  skipped:   ["waiting", "skipped",   "skipped",  "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "="],
};

Deno.test("transition gives the expected state and effects for every state with every event", () => {
  for (
    const [state, cells] of Object.entries(EXPECTED) as [
      ProcessState,
      readonly string[],
    ][]
  ) {
    const machine = machineIn(state);
    for (const [index, event] of Object.values(EVENTS).entries()) {
      const nowMs = state === "running" ? READY_AFTER_MS : 0;
      const step = transition(
        processSpec({ restart: "on-failure" }),
        machine,
        event,
        { nowMs, roll: 0.5 },
      );
      const got = [step.machine.state, ...step.effects].join(" ");
      const want = cells[index];
      const at = `${state} × ${event.type}`;
      if (want === "=") {
        assert.deepEqual([step.machine, step.effects], [machine, []], at);
      } else assert.equal(got, want, at);
    }
  }
});

Deno.test("transition never starts a fenced process again", () => {
  for (const state of Object.keys(EXPECTED) as ProcessState[]) {
    const life = new Life(processSpec({ restart: "always" }));
    life.machine = machineIn(state);
    life.to("fence", "leader-exited", "output-ended", "want-up", "tick", "met");
    assert.ok(isEnded(life.machine), state);
    assert.ok(!life.effects.includes("spawn"), state);
  }
});

Deno.test("transition completes, fails or backs off by policy, code and signal", () => {
  const cases: [ProcessSpec["restart"], ExitCause, ProcessState][] = [
    ["no", exit(0), "completed"],
    ["no", exit(3), "completed"],
    ["no", exit(1), "failed"],
    ["no", signal("SIGTERM", 15), "failed"],
    ["on-failure", exit(0), "completed"],
    ["on-failure", exit(3), "completed"],
    ["on-failure", exit(1), "backoff"],
    ["on-failure", exit(143), "backoff"],
    ["on-failure", signal("SIGKILL", 9), "backoff"],
    ["always", exit(0), "backoff"],
    ["always", exit(1), "backoff"],
  ];
  for (const [restart, cause, state] of cases) {
    const life = new Life(processSpec({ restart, successExit: [3] })).to(
      "want-up",
    ).run(cause);
    assert.equal(
      life.machine.state,
      state,
      `${restart} ${JSON.stringify(cause)}`,
    );
  }
});

Deno.test("transition grows the delay with each short run, caps it, and forgets after a stable run", () => {
  const spec = processSpec({
    restart: "on-failure",
    restartDelayMs: 1_000,
    restartMaxDelayMs: 30_000,
    startLimit: { burst: 0, intervalMs: 1 },
  });
  const life = new Life(spec).to("want-up");
  const delays: number[] = [];
  const crash = (uptimeMs: number) => {
    life.run(exit(1), uptimeMs);
    delays.push((life.machine.nextStartAtMs ?? 0) - life.nowMs);
    life.at(life.machine.nextStartAtMs ?? 0).to("tick");
  };
  for (let i = 0; i < 7; i++) crash(500);
  assert.deepEqual(delays, [
    1_000,
    2_000,
    4_000,
    8_000,
    16_000,
    30_000,
    30_000,
  ]);
  crash(59_999); // stable only after twice the last delay
  assert.equal(delays.at(-1), 30_000);
  crash(60_000);
  assert.equal(delays.at(-1), 1_000);
  crash(10_000);
  assert.equal(delays.at(-1), 1_000);
  assert.equal(life.machine.restarts, 10);
  assert.equal(restartDelayMs(spec, 1, 0), 800);
  assert.ok(restartDelayMs(spec, 2_000, 0.999999) < 36_000);
});

Deno.test("transition gives up when the failures fill the window, and not when they are older", () => {
  const spec = processSpec({
    restart: "always",
    startLimit: { burst: 3, intervalMs: 10_000 },
  });
  const life = new Life(spec).to("want-up");
  for (const nowMs of [0, 6_000, 11_000]) {
    life.at(nowMs).run(exit(1));
    assert.equal(life.machine.state, "backoff");
    life.at(nowMs + 200).to("tick");
  }
  life.at(12_000).run(exit(1));
  assert.equal(life.machine.state, "failed");
  assert.equal(life.machine.reason, "exit code 1; failed 3 times within 10 s");
  life.to("want-up");
  assert.deepEqual(life.machine.failureTimesMs, []);
});

Deno.test("transition kills at the earlier of timeout and deadline, and again each second, until the group is gone", () => {
  const life = new Life(processSpec({ timeoutStopMs: 2_000 })).to(
    "want-up",
    "met",
    "spawned",
  );
  life.to({ type: "want-down", deadlineMs: 9_000 });
  assert.equal(nextTickMs(life.machine), 2_000);
  life.at(500).to({ type: "want-down", deadlineMs: 1_000 }); // shortened
  life.to({ type: "want-down", deadlineMs: 9_000 }); // never prolonged
  assert.equal(nextTickMs(life.machine), 1_000);
  assert.deepEqual(life.at(999).to("tick").effects, []);
  assert.deepEqual(life.at(1_000).to("tick").effects, ["kill-group"]);
  life.to({
    type: "leader-exited",
    cause: signal("SIGKILL", 9),
    groupGone: false,
  }, "output-ended");
  assert.equal(life.machine.state, "draining");
  assert.deepEqual(life.at(1_000 + KILL_AGAIN_MS).to("tick").effects, [
    "kill-group",
  ]);
  assert.equal(life.to("group-gone").machine.state, "stopped");
  assert.equal(nextTickMs(life.machine), null);
});

Deno.test("transition does not restart before what the leader left behind is gone", () => {
  const life = new Life(
    processSpec({ restart: "always", timeoutStopMs: 3_000 }),
  ).to("want-up", "met", "spawned");
  life.to(
    { type: "leader-exited", cause: exit(1), groupGone: false },
    "output-ended",
  );
  assert.deepEqual(life.effects, [
    "signal-group",
    "watch-group",
    "report-exit",
  ]);
  assert.equal(life.machine.state, "draining");
  assert.deepEqual(life.at(3_000).to("tick").effects, ["kill-group"]);
  assert.equal(life.to("group-gone").machine.state, "backoff");
  assert.equal(life.machine.uptimeMs, 0); // the drain is no uptime
});

Deno.test("transition waits for output a while only", () => {
  const life = new Life(processSpec()).to("want-up", "met", "spawned");
  life.to({ type: "leader-exited", cause: exit(0), groupGone: true });
  assert.equal(nextTickMs(life.machine), DRAIN_OUTPUT_MS);
  assert.deepEqual(life.at(DRAIN_OUTPUT_MS).to("tick").effects, [
    "report-exit",
    "close-output",
  ]);
  assert.equal(life.machine.state, "completed");
});

Deno.test("transition stops what was spawned in the moment it was no longer wanted", () => {
  const life = new Life(processSpec({ timeoutStopMs: 1_000 })).to(
    "want-up",
    "met",
    "want-down",
  );
  assert.equal(life.machine.state, "starting");
  life.to("spawned");
  assert.deepEqual([life.machine.state, ...life.effects], [
    "stopping",
    "signal-group",
  ]);
  assert.equal(nextTickMs(life.machine), 1_000);
});

Deno.test("transition starts anew after a restart asked while it stopped, whatever the policy", () => {
  const life = new Life(processSpec({ restart: "no" })).to(
    "want-up",
    "met",
    "spawned",
    "want-down",
    "want-up",
  );
  life.to("leader-exited", "output-ended");
  assert.equal(life.machine.state, "waiting");
  assert.equal(life.machine.restarts, 0);
});

Deno.test("transition keeps its promises over random lives", () => {
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
  );
  const plan = fc.array(
    fc.record({ event, waitMs: fc.nat(3_000), spawnFails: fc.nat(9) }),
    { maxLength: 60 },
  );
  const policy = fc.constantFrom<ProcessSpec["restart"]>(
    "always",
    "on-failure",
    "no",
  );
  fc.assert(
    fc.property(
      plan,
      policy,
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      (steps, restart, roll) => {
        const spec = processSpec({
          restart,
          timeoutStopMs: 2_000,
          restartDelayMs: 500,
          restartMaxDelayMs: 4_000,
        });
        new World(spec, roll).live(steps);
      },
    ),
    { numRuns: 3_000 },
  );
});

/** A machine and the world it believes in: one leader, its group, its pipes. */
class World {
  machine = newMachine();
  nowMs = 0;
  leader = false;
  group = false;
  output = false;
  stopByMs: number | null = null;
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
    assert.ok(!this.leader && !this.group);
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
    assert.equal(
      isLive(this.machine) || this.machine.groupGone,
      true,
      "at rest with a living group",
    );
    for (const effect of step.effects) {
      if (effect === "spawn") this.spawn(spawnFails);
      if (effect === "kill-group") this.kill();
    }
  }

  spawn(fails: boolean): void {
    assert.ok(!this.leader && !this.group, "two incarnations");
    assert.equal(this.machine.wanted, "up", "spawned while not wanted");
    assert.ok(!this.fenced, "spawned after the fence");
    if (fails) return this.send(EVENTS["spawn-failed"], false);
    this.leader = this.group = this.output = true;
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
