/**
 * The rules of one term's head, pure: (state, event) → state and effects, on plain data that can be copied. head.ts
 * executes them, and so may a simulator; they never see a store, a clock or a lease.
 *
 * What makes them safe, given a store whose conditional writes are linearizable:
 * - Every put is conditional on the version it was made from, and `seq` grows with each: no version ever comes twice,
 *   so a put that arrives late lands only while nothing else has landed since.
 * - A version of ours is known by its nonce, never by its content or its position.
 * - A put of unknown outcome stays *unsettled* until another version is known to be there: that one, or one that makes
 *   it impossible. `settle` brings this about with a put that changes nothing but seq and nonce.
 * - In our term only we may change the head. Any other version means that we are not the holder: lost, for good.
 */

import { assert } from "../platform/assert.ts";
import type { ErrorCode } from "../platform/errors.ts";
import type { ETag } from "../storage/object_store.ts";
import { FORMAT } from "./records.ts";
import type { Head } from "./types.ts";

/** A head as read, with the tag that the next swap is conditional on. */
export interface HeadState {
  readonly head: Head;
  readonly etag: ETag;
}

/** Times that a take-over reads and swaps again: the former holder can win a few swaps before ours lands, not more. */
export const TAKE_OVER_ATTEMPTS = 8;
/** Puts of one `settle`. Each is tried again below us; a store that loses this many answers is out of reach. */
const SETTLE_PUTS = 3;
/** Unsettled puts at once. Who commits settles first where it matters, so there is rarely more than one. */
const UNSETTLED_LIMIT = 16;

export interface HeadTerm {
  readonly repoId: string;
  /** Fencing token of the term. */
  readonly token: number;
  /** Begins every nonce of this term: unique to it, also where tokens are not (`lease.mode: none`). */
  readonly writer: string;
}

export interface HeadMachine {
  readonly term: HeadTerm;
  /** outside: read at most; ours: taken over; lost: another one writes it. */
  readonly standing: "outside" | "ours" | "lost";
  /** Last version known to have been there. Null: there was none, or (`known` false) it has not been read. */
  readonly base: HeadState | null;
  readonly known: boolean;
  /** The head that our take-over replaced; null: there was none. */
  readonly previous: Head | null;
  /** Nonces of puts sent on `base` that may have landed, or may land yet. */
  readonly unsettled: readonly string[];
  /** Versions made in this term: the second part of a nonce. */
  readonly versions: number;
  readonly work: HeadWork | null;
}

/** What was asked for and is under way. */
export interface HeadWork {
  readonly purpose: "look" | "take-over" | "commit" | "settle";
  /** What is put; null where nothing is. */
  readonly next: Head | null;
  readonly waitingFor: "read" | "proof" | "put";
  /** Why the put before a reading failed. */
  readonly failure: ErrorCode | null;
  readonly puts: number;
}

export type HeadEvent =
  // Asked for, one at a time.
  /** Reads the head before it is taken over. */
  | { readonly type: "look" }
  /** Swaps our token in, on what the last reading found. `precondition-failed`: another version is the base now. */
  | { readonly type: "take-over" }
  /** Swaps `next` in, made with `successor`. */
  | { readonly type: "commit"; readonly next: Head }
  /** No put of ours may land any more when this is done. */
  | { readonly type: "settle" }
  // Answers to effects.
  | { readonly type: "read"; readonly found: HeadState | null }
  | { readonly type: "read-failed"; readonly code: ErrorCode }
  | { readonly type: "proven" }
  /** The lease is not ours for sure: nothing was sent. */
  | { readonly type: "unproven"; readonly code: ErrorCode }
  | { readonly type: "written"; readonly etag: ETag }
  /** The condition did not hold, or an earlier copy of the same bytes has landed. */
  | { readonly type: "refused" }
  /** Any other failure of a put: it may have landed, or land later. */
  | { readonly type: "unknown"; readonly code: ErrorCode };

export type HeadOutcome =
  | { readonly kind: "done" }
  /** With no reason it is the error of an effect, told as it came. */
  | { readonly kind: "failed"; readonly code: ErrorCode; readonly reason: string | null }
  | { readonly kind: "lost"; readonly reason: string };

export type HeadEffect =
  | { readonly type: "get" }
  /** Prove that the lease is ours with margin; the put comes next. */
  | { readonly type: "prove" }
  /** `base` null: only if there is no object. */
  | { readonly type: "put"; readonly head: Head; readonly base: ETag | null }
  /** The work is over. */
  | { readonly type: "settled"; readonly outcome: HeadOutcome };

export interface HeadStep {
  readonly state: HeadMachine;
  readonly effects: readonly HeadEffect[];
}

export function initialHead(term: HeadTerm): HeadMachine {
  return {
    term,
    standing: "outside",
    base: null,
    known: false,
    previous: null,
    unsettled: [],
    versions: 0,
    work: null,
  };
}

export function emptyHead(repoId: string): Head {
  return {
    format: FORMAT,
    repo_id: repoId,
    epoch: 0,
    seq: 0,
    current: null,
    checkpoints: [],
    indexes: [],
    intent: null,
    on_start_applied: null,
    doomed: [],
  };
}

/** `content` as the version that would follow what is known to be there. */
export function successor(state: HeadMachine, content: Head): Head {
  return {
    ...content,
    epoch: state.term.token,
    seq: (state.base?.head.seq ?? 0) + 1,
    nonce: `${state.term.writer}.${state.versions + 1}`,
  };
}

/** One turn. An answer is given only while `state.work` waits for it. */
export function stepHead(state: HeadMachine, event: HeadEvent): HeadStep {
  switch (event.type) {
    case "look":
    case "take-over":
    case "commit":
    case "settle":
      assert(state.work === null, "one change of the head at a time");
      if (state.standing === "lost") return lose(state, "it was changed by another writer");
      return ask(state, event);
    case "read":
      return heard(state, (work) => onRead(state, work, event.found));
    case "read-failed":
      return heard(state, (work) => onReadFailed(state, work, event.code));
    case "proven":
      return heard(state, (work) => send(state, work));
    case "unproven":
      return fail(state, event.code, null);
    case "written":
      return heard(state, (work) => onWritten(state, work, event.etag));
    case "refused":
      return heard(state, (work) => look(state, { ...work, failure: "precondition-failed" }));
    case "unknown":
      return heard(state, (work) => look(state, { ...work, failure: event.code }));
  }
}

// ---- asked for

function ask(
  state: HeadMachine,
  event: Extract<HeadEvent, { type: "look" | "take-over" | "commit" | "settle" }>,
): HeadStep {
  const work = { purpose: event.type, next: null, failure: null, puts: 0 } as const;
  switch (event.type) {
    case "look":
      assert(state.standing === "outside", "a head that is ours is not looked at from outside");
      return look(state, work);
    case "take-over":
      // A put that was given up landed after all, as the last reading saw.
      if (state.standing === "ours") return settled(state, { kind: "done" });
      assert(state.known, "the head is read before it is taken over");
      return prove(state, {
        ...work,
        next: successor(state, state.base?.head ?? emptyHead(state.term.repoId)),
      });
    case "commit":
      assert(state.standing === "ours", "the head is ours");
      if (state.unsettled.length >= UNSETTLED_LIMIT) {
        return fail(state, "outcome-unknown", "too many earlier swaps of unknown outcome");
      }
      return prove(state, { ...work, next: successor(state, event.next) });
    case "settle":
      assert(state.standing === "ours", "the head is ours");
      return state.unsettled.length === 0 ? settled(state, { kind: "done" }) : look(state, work);
  }
}

function look(state: HeadMachine, work: Omit<HeadWork, "waitingFor">): HeadStep {
  return { state: { ...state, work: { ...work, waitingFor: "read" } }, effects: [{ type: "get" }] };
}

function prove(state: HeadMachine, work: Omit<HeadWork, "waitingFor">): HeadStep {
  return { state: { ...state, work: { ...work, waitingFor: "proof" } }, effects: [{ type: "prove" }] };
}

function send(state: HeadMachine, work: HeadWork): HeadStep {
  const { next } = work;
  assert(next?.nonce !== undefined, "a proof is for a put");
  const { nonce } = next;
  return {
    state: {
      ...state,
      versions: state.versions + (state.unsettled.includes(nonce) ? 0 : 1),
      unsettled: [...state.unsettled.filter((each) => each !== nonce), nonce],
      work: { ...work, waitingFor: "put", puts: work.puts + 1 },
    },
    effects: [{ type: "put", head: next, base: state.base?.etag ?? null }],
  };
}

// ---- answered

/** `there` is in the store: nothing that was sent on an older version can land any more. */
function based(state: HeadMachine, there: HeadState | null): HeadMachine {
  return { ...state, base: there, known: true, unsettled: [] };
}

/** `there` is a version of ours. */
function owned(state: HeadMachine, there: HeadState): HeadMachine {
  const previous = state.standing === "outside" ? state.base?.head ?? null : state.previous;
  return { ...based(state, there), standing: "ours", previous };
}

function onWritten(state: HeadMachine, { next }: HeadWork, etag: ETag): HeadStep {
  assert(next !== null, "an acknowledged put was sent");
  return settled(owned(state, { head: next, etag }), { kind: "done" });
}

function onRead(state: HeadMachine, work: HeadWork, found: HeadState | null): HeadStep {
  const nonce = found?.head.nonce;
  if (found !== null && nonce !== undefined && state.unsettled.includes(nonce)) {
    const after = owned(state, found);
    // An earlier put than the one that was just refused: its content counts, what was asked for now was not done.
    if (work.purpose === "commit" && nonce !== work.next?.nonce) {
      return fail(after, work.failure ?? "precondition-failed", null);
    }
    return settled(after, { kind: "done" });
  }
  const unchanged = found === null ? state.base === null : found.etag === state.base?.etag;
  if (state.standing === "outside") return onReadOutside(state, work, found, unchanged);
  if (!unchanged) return lose(state, "it was changed by another writer");
  if (work.purpose === "settle" && work.puts < SETTLE_PUTS) {
    const { base } = state;
    assert(base !== null, "a head of ours is there");
    return prove(state, { ...work, next: work.next ?? successor(state, base.head) });
  }
  return fail(state, work.failure ?? "outcome-unknown", null);
}

function onReadOutside(
  state: HeadMachine,
  work: HeadWork,
  found: HeadState | null,
  unchanged: boolean,
): HeadStep {
  const { repoId, token } = state.term;
  if (found !== null && found.head.repo_id !== repoId) {
    return fail(
      state,
      "repository-mismatch",
      `it belongs to repository ${found.head.repo_id}, wanted ${repoId}`,
    );
  }
  if (found !== null && found.head.epoch > token) {
    return lose(state, `term ${found.head.epoch} has it, ours is ${token}`);
  }
  const after = unchanged ? { ...state, known: true } : based(state, found);
  if (work.purpose === "look") return settled(after, { kind: "done" });
  // The former holder swapped between our read and our put: its work counts, the caller decides anew.
  if (!unchanged) return fail(after, "precondition-failed", "another version is there");
  return fail(after, work.failure ?? "outcome-unknown", null);
}

function onReadFailed(state: HeadMachine, work: HeadWork, code: ErrorCode): HeadStep {
  // Refused, and no other put of ours is about that could be what is there.
  const surely = work.failure === "precondition-failed" && state.unsettled.length === 1;
  if (state.standing === "ours" && surely) return lose(state, "it was changed by another writer");
  return fail(state, work.failure ?? code, null);
}

// ---- ends

function heard(state: HeadMachine, answer: (work: HeadWork) => HeadStep): HeadStep {
  assert(state.work !== null, "an answer comes while something is under way");
  return answer(state.work);
}

function settled(state: HeadMachine, outcome: HeadOutcome): HeadStep {
  return { state: { ...state, work: null }, effects: [{ type: "settled", outcome }] };
}

function fail(state: HeadMachine, code: ErrorCode, reason: string | null): HeadStep {
  return settled(state, { kind: "failed", code, reason });
}

function lose(state: HeadMachine, reason: string): HeadStep {
  return settled({ ...state, standing: "lost" }, { kind: "lost", reason });
}
