/** The table of states.ts: every state with every event, the named transitions, and random lives. */

import assert from "node:assert/strict";
import fc from "fast-check";
import type { Effect, Machine, MachineEvent } from "../../src/supervisor/machine.ts";
import { isEnded, isLive, newMachine, nextTickMs } from "../../src/supervisor/machine.ts";
import { restartDelayMs } from "../../src/supervisor/restart.ts";
import { DRAIN_OUTPUT_MS, KILL_AGAIN_MS, READY_AFTER_MS, transition } from "../../src/supervisor/states.ts";
import { NO_PROBES, type ProbeSpec } from "../../src/supervisor/probe_types.ts";
import type { ExitCause, ProcessSpec, ProcessState, RestartReason } from "../../src/supervisor/types.ts";
import { processSpec } from "../support/process_specs.ts";
import { say } from "../support/say.ts";

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
  "restart": { type: "restart", reason: "person", detail: null },
  "ready": { type: "ready" },
  "not-ready": { type: "not-ready" },
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
  //          want-up    want-down    fence       met               unmeetable  spawned  spawn-failed           leader-exited                 group-gone  output-ended tick restart    ready  not-ready
  pending:   ["waiting", "stopped",   "stopped",  "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "=", "waiting", "=", "="],
  waiting:   ["=",       "stopped",   "stopped",  "starting spawn", "skipped",  "=",     "=",                   "=",                          "=",        "=",         "=", "=", "=", "="],
  starting:  ["=",       "stopping signal-group", "stopping kill-group", "=", "=", "starting", "failed report-exit", "draining",             "=",        "starting",  "=", "stopping signal-group", "running", "="],
  running:   ["=",       "stopping signal-group", "stopping kill-group", "=", "=", "=",  "=",                   "draining",                   "=",        "running",   "=", "stopping signal-group", "=", "running"],
  stopping:  ["stopping", "stopping", "stopping kill-group", "=",   "=",        "=",     "=",                   "draining",                   "=",        "stopping",  "=", "stopping", "=", "="],
  draining:  ["=",       "draining",  "draining", "=",              "=",        "=",     "=",                   "=",                          "draining", "backoff report-exit", "=", "draining", "=", "="],
  backoff:   ["waiting", "stopped",   "stopped",  "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "=", "waiting", "=", "="],
  stopped:   ["waiting", "stopped",   "stopped",  "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "=", "waiting", "=", "="],
  completed: ["waiting", "completed", "completed", "=",             "=",        "=",     "=",                   "=",                          "=",        "=",         "=", "waiting", "=", "="],
  failed:    ["waiting", "failed",    "failed",   "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "=", "waiting", "=", "="],
  skipped:   ["waiting", "skipped",   "skipped",  "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "=", "waiting", "=", "="],
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

const RESTART_REASONS: readonly RestartReason[] = [
  "person",
  "changed",
  "watch",
  "schedule",
  "startup",
  "liveness",
  "watchdog",
  "memory",
];

Deno.test("transition starts anew at once after a restart that is asked, and backs off after one for being unwell", () => {
  for (const reason of RESTART_REASONS) {
    const unwell = ["startup", "liveness", "watchdog", "memory"].includes(reason);
    for (const restart of ["always", "on-failure", "no"] as const) {
      const life = new Life(processSpec({ restart })).to("want-up", "met", "spawned");
      life.to({ type: "restart", reason, detail: "HTTP 500" });
      assert.deepEqual([life.machine.state, ...life.effects], ["stopping", "signal-group"]);
      assert.equal(life.machine.killAtMs, 5_000);
      life.to({ type: "leader-exited", cause: exit(0), groupGone: false }, "output-ended");
      assert.equal(life.machine.state, "draining", "what it left behind is waited for");
      life.to("group-gone");
      const after = unwell ? restart === "no" ? "failed" : "backoff" : "waiting";
      assert.equal(life.machine.state, after, `${reason}, restart: ${restart}`);
      assert.equal(life.machine.failureTimesMs.length, unwell ? 1 : 0);
      assert.equal(life.machine.reason, unwell ? `${reason}: HTTP 500` : null);
    }
  }
});

Deno.test("transition counts restarts for being unwell to the start limit", () => {
  const life = new Life(processSpec({ restart: "always", startLimit: { burst: 3, intervalMs: 60_000 } }));
  life.to("want-up");
  for (let count = 0; count < 3; count++) {
    life.to("met", "spawned", { type: "restart", reason: "liveness", detail: null });
    life.to({ type: "leader-exited", cause: exit(0), groupGone: true }, "output-ended");
    if (count < 2) life.at(life.machine.nextStartAtMs ?? 0).to("tick");
  }
  assert.equal(life.machine.state, "failed");
  assert.equal(life.machine.reason, "liveness; failed 3 times within 60 s");
});

Deno.test("transition starts what rests only for who wants it to run", () => {
  for (const reason of RESTART_REASONS) {
    const event = { type: "restart", reason, detail: null } as const;
    const inState = (state: ProcessState) => {
      const life = new Life(processSpec({ restart: "on-failure" }));
      life.machine = machineIn(state);
      return life.to(event).machine.state;
    };
    const wants = ["person", "changed", "watch"].includes(reason);
    assert.equal(inState("stopped"), reason === "person" ? "waiting" : "stopped", reason);
    for (const state of ["backoff", "completed", "failed", "skipped"] as const) {
      assert.equal(inState(state), wants ? "waiting" : state, `${reason} in ${state}`);
    }
  }
});

Deno.test("transition forgets a restart that is overtaken by a stop, and a failure that a person overrules", () => {
  const spec = processSpec({ restart: "always" });
  const liveness = { type: "restart", reason: "liveness", detail: "HTTP 500" } as const;
  const stopped = new Life(spec).to("want-up", "met", "spawned", liveness, "want-down");
  stopped.to("leader-exited", "output-ended");
  assert.deepEqual([stopped.machine.state, stopped.machine.reason], ["stopped", null]);
  const again = new Life(spec).to("want-up", "met", "spawned", liveness, "want-down", "want-up");
  assert.equal(again.to("leader-exited", "output-ended").machine.state, "waiting");
  const overruled = new Life(spec).to("want-up", "met", "spawned", liveness, "restart");
  assert.equal(overruled.to("leader-exited", "output-ended").machine.state, "waiting");
  const crashed = new Life(spec).to("want-up", "met", "spawned", "leader-exited", "restart");
  assert.equal(crashed.to("output-ended").machine.state, "waiting", "no delay where a person restarts it");
});

Deno.test("transition becomes ready by its probes alone where it has some, and else by living", () => {
  const probe: ProbeSpec = {
    check: { kind: "tcp", host: "127.0.0.1", port: 1 },
    initialDelayMs: 0,
    periodMs: 10_000,
    timeoutMs: 2_000,
    failureThreshold: 3,
    successThreshold: 1,
  };
  for (const name of ["startup", "readiness"] as const) {
    const spec = processSpec({ probes: { ...NO_PROBES, [name]: probe } });
    const life = new Life(spec).to("want-up", "met", "spawned");
    assert.equal(nextTickMs(life.machine), null);
    assert.equal(life.at(READY_AFTER_MS * 10).to("tick").machine.state, "starting");
    assert.deepEqual([life.to("ready").machine.state, life.machine.ready], ["running", true]);
    assert.deepEqual([life.to("not-ready").machine.state, life.machine.ready], ["running", false]);
    assert.equal(life.to("ready").machine.ready, true);
    assert.equal(life.to("want-down").machine.ready, false);
  }
  const alive = new Life(processSpec({ probes: { ...NO_PROBES, liveness: probe } }));
  alive.to("want-up", "met", "spawned").at(READY_AFTER_MS).to("tick");
  assert.deepEqual([alive.machine.state, alive.machine.ready], ["running", true]);
});

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
    }
  }

  /** A stop, of whatever origin, has its end: a KILL is due at the latest after the timeout, in this world it ends it. */
  checkStop(): void {
    const { state, groupGone, killAtMs } = this.machine;
    this.stoppingSinceMs = state === "stopping" ? this.stoppingSinceMs ?? this.nowMs : null;
    if (this.stoppingSinceMs === null) return;
    assert.ok(!groupGone && killAtMs !== null, "a stop without an end");
    assert.ok(this.nowMs <= this.stoppingSinceMs + this.spec.timeoutStopMs + 1_000, "a stop beyond its end");
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
