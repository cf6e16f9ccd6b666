/**
 * The lease machine's shapes: its states, what happens to it, what it wants done, and what can be read off a state.
 * rules.ts moves it.
 */

import type { StateManagerError } from "../platform/errors.ts";
import type { ETag } from "../storage/object_store.ts";
import type { LeaseEvent, LeaseRecord, LeaseStatus, LeaseTerm } from "./types.ts";

/** ρ: clocks of two machines run at most this much faster or slower than real time. Quartz is off by 0.01 %. */
const CLOCK_DRIFT = 0.02;

export interface LeaseSettings {
  readonly holder: string;
  readonly ttlMs: number;
  /** From the first send of one renewal to the next. */
  readonly renewMs: number;
  /** The holder fences itself so long before its TTL ends: time to freeze processes. */
  readonly marginMs: number;
  /** Between two looks at somebody else's lease, and before a retry; ± 25 % of jitter. */
  readonly pollMs: number;
  /** Longest wait for one request. */
  readonly requestTimeoutMs: number;
  readonly info: Readonly<Record<string, string>>;
}

/** One turn of the machine: its monotonic time and what chance gives it. */
export interface Turn {
  readonly nowMs: number;
  /** A fresh random id, used if this turn makes a new write. */
  readonly nonce: string;
  /** Uniform in [0, 1). */
  readonly jitter: number;
}

export interface Found {
  readonly etag: ETag;
  readonly record: LeaseRecord;
}

/** One write with one nonce, from its first send until its outcome is known. */
export interface Attempt {
  readonly purpose: "claim" | "renew" | "release";
  readonly record: LeaseRecord;
  /** What it replaces; null: no object. */
  readonly base: Found | null;
  /** The term's deadline counts from here: a resend must not move it, the first copy may be the one that landed. */
  readonly firstSentMs: number;
  /** What the next turn that is due does. */
  readonly next: "send" | "read";
  /** The clocks cast doubt after it was first sent: that it landed proves nothing about now. */
  readonly doubted: boolean;
}

export interface Common {
  /** A new term's token is above this: the highest seen in the data or in any record. */
  readonly highestToken: number;
  /** Nonces of a predecessor that is proven dead with its programs: a held record with one of them is free. */
  readonly inherited: readonly string[];
  readonly lastError: string | null;
}

interface Active extends Common {
  /** The one request under way. */
  readonly request: "none" | "get" | "put";
  readonly attempt: Attempt | null;
  /** When to act next if no request is under way. */
  readonly dueMs: number;
}

export interface Resting extends Common {
  readonly phase: "resting";
  readonly as: "idle" | "released" | "lost";
}

export interface Contending extends Active {
  readonly phase: "contending";
  /** The last reading, and when a claim on it may be sent at the earliest. Null before the first. */
  readonly seen: { readonly found: Found | null; readonly readyMs: number } | null;
  /** Whom the last "waiting" event named. */
  readonly told: string | null;
  /** Nobody wants the lease any more; a claim under way is resolved and, if it landed, released. */
  readonly abandoned: boolean;
}

export interface Owning extends Active {
  readonly phase: "owning";
  readonly term: LeaseTerm;
  /** Our last write that is known to have landed. */
  readonly own: Found;
  /** When we fence ourselves. */
  readonly deadlineMs: number;
  /** False while a landed claim is already past its deadline: it must be renewed before anybody hears of the term. */
  readonly announced: boolean;
  readonly suspended: boolean;
  /** `deadlineMs` may be wrong: the clocks disagree since our last write landed. Only a newer one proves the term. */
  readonly inDoubt: boolean;
  /** A release is wanted; nothing may be written under the term any more. */
  readonly ending: boolean;
  /** Holder id that the release is meant for; null: anybody. */
  readonly releaseTo: string | null;
}

export type LeaseMachine = Resting | Contending | Owning;

export type MachineEvent =
  | { readonly type: "acquire" }
  /** `to`: the holder id that may claim at once, others wait a grace. */
  | { readonly type: "release"; readonly to?: string }
  /** The wall clock ran ahead of the monotonic one: time may have passed that the latter did not count. */
  | { readonly type: "doubt" }
  /** The time for a release ran out. */
  | { readonly type: "give-up" }
  | { readonly type: "tick" }
  | { readonly type: "read"; readonly found: Found | null }
  | { readonly type: "read-failed"; readonly error: StateManagerError }
  /** There is an object, and it is not a record that this version knows. */
  | { readonly type: "unreadable"; readonly error: StateManagerError }
  | { readonly type: "written"; readonly etag: ETag }
  /** The condition did not hold, or an earlier copy of the same bytes has landed. */
  | { readonly type: "refused" }
  /** Any other failure of a write: it may have landed, or land later. */
  | { readonly type: "unknown"; readonly error: StateManagerError };

export type MachineEffect =
  | { readonly type: "get" }
  | { readonly type: "put"; readonly record: LeaseRecord; readonly base: Found | null }
  | { readonly type: "tell"; readonly event: LeaseEvent }
  /** Acquiring is over: what stands in the store can't be understood. */
  | { readonly type: "fail"; readonly error: StateManagerError };

export interface Step {
  readonly state: LeaseMachine;
  readonly effects: readonly MachineEffect[];
}

/** One turn as it was taken: `step(settings, state, event, turn)` gives `after` again. */
export interface LeaseTurn {
  readonly settings: LeaseSettings;
  readonly state: LeaseMachine;
  readonly event: MachineEvent;
  readonly turn: Turn;
  readonly after: Step;
}

/** The machine at rest; `highestToken` is the highest token found in the data, 0 for none. */
export function initialLease(highestToken: number, inherited: readonly string[] = []): LeaseMachine {
  return { phase: "resting", as: "idle", highestToken, inherited, lastError: null };
}

/** How long one tag must stand unchanged before it may be taken over, in the waiter's own time. */
export function takeOverAfterMs(ttlMs: number): number {
  return ttlMs * (1 + 2 * CLOCK_DRIFT);
}

/** How long a record released to one holder is left to it, from another one's first sight of it: it looks twice. */
export function graceMs(settings: LeaseSettings): number {
  return 2 * settings.pollMs + settings.requestTimeoutMs;
}

/** When a guard kills what still runs: half of the margin after the holder should have fenced itself. */
export function killAtMs(settings: LeaseSettings, deadlineMs: number): number {
  return deadlineMs + settings.marginMs / 2;
}

/**
 * Nonces of held records of ours, or of a predecessor whose place we are taking, that may stand in the store now. The
 * newest come last.
 */
export function nonces(state: LeaseMachine): readonly string[] {
  if (state.phase === "resting") return [];
  const { attempt } = state;
  const sent = attempt === null || attempt.purpose === "release" ? [] : [attempt.record.nonce];
  if (state.phase === "owning") return [...new Set([state.own.record.nonce, ...sent])];
  const base = attempt?.base?.record.nonce;
  // A claim on a predecessor's record: that may still stand there, or a later write of its may land before ours.
  const ofPredecessor = base !== undefined && state.inherited.includes(base) ? state.inherited : [];
  return [...ofPredecessor, ...sent];
}

/** When the next "tick" is due by itself; null: only an event moves the machine. */
export function nextWakeMs(state: LeaseMachine): number | null {
  if (state.phase === "resting") return null;
  const dueMs = state.request === "none" ? state.dueMs : Infinity;
  const fenceMs = state.phase === "owning" && isTrusted(state) ? state.deadlineMs : Infinity;
  const wakeMs = Math.min(dueMs, fenceMs);
  return wakeMs === Infinity ? null : wakeMs;
}

/** True while the term may be used: `nowMs` is what the clock says at this instant, not at the last event. */
export function isHeld(state: LeaseMachine, nowMs: number): boolean {
  return state.phase === "owning" && isTrusted(state) && !state.inDoubt && nowMs < state.deadlineMs;
}

/** True while the term is only waiting for a fresh proof by the store. */
export function isInDoubt(state: LeaseMachine, nowMs: number): boolean {
  return state.phase === "owning" && isTrusted(state) && state.inDoubt && nowMs < state.deadlineMs;
}

/** Who has it, as far as a contender knows. */
export function heldBy(state: LeaseMachine): LeaseStatus["heldBy"] {
  if (state.phase !== "contending") return null;
  const record = state.seen?.found?.record;
  if (record === undefined || record.state !== "held") return null;
  return { holder: record.holder, token: record.token, info: { ...record.info } };
}

/** True while nothing but time and doubt stand against using the term. */
export function isTrusted(state: Owning): boolean {
  return state.announced && !state.suspended && !state.ending;
}
