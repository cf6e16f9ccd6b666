/**
 * The life of one process as a table: state × event → next state and effects. Pure: no clock, no randomness, no
 * process is touched here. `wanted` is set by people and plans only, `state` by what is seen only. Two promises hold
 * for every sequence of events (tests/unit/supervisor_states_test.ts): a new incarnation is never spawned before the
 * whole group of the old one is gone, and never while the process is not wanted.
 */

import type { Effect, EventType, Machine, MachineEvent, Moment, Step } from "./machine.ts";
import { isEnded } from "./machine.ts";
import { awaitsReadiness } from "./probe_types.ts";
import { COUNTERS_ANEW, decideNext, isFailure } from "./restart.ts";
import type { ProcessSpec, ProcessState, RestartReason } from "./types.ts";

/** Alive this long means ready where no probe says so: most that fail at start fail by then. */
export const READY_AFTER_MS = 1_000;
/** Output still in the pipes after the leader's exit arrives in milliseconds; the rest is somebody else's. */
export const DRAIN_OUTPUT_MS = 2_000;
/** KILL cannot fail but for uninterruptible sleep; repeating it catches what was forked in between. */
export const KILL_AGAIN_MS = 1_000;
/** A finish command removes a socket or tells somebody; what takes longer belongs into a program. */
export const FINISH_LIMIT_MS = 5_000;
/** Kept back for it from a stop with a deadline, at most a quarter: who had to be killed needs it most. */
export const FINISH_RESERVE_MS = 1_000;
/** Kept back from a stop command for the stop signal, at most half: a program is not killed for a command that hangs. */
export const SIGNAL_RESERVE_MS = 2_000;

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
    ...COUNTERS_ANEW,
    nextStartAtMs: null,
    reason: null,
  });

/** Wanted again while the old incarnation still ends: it starts anew when that is over. */
const beginAfter: Handler<"want-up"> = ({ machine }) =>
  to(machine, machine.fenced || machine.wanted === "up" ? {} : { wanted: "up", restartFor: null });

const rest: Handler<"want-down"> = ({ machine }) =>
  to(machine, { wanted: "down", state: "stopped", nextStartAtMs: null, reason: null });

const unwant: Handler<"want-down"> = ({ machine }) => to(machine, { wanted: "down" });

const stop: Handler<"want-down"> = ({ spec, machine, event, nowMs }) => {
  const killAtMs = killMoment(spec, nowMs, event.deadlineMs);
  const stopByMs = event.deadlineMs;
  const asked = { wanted: "down", ready: false, stopRequested: true, readyAtMs: null } as const;
  const change = { ...asked, killAtMs, stopByMs };
  // Between "spawn" and its answer there is nobody to signal yet: `spawned` sees that it is not wanted.
  if (!machine.leaderAlive) return to(machine, change);
  return askToEnd(spec, { ...machine, ...change, state: "stopping" }, nowMs);
};

/** Of one process, where nobody wants it to be over earlier. */
export function longestStopMs({ timeoutStopMs, finishCommand }: ProcessSpec): number {
  return timeoutStopMs + (finishCommand === null ? 0 : FINISH_LIMIT_MS);
}

function killMoment(spec: ProcessSpec, nowMs: number, deadlineMs: number): number {
  const leftMs = Math.max(0, deadlineMs - nowMs);
  const reserveMs = spec.finishCommand === null ? 0 : Math.min(FINISH_RESERVE_MS, leftMs / 4);
  return Math.min(nowMs + spec.timeoutStopMs, deadlineMs - reserveMs);
}

/** By its stop command, which the stop signal follows, where there is one and time for it; else by the signal. */
function askToEnd(spec: ProcessSpec, machine: Machine, nowMs: number): Step {
  const { killAtMs } = machine;
  if (spec.stopCommand === null || killAtMs === null || killAtMs <= nowMs) {
    return killWhenDue(to(machine, {}, stopSignalOf(spec)), nowMs);
  }
  const hookUntilMs = stopCommandUntil(killAtMs, nowMs);
  return to(machine, { hook: "stop_command", hookUntilMs }, "run-stop-command");
}

function stopSignalOf(spec: ProcessSpec): Effect {
  return spec.stopMode === "mixed" ? "signal-leader" : "signal-group";
}

function stopCommandUntil(killAtMs: number, nowMs: number): number {
  return killAtMs - Math.min(SIGNAL_RESERVE_MS, Math.max(0, killAtMs - nowMs) / 2);
}

/** A stop under way may only become shorter. */
const shorten: Handler<"want-down"> = ({ spec, machine, event, nowMs }) => {
  const killAtMs = Math.min(machine.killAtMs ?? Infinity, killMoment(spec, nowMs, event.deadlineMs));
  const stopByMs = Math.min(machine.stopByMs, event.deadlineMs);
  const hookUntilMs = machine.hookUntilMs === null
    ? null
    : Math.min(machine.hookUntilMs, stopCommandUntil(killAtMs, nowMs));
  return killWhenDue(to(machine, { wanted: "down", killAtMs, stopByMs, hookUntilMs }), nowMs);
};

/** Draining with the group gone has nobody left to kill; only its output and a command are waited for. */
const shortenDrain: Handler<"want-down"> = (input) => {
  const { machine, event, nowMs } = input;
  if (!machine.groupGone) return shorten(input);
  const stopByMs = Math.min(machine.stopByMs, event.deadlineMs);
  const hookUntilMs = machine.hookUntilMs === null ? null : Math.min(machine.hookUntilMs, stopByMs);
  return killWhenDue(to(machine, { wanted: "down", stopByMs, hookUntilMs }), nowMs);
};

// ---- restarting

/** Who wants it to run, whatever became of it. A schedule or a probe has nothing to say where nothing runs. */
const STARTS_WHAT_RESTS: ReadonlySet<RestartReason> = new Set(["person", "changed", "watch"]);

/** A watch or a new definition does not start what a person stopped. */
const restartAtRest: Handler<"restart"> = (input) => {
  const { machine, event } = input;
  if (!STARTS_WHAT_RESTS.has(event.reason)) return to(machine, {});
  if (machine.wanted === "down" && event.reason !== "person") return to(machine, {});
  return begin({ ...input, event: { type: "want-up" } });
};

const restartLive: Handler<"restart"> = ({ spec, machine, event, nowMs }) => {
  // Between "spawn" and its answer there is nothing to restart: it is being started.
  if (!machine.leaderAlive) return to(machine, {});
  const change = {
    state: "stopping",
    ready: false,
    stopRequested: true,
    restartFor: event.reason,
    readyAtMs: null,
    killAtMs: nowMs + spec.timeoutStopMs,
    reason: describeRestart(event),
  } as const;
  return askToEnd(spec, { ...machine, ...change }, nowMs);
};

/**
 * It ends already: a person's word takes the failure from it, as does the end of what it depends on where it ended by
 * itself; another's changes nothing. Nobody prolongs the stop.
 */
const restartEnding: Handler<"restart"> = ({ machine, event }) =>
  machine.fenced || !(STARTS_WHAT_RESTS.has(event.reason) || endsForAnother(machine, event)) ||
    (machine.wanted === "down" && event.reason !== "person")
    ? to(machine, {})
    : to(machine, { wanted: "up", restartFor: event.reason, reason: describeRestart(event) });

function endsForAnother(machine: Machine, { reason }: MachineEvent<"restart">): boolean {
  return reason === "dependency" && !machine.stopRequested && machine.restartFor === null;
}

function describeRestart({ reason, detail }: MachineEvent<"restart">): string | null {
  if (reason === "person") return null;
  const what = isFailure(reason) ? reason : `restart: ${reason}`;
  return detail === null ? what : `${what}: ${detail}`;
}

// ---- fence

const fenceAtRest: Handler<"fence"> = ({ machine }) =>
  to(machine, {
    wanted: "down",
    fenced: true,
    ...(isEnded(machine) ? {} : { state: "stopped", nextStartAtMs: null }),
  });

const fenceLive: Handler<"fence"> = ({ machine, nowMs }) => {
  const change = {
    wanted: "down",
    ready: false,
    fenced: true,
    stopRequested: true,
    readyAtMs: null,
    killAtMs: nowMs,
    hookUntilMs: machine.hookUntilMs === null ? null : nowMs,
  } as const;
  if (machine.state === "draining") {
    const { stopRequested, groupGone } = machine;
    const killAtMs = groupGone ? null : nowMs;
    return killWhenDue(to(machine, { ...change, stopRequested, killAtMs }), nowMs);
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
    ready: false,
    stopRequested: false,
    restartFor: null,
    groupGone: false,
    outputEnded: false,
    exitReported: false,
    exit: null,
    startedAtMs: null,
    uptimeMs: 0,
    readyAtMs: null,
    killAtMs: null,
    killed: false,
    stopByMs: Infinity,
    hook: null,
    hookUntilMs: null,
    drainUntilMs: null,
    reason: null,
  }, "spawn");

const skip: Handler<"unmeetable"> = ({ machine, event }) =>
  to(machine, { state: "skipped", reason: event.reason });

const spawned: Handler<"spawned"> = ({ spec, machine, nowMs }) => {
  const change = { leaderAlive: true, startedAtMs: nowMs };
  const readyAtMs = awaitsReadiness(spec.probes) ? null : nowMs + READY_AFTER_MS;
  if (machine.wanted === "up") return to(machine, { ...change, readyAtMs });
  return askToEnd(spec, { ...machine, ...change, state: "stopping" }, nowMs);
};

const spawnFailed: Handler<"spawn-failed"> = ({ spec, machine, event, nowMs, roll }) => {
  const failed = { ...machine, exit: event.cause, exitReported: true, groupGone: true, outputEnded: true };
  const decided = decideNext(spec, failed, nowMs, roll, event);
  return { machine: decided, effects: ["report-exit"] };
};

const readyByAge: Handler<"tick"> = ({ machine, nowMs }) =>
  machine.leaderAlive && machine.readyAtMs !== null && nowMs >= machine.readyAtMs
    ? to(machine, { state: "running", ready: true, readyAtMs: null })
    : to(machine, {});

const ready: Handler<"ready"> = ({ machine }) =>
  machine.leaderAlive ? to(machine, { state: "running", ready: true, readyAtMs: null }) : to(machine, {});

/** Only the flag: what runs goes on, and so do those that waited for it. */
const unready: Handler<"not-ready"> = ({ machine }) => to(machine, { ready: false });

const retry: Handler<"tick"> = ({ machine, nowMs }) =>
  machine.nextStartAtMs !== null && nowMs >= machine.nextStartAtMs
    ? to(machine, { state: "waiting", nextStartAtMs: null, restarts: machine.restarts + 1 })
    : to(machine, {});

// ---- ending

/**
 * The leader ended: by itself its leftovers get the stop signal and `timeoutStopMs`, else the stop's deadline goes on.
 * In mixed mode they are killed. Where the stop command still runs they hear of the stop when that is over.
 */
const leaderExited: Handler<"leader-exited"> = (input) => {
  const { spec, machine, event, nowMs } = input;
  if (!machine.leaderAlive) return to(machine, {});
  const asked = machine.stopRequested;
  const isKilled = spec.stopMode === "mixed" && machine.hook === null;
  const endsAtMs = isKilled ? nowMs : asked ? machine.killAtMs : nowMs + spec.timeoutStopMs;
  const killAtMs = event.groupGone ? null : endsAtMs;
  const effects: Effect[] = event.groupGone
    ? []
    : asked || isKilled
    ? ["watch-group"]
    : ["signal-group", "watch-group"];
  return settle(
    input,
    killWhenDue(
      to({ ...machine, leaderAlive: false }, {
        state: "draining",
        ready: false,
        exit: event.cause,
        uptimeMs: nowMs - (machine.startedAtMs ?? nowMs),
        groupGone: event.groupGone,
        readyAtMs: null,
        drainUntilMs: nowMs + DRAIN_OUTPUT_MS,
        killAtMs,
      }, ...effects),
      nowMs,
    ),
  );
};

const groupGone: Handler<"group-gone"> = (input) =>
  settle(input, to(input.machine, { groupGone: true, killAtMs: null }));

const noteOutput: Handler<"output-ended"> = ({ machine }) => to(machine, { outputEnded: true });

const outputEnded: Handler<"output-ended"> = (input) =>
  settle(input, to(input.machine, { outputEnded: true }));

/** The stop signal, now that it did not spare the program that; after a KILL there is nobody to ask. */
const stopCommandEnded: Handler<"hook-ended"> = ({ spec, machine }) =>
  machine.hook === null
    ? to(machine, {})
    : to(machine, { hook: null, hookUntilMs: null }, ...(machine.killed ? [] : [stopSignalOf(spec)]));

const hookEnded: Handler<"hook-ended"> = (input) => {
  const { spec, machine: { hook }, nowMs, roll } = input;
  if (hook === null) return to(input.machine, {});
  const machine = { ...input.machine, hook: null, hookUntilMs: null };
  if (hook === "finish_command") {
    return { machine: decideNext(spec, machine, nowMs, roll), effects: [] };
  }
  if (machine.groupGone) return settle(input, to(machine, {}));
  if (spec.stopMode === "mixed") return killWhenDue(to(machine, { killAtMs: nowMs }), nowMs);
  return to(machine, {}, "signal-group");
};

const killing: Handler<"tick"> = ({ machine, nowMs }) => killWhenDue(to(machine, {}), nowMs);

const drain: Handler<"tick"> = (input) => settle(input, killWhenDue(to(input.machine, {}), input.nowMs));

function killWhenDue(step: Step, nowMs: number): Step {
  const { killAtMs } = step.machine;
  let { machine } = step;
  const effects = [...step.effects];
  const isDue = killAtMs !== null && nowMs >= killAtMs;
  if (isDue) {
    machine = { ...machine, killAtMs: nowMs + KILL_AGAIN_MS, killed: machine.killed || machine.leaderAlive };
    effects.push("kill-group");
  }
  // What it is to spare the program has come.
  const isLate = machine.hookUntilMs !== null && (nowMs >= machine.hookUntilMs || isDue);
  if (isLate) {
    machine = { ...machine, hookUntilMs: null };
    effects.push("end-hook");
  }
  return isDue || isLate ? { machine, effects } : step;
}

/**
 * Draining is over when the group is gone and its output at an end, or no longer waited for, and no command runs for it.
 * Then comes the finish command, but not after a fence: nothing may be written then.
 */
function settle({ spec, nowMs, roll }: Input<EventType>, step: Step): Step {
  let { machine } = step;
  const effects = [...step.effects];
  const outputOver = machine.outputEnded || (machine.drainUntilMs !== null && nowMs >= machine.drainUntilMs);
  if (outputOver && !machine.exitReported) {
    machine = { ...machine, exitReported: true };
    effects.push("report-exit");
  }
  if (!machine.exitReported || !machine.groupGone || machine.hook !== null) return { machine, effects };
  if (!machine.outputEnded) effects.push("close-output");
  machine = { ...machine, outputEnded: true };
  if (spec.finishCommand !== null && !machine.fenced) {
    const hookUntilMs = Math.min(nowMs + FINISH_LIMIT_MS, machine.stopByMs);
    if (hookUntilMs > nowMs) {
      effects.push("run-finish-command");
      return { machine: { ...machine, hook: "finish_command", hookUntilMs }, effects };
    }
    effects.push("skip-finish-command");
  }
  return { machine: decideNext(spec, machine, nowMs, roll), effects };
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
  hookEnded: Row["hook-ended"],
  tick: Row["tick"],
  restart: Row["restart"],
  ready: Row["ready"],
  notReady: Row["not-ready"],
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
  "hook-ended": hookEnded,
  tick,
  restart,
  ready,
  "not-ready": notReady,
});

const _ = same;

// deno-fmt-ignore
const TABLE: { readonly [S in ProcessState]: Row } = {
  //              want-up     want-down     fence        met    unmeet. spawned  spawn-failed leader-exited group-gone output-ended hook-ended        tick        restart        ready  not-ready
  pending:   row(begin,      rest,         fenceAtRest, _,     _,      _,       _,           _,            _,         _,           _,                _,          restartAtRest, _,     _),
  waiting:   row(_,          rest,         fenceAtRest, spawn, skip,   _,       _,           _,            _,         _,           _,                _,          _,             _,     _),
  starting:  row(_,          stop,         fenceLive,   _,     _,      spawned, spawnFailed, leaderExited, _,         noteOutput,  _,                readyByAge, restartLive,   ready, _),
  running:   row(_,          stop,         fenceLive,   _,     _,      _,       _,           leaderExited, _,         noteOutput,  _,                _,          restartLive,   ready, unready),
  stopping:  row(beginAfter, shorten,      fenceLive,   _,     _,      _,       _,           leaderExited, _,         noteOutput,  stopCommandEnded, killing,    restartEnding, _,     _),
  draining:  row(beginAfter, shortenDrain, fenceLive,   _,     _,      _,       _,           _,            groupGone, outputEnded, hookEnded,        drain,      restartEnding, _,     _),
  backoff:   row(begin,      rest,         fenceAtRest, _,     _,      _,       _,           _,            _,         _,           _,                retry,      restartAtRest, _,     _),
  stopped:   row(begin,      unwant,       fenceAtRest, _,     _,      _,       _,           _,            _,         _,           _,                _,          restartAtRest, _,     _),
  completed: row(begin,      unwant,       fenceAtRest, _,     _,      _,       _,           _,            _,         _,           _,                _,          restartAtRest, _,     _),
  failed:    row(begin,      unwant,       fenceAtRest, _,     _,      _,       _,           _,            _,         _,           _,                _,          restartAtRest, _,     _),
  skipped:   row(begin,      unwant,       fenceAtRest, _,     _,      _,       _,           _,            _,         _,           _,                _,          restartAtRest, _,     _),
};
