/** The table of states.ts: every state with every event, and the named transitions. */

import assert from "node:assert/strict";
import { isEnded, nextTickMs } from "../../src/supervisor/machine.ts";
import { NO_PROBES, type ProbeSpec } from "../../src/supervisor/probe_types.ts";
import { restartDelayMs } from "../../src/supervisor/restart.ts";
import {
  DRAIN_OUTPUT_MS,
  FINISH_LIMIT_MS,
  FINISH_RESERVE_MS,
  KILL_AGAIN_MS,
  READY_AFTER_MS,
  SIGNAL_RESERVE_MS,
  transition,
} from "../../src/supervisor/states.ts";
import type { ExitCause, ProcessSpec, ProcessState } from "../../src/supervisor/types.ts";
import { EVENTS, exit, Life, machineIn, RESTART_REASONS, signal } from "../support/process_life.ts";
import { processSpec } from "../support/process_specs.ts";

/** "=" where nothing changes, else the next state and effects. One line a state, one cell an event, in order of EVENTS. */
// deno-fmt-ignore
const EXPECTED: { readonly [S in ProcessState]: readonly string[] } = {
  //          want-up    want-down    fence       met               unmeetable  spawned  spawn-failed           leader-exited                 group-gone  output-ended hook-ended tick restart    ready  not-ready
  pending:   ["waiting", "stopped",   "stopped",  "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "=", "=", "waiting", "=", "="],
  waiting:   ["=",       "stopped",   "stopped",  "starting spawn", "skipped",  "=",     "=",                   "=",                          "=",        "=",         "=", "=", "=", "=", "="],
  starting:  ["=",       "stopping signal-group", "stopping kill-group", "=", "=", "starting", "failed report-exit", "draining",             "=",        "starting",  "=", "=", "stopping signal-group", "running", "="],
  running:   ["=",       "stopping signal-group", "stopping kill-group", "=", "=", "=",  "=",                   "draining",                   "=",        "running",   "=", "=", "stopping signal-group", "=", "running"],
  stopping:  ["stopping", "stopping", "stopping kill-group", "=",   "=",        "=",     "=",                   "draining",                   "=",        "stopping",  "=", "=", "stopping", "=", "="],
  draining:  ["=",       "draining",  "draining", "=",              "=",        "=",     "=",                   "=",                          "draining", "backoff report-exit", "=", "=", "draining", "=", "="],
  backoff:   ["waiting", "stopped",   "stopped",  "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "=", "=", "waiting", "=", "="],
  stopped:   ["waiting", "stopped",   "stopped",  "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "=", "=", "waiting", "=", "="],
  completed: ["waiting", "completed", "completed", "=",             "=",        "=",     "=",                   "=",                          "=",        "=",         "=", "=", "waiting", "=", "="],
  failed:    ["waiting", "failed",    "failed",   "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "=", "=", "waiting", "=", "="],
  skipped:   ["waiting", "skipped",   "skipped",  "=",              "=",        "=",     "=",                   "=",                          "=",        "=",         "=", "=", "waiting", "=", "="],
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
    startLimit: { burst: 0, intervalMs: 1, rearmMs: null },
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

Deno.test("transition starts at once with no delay what ran for a second, delays what did not, and gives up all the same", () => {
  const life = new Life(
    processSpec({
      restart: "always",
      restartDelayMs: 0,
      restartMaxDelayMs: 1_000,
      startLimit: { burst: 14, intervalMs: 600_000, rearmMs: null },
    }),
  ).to("want-up");
  const delays: number[] = [];
  const end = (cause: ExitCause, uptimeMs: number) => {
    life.run(cause, uptimeMs);
    if (life.machine.state === "waiting") return void delays.push(0);
    delays.push((life.machine.nextStartAtMs ?? NaN) - life.nowMs);
    life.at(life.machine.nextStartAtMs ?? 0).to("tick");
  };
  for (let n = 0; n < 5; n++) end(exit(1), 1_000);
  assert.deepEqual(delays.splice(0), [0, 0, 0, 0, 0]);
  // A success counts to no limit: without a delay it would be a loop at full speed.
  for (let n = 0; n < 3; n++) end(exit(0), 5);
  assert.deepEqual(delays.splice(0), [20, 40, 80]);
  for (let n = 0; n < 8; n++) end(exit(1), 5);
  assert.deepEqual(delays.splice(0), [160, 320, 640, 1_000, 1_000, 1_000, 1_000, 1_000]);
  assert.equal(life.machine.restarts, 16);
  life.run(exit(1), 2_000);
  assert.equal(life.machine.state, "failed");
});

Deno.test("transition gives up when the failures fill the window, and not when they are older", () => {
  const spec = processSpec({
    restart: "always",
    startLimit: { burst: 3, intervalMs: 10_000, rearmMs: null },
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

Deno.test("transition tries again, and never gives up, where the machine was short of what a start takes", () => {
  const startLimit = { burst: 2, intervalMs: 1e9, rearmMs: null };
  const spec = processSpec({ restart: "always", startLimit, restartDelayMs: 20, restartMaxDelayMs: 100 });
  const failed = { ...EVENTS["spawn-failed"], permanent: false };
  const short = new Life(spec).to("want-up");
  const delays: number[] = [];
  for (let tries = 0; tries < 6; tries++) {
    short.to("met", { ...failed, isShortage: true });
    assert.equal(short.machine.state, "backoff");
    delays.push((short.machine.nextStartAtMs ?? 0) - short.nowMs);
    short.at(short.machine.nextStartAtMs ?? 0).to("tick");
  }
  assert.deepEqual(delays, [20, 40, 80, 100, 100, 100]);
  // A failure of its own counts as ever, no more and no less.
  short.run(exit(1));
  assert.equal(short.machine.state, "backoff");
  assert.equal(new Life(spec).to("want-up", "met", failed).machine.failureTimesMs.length, 1);
  const once = new Life(processSpec({ restart: "no" })).to("want-up", "met", { ...failed, isShortage: true });
  assert.equal(once.machine.state, "failed");
});

Deno.test("transition waits at the start limit for as long as rearm says, then begins anew, unless it is not wanted", () => {
  const startLimit = { burst: 2, intervalMs: 60_000, rearmMs: 600_000 };
  const life = new Life(processSpec({ restart: "always", startLimit })).to("want-up");
  const hitLimit = () => {
    life.run(exit(1)).at(life.machine.nextStartAtMs ?? 0).to("tick");
    life.run(exit(1));
  };
  hitLimit();
  assert.equal(life.machine.state, "backoff");
  assert.equal(life.machine.reason, "exit code 1; failed 2 times within 60 s");
  const armedMs = life.nowMs + 600_000;
  assert.equal(nextTickMs(life.machine), armedMs);
  life.at(armedMs - 1).to("tick");
  assert.equal(life.machine.state, "backoff");
  life.at(armedMs).to("tick");
  assert.equal(life.machine.state, "waiting");
  assert.deepEqual([life.machine.failureTimesMs, life.machine.shortRuns], [[], 0]);
  hitLimit();
  life.to({ type: "want-down", deadlineMs: Infinity });
  assert.equal(life.machine.state, "stopped");
  assert.equal(nextTickMs(life.machine), null);
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
  const life = new Life(
    processSpec({ restart: "always", startLimit: { burst: 3, intervalMs: 60_000, rearmMs: null } }),
  );
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

Deno.test("transition runs the stop command, then the stop signal, all within the stop's own time", () => {
  const spec = processSpec({ stopCommand: ["stop"], timeoutStopMs: 10_000 });
  const asked = () => new Life(spec).to("want-up", "met", "spawned", "want-down");
  const life = asked();
  assert.deepEqual([life.machine.state, life.machine.hook, ...life.effects.slice(1)], [
    "stopping",
    "stop_command",
    "run-stop-command",
  ]);
  assert.equal(nextTickMs(life.machine), 9_000 - SIGNAL_RESERVE_MS, "the signal gets its time");
  life.at(3_000).to("hook-ended");
  assert.deepEqual([life.machine.hook, ...life.effects], [null, "signal-group"]);
  assert.equal(nextTickMs(life.machine), 9_000, "not prolonged");

  const hangs = asked().at(9_000 - SIGNAL_RESERVE_MS).to("tick");
  assert.deepEqual(hangs.effects, ["end-hook"]);
  assert.equal(nextTickMs(hangs.machine), 9_000);
  assert.deepEqual(hangs.to("hook-ended").effects, ["signal-group"]);
  assert.deepEqual(hangs.at(9_000).to("tick").effects, ["kill-group"]);

  const shortened = asked().to({ type: "want-down", deadlineMs: 0 });
  assert.deepEqual(shortened.effects, ["kill-group", "end-hook"]);
  assert.deepEqual(shortened.to("hook-ended").effects, [], "nobody is asked after the KILL");
  assert.deepEqual(asked().to("fence").effects, ["kill-group", "end-hook"]);

  const none = new Life(processSpec({ stopCommand: ["stop"], timeoutStopMs: 0 }));
  assert.deepEqual(none.to("want-up", "met", "spawned").to("want-down").effects, [
    "signal-group",
    "kill-group",
  ]);
});

Deno.test("transition has what the leader left behind wait for the stop command, and its end for both", () => {
  for (const stopMode of ["group", "mixed"] as const) {
    const spec = processSpec({ stopCommand: ["stop"], stopMode });
    const life = new Life(spec).to("want-up", "met", "spawned", "want-down");
    life.to({ type: "leader-exited", cause: exit(0), groupGone: false }, "output-ended");
    assert.deepEqual(life.effects, ["watch-group", "report-exit"]);
    life.to("hook-ended");
    assert.deepEqual(life.effects, [stopMode === "group" ? "signal-group" : "kill-group"]);
    assert.equal(life.to("group-gone").machine.state, "stopped");
  }
  const alone = new Life(processSpec({ stopCommand: ["stop"] })).to("want-up", "met", "spawned", "want-down");
  alone.to("leader-exited", "output-ended");
  assert.deepEqual([alone.machine.state, alone.machine.hook], ["draining", "stop_command"]);
  assert.deepEqual([alone.to("hook-ended").machine.state, ...alone.effects], ["stopped"]);
});

Deno.test("transition in mixed mode asks the leader alone and kills who is left when it has ended", () => {
  const spec = processSpec({ stopMode: "mixed", restart: "always" });
  const left = { type: "leader-exited", cause: exit(0), groupGone: false } as const;
  const life = new Life(spec).to("want-up", "met", "spawned", "want-down");
  assert.equal(life.effects.at(-1), "signal-leader");
  assert.deepEqual(life.to(left).effects, ["watch-group", "kill-group"]);
  assert.deepEqual(life.at(KILL_AGAIN_MS).to("tick").effects, ["kill-group"]);
  assert.equal(life.machine.killed, false, "the leader had its time");
  const deaf = new Life(spec).to("want-up", "met", "spawned", "want-down").at(5_000).to("tick");
  assert.deepEqual([deaf.effects, deaf.machine.killed], [["kill-group"], true]);
  const byItself = new Life(spec).to("want-up", "met", "spawned").to(left);
  assert.deepEqual(byItself.effects, ["watch-group", "kill-group"]);
});

Deno.test("transition runs the finish command when nothing is left, and decides after it", () => {
  const spec = processSpec({ restart: "on-failure", finishCommand: ["finish"] });
  const crashed = () => {
    const life = new Life(spec).to("want-up", "met", "spawned");
    return life.to({ type: "leader-exited", cause: exit(1), groupGone: false }, "output-ended");
  };
  const life = crashed();
  assert.ok(!life.effects.includes("run-finish-command"), "somebody is left");
  assert.deepEqual(life.to("group-gone").effects, ["run-finish-command"]);
  assert.deepEqual([life.machine.state, life.machine.hook], ["draining", "finish_command"]);
  assert.deepEqual(life.to("met").effects, []);
  assert.equal(nextTickMs(life.machine), FINISH_LIMIT_MS);
  assert.deepEqual(life.at(FINISH_LIMIT_MS).to("tick").effects, ["end-hook"]);
  assert.equal(life.machine.state, "draining", "until nothing of it is left");
  assert.equal(life.to("hook-ended").machine.state, "backoff");

  const stopped = crashed().to("group-gone", { type: "want-down", deadlineMs: 2_000 });
  assert.equal(nextTickMs(stopped.machine), 2_000);
  assert.deepEqual(stopped.at(2_000).to("tick").effects, ["end-hook"]);
  assert.equal(stopped.to("hook-ended").machine.state, "stopped");

  const fenced = crashed().to("fence", "group-gone");
  assert.deepEqual([fenced.machine.state, fenced.effects], ["stopped", ["kill-group"]]);
  const fencedThen = crashed().to("group-gone").to("fence");
  assert.deepEqual(fencedThen.effects, ["end-hook"]);
  assert.equal(fencedThen.to("hook-ended").machine.state, "stopped");
  const unstarted = new Life(spec).to("want-up", "met", "spawn-failed");
  assert.ok(!unstarted.effects.includes("run-finish-command"), "nothing of it ever ran");
});

Deno.test("transition keeps time of a stop with a deadline for the finish command, and skips it where there is none", () => {
  const spec = processSpec({ finishCommand: ["finish"], timeoutStopMs: 90_000 });
  const life = new Life(spec).to("want-up", "met", "spawned", { type: "want-down", deadlineMs: 6_000 });
  assert.equal(nextTickMs(life.machine), 6_000 - FINISH_RESERVE_MS);
  life.at(6_000 - FINISH_RESERVE_MS).to("tick", "leader-exited", "output-ended");
  assert.deepEqual([life.machine.hook, nextTickMs(life.machine)], ["finish_command", 6_000]);
  const late = new Life(spec).to("want-up", "met", "spawned", { type: "want-down", deadlineMs: 0 });
  late.to("leader-exited", "output-ended");
  assert.deepEqual([late.machine.state, ...late.effects], ["stopped", "report-exit", "skip-finish-command"]);
  const person = new Life(spec).to("want-up", "met", "spawned", { type: "want-down", deadlineMs: Infinity });
  assert.equal(nextTickMs(person.machine), 90_000);
  person.at(90_000).to("tick", "leader-exited", "output-ended");
  assert.equal(nextTickMs(person.machine), 90_000 + FINISH_LIMIT_MS);
});

Deno.test("transition starts anew for what it depends on, as no failure, with the counters as they are", () => {
  const spec = processSpec({
    restart: "always",
    startLimit: { burst: 5, intervalMs: 600_000, rearmMs: null },
  });
  const dependency = { type: "restart", reason: "dependency", detail: "db" } as const;
  const life = new Life(spec).to("want-up").run(exit(1)).at(1_000).to("tick").run(exit(1)).at(2_000).to(
    "tick",
  );
  const { failureTimesMs, shortRuns, lastDelayMs, restarts } = life.machine;
  assert.deepEqual([failureTimesMs.length, shortRuns, restarts], [2, 2, 2]);
  life.to("met", "spawned", dependency);
  assert.deepEqual([life.machine.state, life.machine.reason], ["stopping", "restart: dependency: db"]);
  life.to("leader-exited", "output-ended");
  const after = life.machine;
  assert.deepEqual([after.state, after.failureTimesMs, after.shortRuns, after.lastDelayMs, after.restarts], [
    "waiting",
    failureTimesMs,
    shortRuns,
    lastDelayMs,
    restarts,
  ]);
  const both = life.to("met", "spawned", "leader-exited", dependency, "output-ended");
  assert.equal(both.machine.state, "waiting", "it ended by itself in the same moment");
  assert.equal(both.machine.failureTimesMs.length, 2);
  const unwell = life.to("met", "spawned", { type: "restart", reason: "liveness", detail: null }, dependency);
  assert.equal(unwell.to("leader-exited", "output-ended").machine.failureTimesMs.length, 3);
});
