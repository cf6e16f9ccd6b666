/**
 * When probes run and what their answers mean, for one incarnation; pure. The meanings are those of Kubernetes: the
 * startup probe gates the other two, readiness moves a flag, liveness restarts when its failures reach the threshold. A
 * run of a probe never overlaps the one before. While the process is frozen, or where we ourselves stood still (a paused
 * container, a suspended machine), nothing counts: all moments move by as much.
 */

import type { ProbeSpec, ProcessProbes } from "./probe_types.ts";
import { awaitsReadiness, NO_PROBES } from "./probe_types.ts";
import type { RestartReason } from "./types.ts";

export type ProbeName = keyof ProcessProbes;

/** Not ready yet: asked more often than the period says, so that those who wait for it wait no longer than needed. */
export const EAGER_PERIOD_MS = 1_000;
/** Something that has a limit is looked at this often, so that a moment in which we stood still is seen. */
export const LOOK_EVERY_MS = 1_000;
/** Timers are never that late where we ran: then we stood still. */
export const STOOD_STILL_MS = 2_000;
/** Of what a probe says about its failure. */
export const DETAIL_LIMIT_CHARS = 200;

interface One {
  /** The next run; null: none is due, since it is gated, passive or under way. */
  readonly nextAtMs: number | null;
  /** Number of the run under way. */
  readonly run: number | null;
  readonly runAtMs: number;
  readonly failures: number;
  readonly successes: number;
}

/** All that is known of the probes of one incarnation. */
export interface ProbesState {
  readonly probes: ProcessProbes;
  readonly spawnedAtMs: number;
  readonly runs: number;
  readonly ones: { readonly [P in ProbeName]: One };
  /** The startup probe succeeded, or there is none. */
  readonly started: boolean;
  readonly ready: boolean;
  readonly wasReady: boolean;
  /** Not ready by then: it failed to start. */
  readonly startByMs: number | null;
  /** The next heartbeat is due by then. */
  readonly heartbeatByMs: number | null;
  /** When the next tick was to come; what comes much later tells that we stood still. */
  readonly tickAtMs: number | null;
  readonly frozenAtMs: number | null;
  /** Nothing is asked any more: a restart was asked for. */
  readonly over: boolean;
  /** The last failure of a probe that has not succeeded since. */
  readonly failure: { readonly probe: ProbeName; readonly detail: string } | null;
}

export type ProbeEvent =
  | { readonly type: "tick" }
  | {
    readonly type: "result";
    readonly probe: ProbeName;
    readonly run: number;
    /** null: it succeeded. */
    readonly failure: string | null;
  }
  /** A log line that the probe waits for. */
  | { readonly type: "seen"; readonly probe: ProbeName }
  /** What the process said on its notify descriptor. */
  | { readonly type: "told"; readonly what: "ready" | "not-ready" | "heartbeat" }
  | { readonly type: "frozen" }
  | { readonly type: "thawed" };

export type ProbeEffect =
  | { readonly type: "run"; readonly probe: ProbeName; readonly run: number; readonly spec: ProbeSpec }
  /** Ends all runs under way; their results are not wanted. */
  | { readonly type: "abort" }
  | { readonly type: "ready" }
  | { readonly type: "not-ready" }
  | { readonly type: "restart"; readonly reason: RestartReason; readonly detail: string };

export interface ProbeStep {
  readonly state: ProbesState;
  readonly effects: readonly ProbeEffect[];
}

const NAMES: readonly ProbeName[] = ["startup", "readiness", "liveness"];
const IDLE: One = { nextAtMs: null, run: null, runAtMs: 0, failures: 0, successes: 0 };

/** The probes of an incarnation that was spawned just now. */
export function newProbes(probes: ProcessProbes, timeoutStartMs: number | null, nowMs: number): ProbesState {
  const state: ProbesState = {
    probes,
    spawnedAtMs: nowMs,
    runs: 0,
    ones: { startup: IDLE, readiness: IDLE, liveness: IDLE },
    started: false,
    ready: false,
    wasReady: false,
    startByMs: timeoutStartMs === null || !awaitsReadiness(probes) ? null : nowMs + timeoutStartMs,
    heartbeatByMs: null,
    tickAtMs: null,
    frozenAtMs: null,
    over: false,
    failure: null,
  };
  if (probes.startup !== null) return planned(schedule(state, "startup", nowMs), nowMs);
  const { state: opened } = openGate({ state, effects: [] }, nowMs);
  return planned(opened, nowMs);
}

/**
 * Other probes for an incarnation that runs: what was ready stays so until they say otherwise, and what has started is
 * not asked again whether it has. A line or a word that came before still counts where the probe is the same.
 */
export function otherProbes(
  before: ProbesState | null,
  rules: { readonly probes: ProcessProbes; readonly timeoutStartMs: number | null },
  seen: { readonly ready: boolean; readonly wasReady: boolean },
  nowMs: number,
): ProbeStep {
  const { probes, timeoutStartMs } = rules;
  const hasStarted = before !== null && before.started && before.probes.startup !== null;
  const fresh: ProbesState = {
    ...newProbes(NO_PROBES, null, nowMs),
    probes,
    runs: before?.runs ?? 0,
    ones: { startup: IDLE, readiness: saidBefore(before, probes), liveness: IDLE },
    started: false,
    startByMs: timeoutStartMs === null || !awaitsReadiness(probes) ? null : nowMs + timeoutStartMs,
  };
  if (probes.startup !== null && !seen.wasReady && !hasStarted) {
    return { state: planned(schedule(fresh, "startup", nowMs), nowMs), effects: [] };
  }
  const running = seen.wasReady ? { ...fresh, ...seen, startByMs: null } : fresh;
  const { state, effects } = openGate({ state: running, effects: [] }, nowMs);
  const armedState = planned(seen.wasReady ? armed(state, nowMs) : state, nowMs);
  const readyNow = !awaitsReadiness(probes) && !seen.ready;
  return { state: armedState, effects: readyNow ? [...effects, { type: "ready" }] : effects };
}

function saidBefore(before: ProbesState | null, { readiness }: ProcessProbes): One {
  const isSameWord = before !== null && readiness !== null && isPassive(readiness) &&
    JSON.stringify(readiness.check) === JSON.stringify(before.probes.readiness?.check);
  return isSameWord ? before.ones.readiness : IDLE;
}

/** When the next "tick" is due; null: never. */
export function nextProbeTickMs(state: ProbesState): number | null {
  return state.tickAtMs;
}

export function stepProbes(before: ProbesState, event: ProbeEvent, nowMs: number): ProbeStep {
  if (before.over) return { state: before, effects: [] };
  const state = event.type === "thawed" ? before : awake(before, nowMs);
  const step = handle(state, event, nowMs);
  return { ...step, state: planned(step.state, nowMs) };
}

function handle(state: ProbesState, event: ProbeEvent, nowMs: number): ProbeStep {
  switch (event.type) {
    case "tick":
      return state.frozenAtMs === null ? tick(state, nowMs) : { state, effects: [] };
    case "result":
      return result(state, event, nowMs);
    case "seen":
      return state.probes[event.probe]?.check.kind === "log"
        ? succeed({ state, effects: [] }, event.probe, nowMs)
        : { state, effects: [] };
    case "told":
      return told(state, event.what, nowMs);
    case "frozen":
      if (state.frozenAtMs !== null) return { state, effects: [] };
      return { state: { ...dropRuns(state, nowMs), frozenAtMs: nowMs }, effects: [{ type: "abort" }] };
    case "thawed":
      if (state.frozenAtMs === null) return { state, effects: [] };
      return {
        state: { ...moved(state, Math.max(0, nowMs - state.frozenAtMs)), frozenAtMs: null },
        effects: [],
      };
  }
}

// ---- time

/** Where the tick is much too late we stood still, and perhaps the process with us: nothing of that time counts. */
function awake(state: ProbesState, nowMs: number): ProbesState {
  if (state.tickAtMs === null || state.frozenAtMs !== null) return state;
  const lateMs = nowMs - state.tickAtMs;
  return lateMs > STOOD_STILL_MS ? moved(state, lateMs) : state;
}

function moved(state: ProbesState, byMs: number): ProbesState {
  const later = (atMs: number | null) => atMs === null ? null : atMs + byMs;
  const ones = mapOnes(state.ones, (one) => ({ ...one, nextAtMs: later(one.nextAtMs) }));
  return { ...state, ones, startByMs: later(state.startByMs), heartbeatByMs: later(state.heartbeatByMs) };
}

function planned(state: ProbesState, nowMs: number): ProbesState {
  const times = NAMES.map((name) => state.ones[name].nextAtMs).filter((time) => time !== null);
  if (!state.ready && state.startByMs !== null) times.push(Math.min(state.startByMs, nowMs + LOOK_EVERY_MS));
  if (state.heartbeatByMs !== null) times.push(Math.min(state.heartbeatByMs, nowMs + LOOK_EVERY_MS));
  const idle = state.over || state.frozenAtMs !== null || times.length === 0;
  return { ...state, tickAtMs: idle ? null : Math.min(...times) };
}

function mapOnes(ones: ProbesState["ones"], change: (one: One) => One): ProbesState["ones"] {
  return {
    startup: change(ones.startup),
    readiness: change(ones.readiness),
    liveness: change(ones.liveness),
  };
}

function withOne(state: ProbesState, name: ProbeName, change: Partial<One>): ProbesState {
  return { ...state, ones: { ...state.ones, [name]: { ...state.ones[name], ...change } } };
}

/** Its first run; a passive probe has none. */
function schedule(state: ProbesState, name: ProbeName, nowMs: number): ProbesState {
  const spec = state.probes[name];
  if (spec === null || isPassive(spec)) return state;
  return withOne(state, name, { nextAtMs: Math.max(nowMs, state.spawnedAtMs + spec.initialDelayMs) });
}

function isPassive({ check }: ProbeSpec): boolean {
  return check.kind === "log" || check.kind === "notify";
}

/** Runs that are under way are forgotten and come again. */
function dropRuns(state: ProbesState, nowMs: number): ProbesState {
  const ones = mapOnes(state.ones, (one) => one.run === null ? one : { ...one, run: null, nextAtMs: nowMs });
  return { ...state, ones };
}

// ---- events

function tick(state: ProbesState, nowMs: number): ProbeStep {
  const { startByMs, heartbeatByMs } = state;
  if (!state.ready && startByMs !== null && nowMs >= startByMs) {
    const seconds = (startByMs - state.spawnedAtMs) / 1_000;
    const last = state.failure === null ? "" : `; ${state.failure.probe}: ${state.failure.detail}`;
    return restart({ state, effects: [] }, "startup", `not ready after ${seconds.toFixed(0)} s${last}`);
  }
  if (heartbeatByMs !== null && nowMs >= heartbeatByMs) {
    const check = state.probes.liveness?.check;
    const intervalMs = check?.kind === "notify" ? check.watchdogMs ?? 0 : 0;
    return restart({ state, effects: [] }, "watchdog", `no heartbeat for ${intervalMs / 1_000} s`);
  }
  let next: ProbeStep = { state, effects: [] };
  for (const name of NAMES) {
    const { nextAtMs } = next.state.ones[name];
    const spec = next.state.probes[name];
    if (nextAtMs === null || nowMs < nextAtMs || spec === null) continue;
    const run = next.state.runs + 1;
    next = {
      state: { ...withOne(next.state, name, { nextAtMs: null, run, runAtMs: nowMs }), runs: run },
      effects: [...next.effects, { type: "run", probe: name, run, spec }],
    };
  }
  return next;
}

function result(state: ProbesState, event: ProbeEvent & { type: "result" }, nowMs: number): ProbeStep {
  const one = state.ones[event.probe];
  const spec = state.probes[event.probe];
  if (one.run !== event.run || spec === null) return { state, effects: [] }; // dropped meanwhile
  const succeeds = event.failure === null && one.successes + 1 >= spec.successThreshold;
  const eager = event.probe === "readiness" && !state.wasReady && !succeeds;
  const periodMs = eager ? Math.min(EAGER_PERIOD_MS, spec.periodMs) : spec.periodMs;
  const nextAtMs = Math.max(nowMs, one.runAtMs + periodMs);
  const idle = withOne(state, event.probe, { run: null, nextAtMs });
  if (event.failure === null) return succeed({ state: idle, effects: [] }, event.probe, nowMs);
  // Its time limit would have ended it long before, had we not stood still.
  if (nowMs - one.runAtMs > spec.timeoutMs + STOOD_STILL_MS) return { state: idle, effects: [] };
  return fail({ state: idle, effects: [] }, event.probe, event.failure);
}

function told(state: ProbesState, what: "ready" | "not-ready" | "heartbeat", nowMs: number): ProbeStep {
  const { startup, readiness, liveness } = state.probes;
  let step: ProbeStep = { state, effects: [] };
  if (what === "heartbeat") {
    const check = liveness?.check;
    if (state.heartbeatByMs === null || check?.kind !== "notify" || check.watchdogMs === null) return step;
    return { state: { ...state, heartbeatByMs: nowMs + check.watchdogMs }, effects: [] };
  }
  if (what === "not-ready") {
    return readiness?.check.kind === "notify" ? unready(step) : step;
  }
  if (startup?.check.kind === "notify" && !state.started) step = succeed(step, "startup", nowMs);
  return readiness?.check.kind === "notify" ? succeed(step, "readiness", nowMs) : step;
}

// ---- meanings

function succeed(step: ProbeStep, name: ProbeName, nowMs: number): ProbeStep {
  const { state } = step;
  const spec = state.probes[name];
  if (spec === null) return step;
  const successes = state.ones[name].successes + 1;
  const failure = state.failure?.probe === name ? null : state.failure;
  const counted = { ...withOne(state, name, { successes, failures: 0 }), failure };
  const next = { ...step, state: counted };
  if (name === "liveness" || successes < spec.successThreshold) return next;
  if (name === "readiness") {
    // What it says before it started counts as soon as it has: a line or a word comes only once.
    return counted.started ? becomeReady(next, nowMs) : next;
  }
  if (counted.started) return next;
  // Asked no more in this incarnation.
  return openGate({ ...next, state: withOne(counted, "startup", { nextAtMs: null }) }, nowMs);
}

/** The startup probe succeeded, or there is none: the other two begin. */
function openGate({ state, effects }: ProbeStep, nowMs: number): ProbeStep {
  let opened: ProbesState = { ...state, started: true };
  opened = schedule(schedule(opened, "readiness", nowMs), "liveness", nowMs);
  const { readiness } = opened.probes;
  if (!awaitsReadiness(opened.probes)) return { state: armed(opened, nowMs), effects };
  const saidBefore = readiness !== null && opened.ones.readiness.successes >= readiness.successThreshold;
  return readiness === null || saidBefore
    ? becomeReady({ state: opened, effects }, nowMs)
    : { state: opened, effects };
}

function becomeReady(step: ProbeStep, nowMs: number): ProbeStep {
  const { state, effects } = step;
  if (state.ready) return step;
  const ready = { ...state, ready: true, wasReady: true, startByMs: null };
  return { state: state.wasReady ? ready : armed(ready, nowMs), effects: [...effects, { type: "ready" }] };
}

/** Heartbeats are wanted from the moment it is ready on, as systemd does. */
function armed(state: ProbesState, nowMs: number): ProbesState {
  const check = state.probes.liveness?.check;
  if (check?.kind !== "notify" || check.watchdogMs === null) return state;
  return { ...state, heartbeatByMs: nowMs + check.watchdogMs };
}

function unready(step: ProbeStep): ProbeStep {
  const { state, effects } = step;
  if (!state.ready) return step;
  return { state: { ...state, ready: false }, effects: [...effects, { type: "not-ready" }] };
}

function fail(step: ProbeStep, name: ProbeName, text: string): ProbeStep {
  const { state } = step;
  const spec = state.probes[name];
  if (spec === null) return step;
  const detail = text.length <= DETAIL_LIMIT_CHARS ? text : `${text.slice(0, DETAIL_LIMIT_CHARS)}…`;
  const failures = state.ones[name].failures + 1;
  const failed = withOne(state, name, { failures, successes: 0 });
  const next = { ...step, state: { ...failed, failure: { probe: name, detail } } };
  if (failures < spec.failureThreshold) return next;
  return name === "readiness" ? unready(next) : restart(next, name, detail);
}

function restart({ state, effects }: ProbeStep, reason: RestartReason, detail: string): ProbeStep {
  return {
    state: { ...state, over: true, ready: false },
    effects: [...effects, { type: "abort" }, { type: "restart", reason, detail }],
  };
}
