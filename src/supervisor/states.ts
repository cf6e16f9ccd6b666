/**
 * The life of one process as a table: state × event → next state and effects. Pure: no clock, no randomness, no
 * process is touched here. `wanted` is set by people and plans only, `state` by what is seen only. Two promises hold
 * for every sequence of events (tests/unit/supervisor_states_test.ts): a new incarnation is never spawned before the
 * whole group of the old one is gone, and never while the process is not wanted.
 */

import type { Effect, EventType, Machine, MachineEvent, Moment, Step } from "./machine.ts";
import { isEnded } from "./machine.ts";
import { decideNext } from "./restart.ts";
import type { ProcessSpec, ProcessState } from "./types.ts";

/** Alive this long means ready where no probe says so: most that fail at start fail by then. */
export const READY_AFTER_MS = 1_000;
/** Output still in the pipes after the leader's exit arrives in milliseconds; the rest is somebody else's. */
export const DRAIN_OUTPUT_MS = 2_000;
/** KILL cannot fail but for uninterruptible sleep; repeating it catches what was forked in between. */
export const KILL_AGAIN_MS = 1_000;
/** One transition. Total: every event is legal in every state, most change nothing. */
export function transition(spec: ProcessSpec, machine: Machine, event: MachineEvent, moment: Moment): Step {
  const handler = TABLE[machine.state][event.type] as Handler<EventType>;
  return handler({ spec, machine, event, ...moment });
}

interface Input<E extends EventType> extends Moment {
  readonly spec: ProcessSpec;
  readonly machine: Machine;
  readonly event: MachineEvent<E>;
}

type Handler<E extends EventType> = (input: Input<E>) => Step;

const to = (machine: Machine, change: Partial<Machine>, ...effects: Effect[]): Step => ({
  machine: { ...machine, ...change },
  effects,
});

// ---- wanting

const same: Handler<EventType> = ({ machine }) => ({ machine, effects: [] });

/** From rest, or from a wait of ours that a person cuts short: counters and reason start anew. */
const begin: Handler<"want-up"> = ({ machine }) =>
  machine.fenced ? to(machine, {}) : to(machine, {
    wanted: "up",
    state: "waiting",
    shortRuns: 0,
    lastDelayMs: 0,
    failureTimesMs: [],
    nextStartAtMs: null,
    reason: null,
  });

/** Wanted again while the old incarnation still ends: it starts anew when that is over. */
const beginAfter: Handler<"want-up"> = ({ machine }) => to(machine, machine.fenced ? {} : { wanted: "up" });

const rest: Handler<"want-down"> = ({ machine }) =>
  to(machine, { wanted: "down", state: "stopped", nextStartAtMs: null, reason: null });

const unwant: Handler<"want-down"> = ({ machine }) => to(machine, { wanted: "down" });

const stop: Handler<"want-down"> = ({ spec, machine, event, nowMs }) => {
  const killAtMs = Math.min(nowMs + spec.timeoutStopMs, event.deadlineMs);
  const change = { wanted: "down", stopRequested: true, killAtMs } as const;
  // Between "spawn" and its answer there is nobody to signal yet: `spawned` sees that it is not wanted.
  if (!machine.leaderAlive) return to(machine, change);
  return killWhenDue(to(machine, { ...change, state: "stopping" }, "signal-group"), nowMs);
};

/** A stop under way may only become shorter. */
const shorten: Handler<"want-down"> = ({ spec, machine, event, nowMs }) => {
  const killAtMs = Math.min(machine.killAtMs ?? nowMs + spec.timeoutStopMs, event.deadlineMs);
  return killWhenDue(to(machine, { wanted: "down", killAtMs }), nowMs);
};

/** Draining with the group gone has nobody left to kill; only its output is waited for. */
const shortenDrain: Handler<"want-down"> = (input) =>
  input.machine.groupGone ? unwant(input) : shorten(input);

// ---- fence

const fenceAtRest: Handler<"fence"> = ({ machine }) =>
  to(machine, {
    wanted: "down",
    fenced: true,
    ...(isEnded(machine) ? {} : { state: "stopped", nextStartAtMs: null }),
  });

const fenceLive: Handler<"fence"> = ({ machine, nowMs }) => {
  const change = { wanted: "down", fenced: true, stopRequested: true, killAtMs: nowMs } as const;
  if (machine.state === "draining") {
    return machine.groupGone
      ? to(machine, { ...change, stopRequested: machine.stopRequested, killAtMs: null })
      : killWhenDue(to(machine, { ...change, stopRequested: machine.stopRequested }), nowMs);
  }
  if (!machine.leaderAlive) return to(machine, change);
  return killWhenDue(to(machine, { ...change, state: "stopping" }), nowMs);
};

// ---- starting

const spawn: Handler<"met"> = ({ machine }) =>
  to(machine, {
    state: "starting",
    incarnation: machine.incarnation + 1,
    leaderAlive: false,
    stopRequested: false,
    groupGone: false,
    outputEnded: false,
    exitReported: false,
    exit: null,
    startedAtMs: null,
    uptimeMs: 0,
    readyAtMs: null,
    killAtMs: null,
    drainUntilMs: null,
    reason: null,
  }, "spawn");

const skip: Handler<"unmeetable"> = ({ machine, event }) =>
  to(machine, { state: "skipped", reason: event.reason });

const spawned: Handler<"spawned"> = ({ machine, nowMs }) => {
  const change = { leaderAlive: true, startedAtMs: nowMs, readyAtMs: nowMs + READY_AFTER_MS };
  if (machine.wanted === "up") return to(machine, change);
  return killWhenDue(to(machine, { ...change, state: "stopping" }, "signal-group"), nowMs);
};

const spawnFailed: Handler<"spawn-failed"> = ({ spec, machine, event, nowMs, roll }) => {
  const failed = { ...machine, exit: event.cause, exitReported: true, groupGone: true, outputEnded: true };
  const decided = decideNext(spec, failed, nowMs, roll, event.permanent);
  return { machine: decided, effects: ["report-exit"] };
};

const becomeReady: Handler<"tick"> = ({ machine, nowMs }) =>
  machine.leaderAlive && machine.readyAtMs !== null && nowMs >= machine.readyAtMs
    ? to(machine, { state: "running", readyAtMs: null })
    : to(machine, {});

const retry: Handler<"tick"> = ({ machine, nowMs }) =>
  machine.nextStartAtMs !== null && nowMs >= machine.nextStartAtMs
    ? to(machine, { state: "waiting", nextStartAtMs: null, restarts: machine.restarts + 1 })
    : to(machine, {});

// ---- ending

/** The leader ended: by itself its leftovers get the stop signal and `timeoutStopMs`, else the stop's deadline goes on. */
const leaderExited: Handler<"leader-exited"> = (input) => {
  const { spec, machine, event, nowMs } = input;
  if (!machine.leaderAlive) return to(machine, {});
  const asked = machine.stopRequested;
  const killAtMs = event.groupGone ? null : asked ? machine.killAtMs : nowMs + spec.timeoutStopMs;
  const effects: Effect[] = event.groupGone ? [] : asked ? ["watch-group"] : ["signal-group", "watch-group"];
  return settle(
    input,
    to(machine, {
      state: "draining",
      leaderAlive: false,
      exit: event.cause,
      uptimeMs: nowMs - (machine.startedAtMs ?? nowMs),
      groupGone: event.groupGone,
      readyAtMs: null,
      drainUntilMs: nowMs + DRAIN_OUTPUT_MS,
      killAtMs,
    }, ...effects),
  );
};

const groupGone: Handler<"group-gone"> = (input) =>
  settle(input, to(input.machine, { groupGone: true, killAtMs: null }));

const noteOutput: Handler<"output-ended"> = ({ machine }) => to(machine, { outputEnded: true });

const outputEnded: Handler<"output-ended"> = (input) =>
  settle(input, to(input.machine, { outputEnded: true }));

const killing: Handler<"tick"> = ({ machine, nowMs }) => killWhenDue(to(machine, {}), nowMs);

const drain: Handler<"tick"> = (input) => settle(input, killWhenDue(to(input.machine, {}), input.nowMs));

function killWhenDue(step: Step, nowMs: number): Step {
  const { machine } = step;
  if (machine.killAtMs === null || nowMs < machine.killAtMs) return step;
  return {
    machine: { ...machine, killAtMs: nowMs + KILL_AGAIN_MS },
    effects: [...step.effects, "kill-group"],
  };
}

/** Draining is over when the group is gone and its output at an end, or no longer waited for. */
function settle({ spec, nowMs, roll }: Input<EventType>, step: Step): Step {
  let { machine } = step;
  const effects = [...step.effects];
  const outputOver = machine.outputEnded || (machine.drainUntilMs !== null && nowMs >= machine.drainUntilMs);
  if (outputOver && !machine.exitReported) {
    machine = { ...machine, exitReported: true };
    effects.push("report-exit");
  }
  if (!machine.exitReported || !machine.groupGone) return { machine, effects };
  if (!machine.outputEnded) effects.push("close-output");
  return { machine: decideNext(spec, { ...machine, outputEnded: true }, nowMs, roll, false), effects };
}

type Row = { readonly [E in EventType]: Handler<E> };

/** One line of the table; the columns stand in the order of a life. */
const row = (
  up: Row["want-up"],
  down: Row["want-down"],
  fence: Row["fence"],
  met: Row["met"],
  unmeetable: Row["unmeetable"],
  spawned: Row["spawned"],
  spawnFailed: Row["spawn-failed"],
  leaderExited: Row["leader-exited"],
  groupGone: Row["group-gone"],
  outputEnded: Row["output-ended"],
  tick: Row["tick"],
): Row => ({
  "want-up": up,
  "want-down": down,
  fence,
  met,
  unmeetable,
  spawned,
  "spawn-failed": spawnFailed,
  "leader-exited": leaderExited,
  "group-gone": groupGone,
  "output-ended": outputEnded,
  tick,
});

const _ = same;

// deno-fmt-ignore
const TABLE: { readonly [S in ProcessState]: Row } = {
  //              want-up     want-down     fence        met    unmeet. spawned  spawn-failed leader-exited group-gone output-ended tick
  pending:   row(begin,      rest,         fenceAtRest, _,     _,      _,       _,           _,            _,         _,           _),
  waiting:   row(_,          rest,         fenceAtRest, spawn, skip,   _,       _,           _,            _,         _,           _),
  starting:  row(_,          stop,         fenceLive,   _,     _,      spawned, spawnFailed, leaderExited, _,         noteOutput,  becomeReady),
  running:   row(_,          stop,         fenceLive,   _,     _,      _,       _,           leaderExited, _,         noteOutput,  _),
  stopping:  row(beginAfter, shorten,      fenceLive,   _,     _,      _,       _,           leaderExited, _,         noteOutput,  killing),
  draining:  row(beginAfter, shortenDrain, fenceLive,   _,     _,      _,       _,           _,            groupGone, outputEnded, drain),
  backoff:   row(begin,      rest,         fenceAtRest, _,     _,      _,       _,           _,            _,         _,           retry),
  stopped:   row(begin,      unwant,       fenceAtRest, _,     _,      _,       _,           _,            _,         _,           _),
  completed: row(begin,      unwant,       fenceAtRest, _,     _,      _,       _,           _,            _,         _,           _),
  failed:    row(begin,      unwant,       fenceAtRest, _,     _,      _,       _,           _,            _,         _,           _),
  skipped:   row(begin,      unwant,       fenceAtRest, _,     _,      _,       _,           _,            _,         _,           _),
};
