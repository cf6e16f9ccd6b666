/**
 * The rules of a hand-over on request, pure like rules.ts: (state, event, now) → state and effects. One that waits asks
 * for the term it sees, once, through `hand-over.json`; the holder looks there while it may answer, and tells its
 * manager once per term. Nothing here is needed for safety: a request is a wish, and the lease's own rules decide. A
 * crash, a lost or late request, or rubbish in that object costs the quick way at most.
 *
 * The object is swapped, never overwritten blindly: so a request that lands late cannot replace a newer one, and of
 * several that wait one asks and the others see that it did.
 */

import type { ETag } from "../storage/object_store.ts";
import { heldBy, isHeld, type LeaseMachine } from "./machine.ts";
import type { Asker, HandOverRequest } from "./types.ts";

/**
 * A person who waits for a deploy notices more. One small read each time is a quarter of a dollar a month at S3's prices;
 * at half of this it was two fifths of all that an idle manager does.
 */
const LOOK_EVERY_MS = 4_000;
/** Over about half a minute with the pauses between; the store is out of reach then, and the lease itself in question. */
const ASK_TRIES = 6;

export interface HandOverSettings {
  readonly holder: string;
  readonly pollMs: number;
  readonly info: Readonly<Record<string, string>>;
  /** The holder looks for requests. */
  readonly answer: boolean;
  /** A waiter may ask. */
  readonly ask: boolean;
}

export interface HandOver {
  readonly task: Ask | Look | null;
  readonly request: "none" | "get" | "put";
  /** When to act next if there is a task and no request is under way. */
  readonly dueMs: number;
  /** Last foreign term that needs no asking (any more). */
  readonly askedFor: number;
  /** Last term of ours that somebody was told to want. */
  readonly toldOf: number;
  /** Tag of the rubbish that was told of last. */
  readonly noted: ETag | null;
}

interface Ask {
  readonly type: "ask";
  readonly token: number;
  readonly tries: number;
}

interface Look {
  readonly type: "look";
  readonly token: number;
}

export type HandOverEvent =
  /** How the lease stands: whose term we wait for, or which one we hold and may use; `renewed` just now. */
  | {
    readonly type: "lease";
    readonly waitingFor: number | null;
    readonly holding: number | null;
    readonly renewed: boolean;
  }
  | { readonly type: "tick" }
  /** `request` is null for rubbish. */
  | {
    readonly type: "read";
    readonly found: { readonly etag: ETag; readonly request: HandOverRequest | null } | null;
  }
  | { readonly type: "written" }
  /** The object has changed meanwhile, or nothing is known. */
  | { readonly type: "failed" };

export type HandOverEffect =
  | { readonly type: "get" }
  /** `base`: the tag that it replaces; null: no object. */
  | { readonly type: "put"; readonly request: HandOverRequest; readonly base: ETag | null }
  | { readonly type: "asked"; readonly by: Asker }
  /** For the log. */
  | { readonly type: "note"; readonly text: string };

export interface HandOverStep {
  readonly state: HandOver;
  readonly effects: readonly HandOverEffect[];
}

/** One turn: its monotonic time, and a fresh random id. */
export interface HandOverTurn {
  readonly nowMs: number;
  readonly nonce: string;
}

export const NO_HAND_OVER: HandOver = {
  task: null,
  request: "none",
  dueMs: 0,
  askedFor: 0,
  toldOf: 0,
  noted: null,
};

/** How the lease stands, as these rules want it. A claim under way, a term in doubt, or one that ends, is neither. */
export function standing(lease: LeaseMachine, nowMs: number, renewed: boolean): HandOverEvent {
  const waiting = lease.phase === "contending" && lease.attempt === null && !lease.abandoned;
  return {
    type: "lease",
    waitingFor: waiting ? heldBy(lease)?.token ?? null : null,
    holding: lease.phase === "owning" && isHeld(lease, nowMs) ? lease.term.token : null,
    renewed,
  };
}

/** When the next "tick" is due by itself; null: only an event moves it. */
export function nextHandOverMs(state: HandOver): number | null {
  return state.task !== null && state.request === "none" ? state.dueMs : null;
}

/** One turn. A result of a request is given only while `state.request` names it. */
export function stepHandOver(
  settings: HandOverSettings,
  state: HandOver,
  event: HandOverEvent,
  turn: HandOverTurn,
): HandOverStep {
  const { task } = state;
  if (event.type === "lease") return due(adopt(settings, state, event, turn), turn);
  if (task === null) return { state: { ...state, request: "none" }, effects: [] };
  switch (event.type) {
    case "tick":
      return due(state, turn);
    case "read":
      return task.type === "ask"
        ? readToAsk(settings, state, task, event.found, turn)
        : readToAnswer(settings, state, task, event.found, turn);
    case "written":
      return { state: settled(state, task.token), effects: [] };
    case "failed":
      return task.type === "ask" ? tryLater(settings, state, task, turn) : lookLater(state, turn);
  }
}

/** The task that fits how the lease stands; the one at hand goes on if it is that. */
function adopt(
  settings: HandOverSettings,
  state: HandOver,
  event: Extract<HandOverEvent, { readonly type: "lease" }>,
  turn: HandOverTurn,
): HandOver {
  const { waitingFor, holding, renewed } = event;
  const { task } = state;
  if (waitingFor !== null && settings.ask && waitingFor !== state.askedFor) {
    if (task?.type === "ask" && task.token === waitingFor) return state;
    return {
      ...state,
      task: { type: "ask", token: waitingFor, tries: 0 },
      request: "none",
      dueMs: turn.nowMs,
    };
  }
  if (holding !== null && settings.answer && holding !== state.toldOf) {
    if (task?.type === "look" && task.token === holding) {
      return renewed ? { ...state, dueMs: turn.nowMs } : state;
    }
    const dueMs = turn.nowMs + (renewed ? 0 : LOOK_EVERY_MS);
    return { ...state, task: { type: "look", token: holding }, request: "none", dueMs };
  }
  return { ...state, task: null, request: "none" };
}

function due(state: HandOver, turn: HandOverTurn): HandOverStep {
  if (state.task === null || state.request !== "none" || turn.nowMs < state.dueMs) {
    return { state, effects: [] };
  }
  return { state: { ...state, request: "get" }, effects: [{ type: "get" }] };
}

type Found = Extract<HandOverEvent, { readonly type: "read" }>["found"];

/** Somebody asked for that term already, be it an earlier try of ours: no more to do. Else ask, instead of what is there. */
function readToAsk(
  settings: HandOverSettings,
  state: HandOver,
  task: Ask,
  found: Found,
  turn: HandOverTurn,
): HandOverStep {
  if (found?.request?.token === task.token) return { state: settled(state, task.token), effects: [] };
  const request: HandOverRequest = {
    v: 1,
    token: task.token,
    asker: settings.holder,
    nonce: turn.nonce,
    info: settings.info,
  };
  return {
    state: { ...state, request: "put" },
    effects: [{ type: "put", request, base: found?.etag ?? null }],
  };
}

function settled(state: HandOver, token: number): HandOver {
  return { ...state, task: null, request: "none", askedFor: token };
}

/** Begins again with a look: what failed may have landed. */
function tryLater(settings: HandOverSettings, state: HandOver, task: Ask, turn: HandOverTurn): HandOverStep {
  const tries = task.tries + 1;
  if (tries >= ASK_TRIES) {
    const text = `asking for term ${task.token} failed ${tries} times: waiting until it ends by itself`;
    return { state: settled(state, task.token), effects: [{ type: "note", text }] };
  }
  const dueMs = turn.nowMs + settings.pollMs * 2 ** task.tries;
  return { state: { ...state, task: { ...task, tries }, request: "none", dueMs }, effects: [] };
}

function readToAnswer(
  settings: HandOverSettings,
  before: HandOver,
  task: Look,
  found: Found,
  turn: HandOverTurn,
): HandOverStep {
  const later = lookLater(before, turn);
  if (found === null) return later;
  const { etag, request } = found;
  if (request === null) {
    if (etag === before.noted) return later;
    const text = "hand-over.json is not a request of a version that is known here: it is ignored";
    return { state: { ...later.state, noted: etag }, effects: [{ type: "note", text }] };
  }
  if (request.token !== task.token || request.asker === settings.holder) return later;
  return {
    state: { ...before, task: null, request: "none", toldOf: task.token },
    effects: [{ type: "asked", by: { holder: request.asker, info: request.info } }],
  };
}

function lookLater(state: HandOver, turn: HandOverTurn): HandOverStep {
  return { state: { ...state, request: "none", dueMs: turn.nowMs + LOOK_EVERY_MS }, effects: [] };
}
