/** What is known of one process, what can happen to it, and what the shell is to do. The rules are in states.ts. */

import type { ExitCause, HookName, ProcessState, RestartReason } from "./types.ts";

/** All that is known of one process. Times are monotonic milliseconds; null where they do not apply. */
export interface Machine {
  readonly wanted: "up" | "down";
  readonly state: ProcessState;
  /** The lease is gone: nothing is ever started again. */
  readonly fenced: boolean;
  /** Counts attempts to spawn, from 1. */
  readonly incarnation: number;
  /** The leader of the current incarnation was spawned and its exit was not seen yet. */
  readonly leaderAlive: boolean;
  /** It accepts work, by its probes, or by having lived long enough where it has none. */
  readonly ready: boolean;
  /** We asked the current incarnation to end, so that its exit says nothing about its health. */
  readonly stopRequested: boolean;
  /** Why a new incarnation follows as soon as nothing of this one is left; null: its exit decides what follows. */
  readonly restartFor: RestartReason | null;
  /** No member of the group, and no descendant that left it, can run any more. */
  readonly groupGone: boolean;
  readonly outputEnded: boolean;
  readonly exitReported: boolean;
  /** How the last incarnation ended. */
  readonly exit: ExitCause | null;
  readonly startedAtMs: number | null;
  /** How long the leader of the last incarnation lived. */
  readonly uptimeMs: number;
  readonly readyAtMs: number | null;
  /** The next KILL of everything that is left. */
  readonly killAtMs: number | null;
  /** Its time was over while the leader still lived, and all of it was killed. */
  readonly killed: boolean;
  /** By when the whole stop is to be over, with its finish command; Infinity where nobody said. */
  readonly stopByMs: number;
  /** The command that runs for it now; until it is over nothing is decided. */
  readonly hook: HookName | null;
  /** When that command is killed; null where it was already, or none runs. */
  readonly hookUntilMs: number | null;
  /** Output is not waited for beyond this: a daemon may hold the pipe for ever. */
  readonly drainUntilMs: number | null;
  readonly nextStartAtMs: number | null;
  /** Short runs in a row; a stable run forgets them. */
  readonly shortRuns: number;
  readonly lastDelayMs: number;
  /** When the failures inside the window of the start limit happened. */
  readonly failureTimesMs: readonly number[];
  /** Restarts by policy. */
  readonly restarts: number;
  readonly reason: string | null;
}

/** What a failed spawn says of the next one. */
export interface SpawnFault {
  /** It would fail, too. */
  readonly permanent: boolean;
  /** The machine was short of memory, processes or files: that is no fault of what was to run. */
  readonly isShortage: boolean;
}

/** What each event carries besides its type. */
export interface EventFields {
  /** A person or the plan wants it up; counters start anew. */
  "want-up": unknown;
  /** Stop it; everything is killed at the deadline, or at `timeoutStopMs` if that is earlier. */
  "want-down": { readonly deadlineMs: number };
  /** Kill at once and never start again. */
  "fence": unknown;
  /** All dependencies allow the start. */
  "met": unknown;
  /** A dependency's condition can never be met any more. */
  "unmeetable": { readonly reason: string };
  "spawned": unknown;
  "spawn-failed": { readonly cause: ExitCause & { kind: "spawn-error" } } & SpawnFault;
  "leader-exited": { readonly cause: ExitCause; readonly groupGone: boolean };
  "group-gone": unknown;
  /** Both pipes are at their end. */
  "output-ended": unknown;
  /** Time has passed; comes at `nextTickMs` or at any other moment. */
  "tick": unknown;
  /** End it and start it anew. Where nothing runs, only who wants it to run all the same starts it (states.ts). */
  "restart": { readonly reason: RestartReason; readonly detail: string | null };
  /** Nothing of the stop or finish command is left; however it ended. */
  "hook-ended": unknown;
  /** A probe says that it accepts work; comes only where `awaitsReadiness(spec)`. */
  "ready": unknown;
  /** A probe says that it accepts none for now. It is left alone. */
  "not-ready": unknown;
}

export type EventType = keyof EventFields;
export type MachineEvent<E extends EventType = EventType> = {
  [K in E]: { readonly type: K } & EventFields[K];
}[E];

/** What the shell does, in order, after it took over the new state. */
export type Effect =
  | "spawn" // answer at once with "spawned" or "spawn-failed"
  | "signal-group" // the stop signal, then CONT, to all that belongs to this incarnation; not before a thaw
  | "signal-leader" // the same to its leader alone
  | "kill-group" // KILL to all of it
  | "watch-group" // look until nothing of it is left, then "group-gone"
  | "close-output" // let go of the pipes
  | "run-stop-command" // until "hook-ended"
  | "run-finish-command" // the same
  | "skip-finish-command" // tell that there is no time for it
  | "end-hook" // kill the command that runs
  | "report-exit";

export interface Step {
  readonly machine: Machine;
  readonly effects: readonly Effect[];
}

/** The moment of a step: the time, and one draw in [0, 1) for the jitter. */
export interface Moment {
  readonly nowMs: number;
  readonly roll: number;
}

export function newMachine(): Machine {
  return {
    wanted: "down",
    state: "pending",
    fenced: false,
    incarnation: 0,
    leaderAlive: false,
    ready: false,
    stopRequested: false,
    restartFor: null,
    groupGone: true,
    outputEnded: true,
    exitReported: true,
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
    nextStartAtMs: null,
    shortRuns: 0,
    lastDelayMs: 0,
    failureTimesMs: [],
    restarts: 0,
    reason: null,
  };
}

/** When the next "tick" is due; null: never. */
export function nextTickMs(machine: Machine): number | null {
  const { state, leaderAlive, outputEnded, exitReported } = machine;
  const times: (number | null)[] = [];
  if (state === "starting" && leaderAlive) times.push(machine.readyAtMs);
  if (state === "stopping" || state === "draining") times.push(machine.killAtMs, machine.hookUntilMs);
  if (state === "draining" && !outputEnded && !exitReported) times.push(machine.drainUntilMs);
  if (state === "backoff") times.push(machine.nextStartAtMs);
  const due = times.filter((time) => time !== null);
  return due.length === 0 ? null : Math.min(...due);
}

/** True while something of an incarnation may be alive. */
export function isLive(machine: Machine): boolean {
  return LIVE.has(machine.state);
}

/** True when nothing more will happen unless somebody wants it up again. */
export function isEnded(machine: Machine): boolean {
  return ENDED.has(machine.state);
}

const LIVE: ReadonlySet<ProcessState> = new Set(["starting", "running", "stopping", "draining"]);
const ENDED: ReadonlySet<ProcessState> = new Set(["stopped", "completed", "failed", "skipped"]);
