/**
 * The rules of the guard: when it kills, whom, and when it may rest or leave. Pure: the shell (guard.ts) feeds it lines,
 * the end of the pipe and the time, and does what it says. Times are CLOCK_BOOTTIME milliseconds.
 */

import type { GuardLine, GuardReport } from "./guard_protocol.ts";
import { REPORTED_PIDS } from "./guard_protocol.ts";
import type { WatchedUnit } from "./units.ts";

/** Where a suspend stops the clock of its waits, not this one, the guard looks at least this often with a deadline. */
export const LOOK_INTERVAL_MS = 100;
/** A KILL takes effect in milliseconds; what is still there after the first looks is in the kernel for longer. */
const SWEEP_FIRST_MS = 5;
const SWEEP_LONGEST_MS = 1_000;
/**
 * A manager that is killed between fork and exec leaves a child that does not bear its tag yet: nobody is called gone
 * before a second look, this much after the first, found nobody either.
 */
const SETTLE_MS = 100;
/** While a deadline stays passed, what an unstopped remainder starts meanwhile is looked for this often. */
const OVERDUE_LOOK_MS = 1_000;
/** Sweeps that found somebody, in a row, before it is said that something cannot be killed: about two seconds. */
const STUCK_AFTER_SWEEPS = 10;

export type GuardMode =
  | "watching" // the manager is alive and in time
  | "overdue" // the deadline has passed and no later one has come
  | "ending"; // the manager is gone or says goodbye

export interface GuardState {
  readonly mode: GuardMode;
  readonly runId: string | null;
  /** Told and not forgotten, by group. */
  readonly units: readonly WatchedUnit[];
  /** Groups that a passed deadline condemned and that were not seen gone yet; a later deadline does not save them. */
  readonly doomed: readonly number[];
  readonly killAtMs: number | null;
  /** The next look for what is to be killed; null: nothing is to be. */
  readonly sweepAtMs: number | null;
  readonly sweepPauseMs: number;
  /** Sweeps in a row that found somebody. */
  readonly sweepsInVain: number;
  /** When a sweep first found nobody, since one last found somebody. */
  readonly cleanSinceMs: number | null;
  /** Killed since the last report. */
  readonly killed: readonly number[];
}

/** One process that a sweep found alive and sent a KILL. */
export interface Found {
  readonly pid: number;
  readonly name: string;
  /** As in /proc: D is in the kernel and cannot be killed just now. */
  readonly state: string;
}

export type GuardEvent =
  | GuardLine
  /** Nobody can write to the pipe any more. */
  | { readonly type: "end" }
  /** All lines that were there have been told: only now may a deadline count as passed. */
  | { readonly type: "tick" }
  | { readonly type: "swept"; readonly found: readonly Found[] };

export type GuardEffect =
  /** Find and KILL: these units, and with a run id all that bears a tag of that run. Answer with `swept`. */
  | { readonly type: "sweep"; readonly units: readonly WatchedUnit[]; readonly runId: string | null }
  | { readonly type: "tell"; readonly report: GuardReport }
  /** Nothing is left: let go of the lock and end. */
  | { readonly type: "exit" };

export interface GuardStep {
  readonly state: GuardState;
  readonly effects: readonly GuardEffect[];
}

export function newGuardState(): GuardState {
  return {
    mode: "watching",
    runId: null,
    units: [],
    doomed: [],
    killAtMs: null,
    sweepAtMs: null,
    sweepPauseMs: SWEEP_FIRST_MS,
    sweepsInVain: 0,
    cleanSinceMs: null,
    killed: [],
  };
}

/** How long the shell may sleep when no line comes; `lookMs`: at most, with a deadline. */
export function guardWaitMs(state: GuardState, nowMs: number, lookMs = LOOK_INTERVAL_MS): number {
  const waits = [Infinity];
  if (state.sweepAtMs !== null) waits.push(state.sweepAtMs - nowMs);
  if (state.killAtMs !== null && state.mode === "watching") {
    waits.push(Math.min(lookMs, state.killAtMs - nowMs));
  }
  return Math.max(0, Math.min(...waits));
}

export function guardStep(state: GuardState, event: GuardEvent, nowMs: number): GuardStep {
  switch (event.type) {
    case "run":
      return quiet({ ...state, runId: event.runId });
    case "watch":
      return quiet(watch(state, event.unit, nowMs));
    case "forget":
      return quiet({
        ...state,
        units: state.units.filter(({ groupId }) => groupId !== event.groupId),
        doomed: state.doomed.filter((groupId) => groupId !== event.groupId),
      });
    case "deadline":
      return quiet(setDeadline(state, event.killAtMs, nowMs));
    case "ping":
      return { state, effects: [{ type: "tell", report: { type: "pong", n: event.n } }] };
    case "bye":
      // Nothing is watched: everything was stopped in order, and nothing has to be looked for.
      if (state.units.length === 0) return { state, effects: [{ type: "exit" }] };
      return quiet(sweepNow({ ...state, mode: "ending" }, nowMs));
    case "end":
      return state.mode === "ending"
        ? quiet(state)
        : quiet(sweepNow({ ...state, mode: "ending", cleanSinceMs: null }, nowMs));
    case "tick":
      return tick(state, nowMs);
    case "swept":
      return swept(state, event.found, nowMs);
  }
}

function quiet(state: GuardState): GuardStep {
  return { state, effects: [] };
}

function sweepNow(state: GuardState, nowMs: number): GuardState {
  return { ...state, sweepAtMs: nowMs, sweepPauseMs: SWEEP_FIRST_MS, sweepsInVain: 0 };
}

function watch(state: GuardState, unit: WatchedUnit, nowMs: number): GuardState {
  // A number that is told again belongs to the newer one.
  const units = [...state.units.filter(({ groupId }) => groupId !== unit.groupId), unit];
  if (state.mode === "watching") return { ...state, units };
  return sweepNow({ ...state, units, doomed: [...state.doomed, unit.groupId] }, nowMs);
}

/** One that lies behind is as good as passed; the tick says so. */
function setDeadline(state: GuardState, killAtMs: number | null, nowMs: number): GuardState {
  const passed = killAtMs !== null && killAtMs <= nowMs;
  if (state.mode !== "overdue" || passed) return { ...state, killAtMs };
  return { ...state, killAtMs, mode: "watching", sweepAtMs: state.doomed.length > 0 ? nowMs : null };
}

function tick(before: GuardState, nowMs: number): GuardStep {
  let state = before;
  if (state.mode === "watching" && state.killAtMs !== null && nowMs >= state.killAtMs) {
    const doomed = state.units.map(({ groupId }) => groupId);
    state = sweepNow({ ...state, mode: "overdue", doomed, cleanSinceMs: null }, nowMs);
  }
  if (state.sweepAtMs === null || nowMs < state.sweepAtMs) return quiet(state);
  // After a later deadline the run goes on: what bears its tag may be new, and only the condemned are looked for.
  const all = state.mode !== "watching";
  const units = all ? state.units : state.units.filter(({ groupId }) => state.doomed.includes(groupId));
  return { state, effects: [{ type: "sweep", units, runId: all ? state.runId : null }] };
}

function swept(before: GuardState, found: readonly Found[], nowMs: number): GuardStep {
  if (found.length > 0) return sweptSomebody(before, found, nowMs);
  const cleanSinceMs = before.cleanSinceMs ?? nowMs;
  const effects = killedReport(before);
  const state: GuardState = {
    ...before,
    cleanSinceMs,
    killed: [],
    sweepsInVain: 0,
    sweepPauseMs: SWEEP_FIRST_MS,
  };
  const settled = nowMs - cleanSinceMs >= SETTLE_MS;
  switch (state.mode) {
    case "watching":
      return { state: { ...state, doomed: [], sweepAtMs: null }, effects };
    case "overdue": {
      const sweepAtMs = nowMs + (settled ? OVERDUE_LOOK_MS : SETTLE_MS);
      return { state: { ...state, doomed: [], sweepAtMs }, effects };
    }
    case "ending":
      if (settled) return { state: { ...state, sweepAtMs: null }, effects: [...effects, { type: "exit" }] };
      return { state: { ...state, sweepAtMs: cleanSinceMs + SETTLE_MS }, effects };
  }
}

function sweptSomebody(before: GuardState, found: readonly Found[], nowMs: number): GuardStep {
  const sweepsInVain = before.sweepsInVain + 1;
  const news = found.map(({ pid }) => pid).filter((pid) => !before.killed.includes(pid));
  const state: GuardState = {
    ...before,
    sweepsInVain,
    sweepAtMs: nowMs + before.sweepPauseMs,
    sweepPauseMs: Math.min(before.sweepPauseMs * 2, SWEEP_LONGEST_MS),
    cleanSinceMs: null,
    killed: [...before.killed, ...news].slice(0, REPORTED_PIDS),
  };
  if (sweepsInVain !== STUCK_AFTER_SWEEPS) return quiet(state);
  const processes = found.slice(0, REPORTED_PIDS).map(({ pid, name, state }) => `${pid} (${name}, ${state})`);
  return { state, effects: [{ type: "tell", report: { type: "stuck", processes } }] };
}

function killedReport(state: GuardState): readonly GuardEffect[] {
  if (state.killed.length === 0) return [];
  const reason = state.mode === "ending" ? "manager-gone" : "deadline";
  return [{ type: "tell", report: { type: "killed", reason, pids: state.killed } }];
}
