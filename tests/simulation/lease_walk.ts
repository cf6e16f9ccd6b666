/**
 * All that can happen to two nodes with the lease (lease_walk_state.ts), one thing at a time, in any order: a model for
 * the breadth-first walk.
 */

import { initialLease, nextWakeMs } from "../../src/lease/machine.ts";
import { step } from "../../src/lease/rules.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { canonicalText } from "./canonical.ts";
import { LeaseEncoder } from "./lease_walk_encoding.ts";
import {
  type Budget,
  forget,
  initialState,
  land,
  type LeaseMutant,
  type LeaseWalkState,
  type Message,
  NAMES,
  REQUEST_TIMEOUT,
  type Rules,
  TTL,
  turn,
  violation,
  type WalkNode,
  withNode,
  wrongWrite,
} from "./lease_walk_state.ts";
import type { Model, Move } from "./walker.ts";

const UNREACHABLE = new StateManagerError("store-unreachable", "no answer");

export function leaseModel(budget: Budget, mutant: LeaseMutant = {}): Model<LeaseWalkState> {
  const rules: Rules = { rules: mutant.step?.(step) ?? step, mutant };
  const encoder = new LeaseEncoder(mutant);
  return {
    initial: initialState(budget),
    moves: (state) => movesOf(state, rules),
    violation,
    encode: (state, into) => encoder.encode(state, into),
  };
}

/** The same, and states are told apart by all that is in them. */
export function plainLeaseModel(budget: Budget, mutant: LeaseMutant = {}): Model<LeaseWalkState> {
  return {
    ...leaseModel(budget, mutant),
    encode: (state, into) => into.text(canonicalText(state, state.nowMs, 3 * TTL)),
  };
}

/** Messages that can change nothing any more are dropped, so that states meet again. */
function tidy(state: LeaseWalkState): LeaseWalkState {
  const flight = state.flight.filter(({ awaited, answer, request }) =>
    awaited || (answer === null && request.type === "put")
  );
  return flight.length === state.flight.length ? state : { ...state, flight };
}

function isDue(node: WalkNode, now: number): boolean {
  if (!node.alive || node.paused) return false;
  const wake = nextWakeMs(node.lease);
  return wake !== null && wake <= now;
}

function movesOf(state: LeaseWalkState, rules: Rules): Move<LeaseWalkState>[] {
  const moves: Move<LeaseWalkState>[] = [];
  const add = (label: string, next: LeaseWalkState | null) => {
    if (next !== null) moves.push({ label: `${state.nowMs}: ${label}`, state: tidy(next) });
  };
  let urgent = false;
  state.nodes.forEach((_node, index) => {
    const name = NAMES[index];
    urgent = nodeMoves(state, index, rules, (label, next) =>
      add(`${name}${label.startsWith("'") ? "" : " "}${label}`, next)) || urgent;
  });
  state.flight.forEach((message, at) => {
    urgent = messageMoves(state, message, at, rules, add) || urgent;
  });
  if (!urgent) add("time passes", { ...state, nowMs: state.nowMs + 1 });
  return moves;
}

type Add = (label: string, next: LeaseWalkState | null) => void;

/** What one node can do; true when some of it must happen before time passes. */
function nodeMoves(state: LeaseWalkState, index: number, rules: Rules, add: Add): boolean {
  const node = state.nodes[index];
  if (node === undefined) return false;
  const { left, nowMs } = state;
  let urgent = false;
  const guardMs = (node.killAtMs ?? Infinity) + (rules.mutant.guardIsLateTicks ?? 0);
  if (node.program && guardMs <= nowMs) {
    add("'s guard kills its program", withNode(state, index, { program: false }));
    urgent = true;
  }
  if (!node.alive) {
    // The guard's lock is free only when the program is dead.
    if (!node.program || rules.mutant.returnsWithoutProof === true) {
      const fresh = withNode(state, index, {
        alive: true,
        life: node.life + 1,
        lease: initialLease(0, node.memory),
        killAtMs: null,
      });
      add("starts", turn(fresh, index, { type: "acquire" }, rules));
    }
    return urgent;
  }
  if (node.paused) {
    add("goes on", withNode(state, index, { paused: false }));
  } else {
    if (isDue(node, nowMs)) {
      add("acts on its timer", turn(state, index, { type: "tick" }, rules));
      urgent = true;
    }
    if (node.timeoutMs !== null && node.timeoutMs <= nowMs) {
      const mayAnswer = state.flight.some(({ from, awaited, late }) => from === index && awaited && !late);
      const type = node.lease.phase !== "resting" && node.lease.request === "put" ? "unknown" : "read-failed";
      if (!mayAnswer) add("gives its request up", turn(state, index, { type, error: UNREACHABLE }, rules));
      urgent = true;
    }
    if (left.pauses > 0) {
      const spent = { ...state, left: { ...left, pauses: left.pauses - 1 } };
      add("'s manager is stopped", withNode(spent, index, { paused: true }));
    }
    if (left.releases > 0 && node.program) {
      const spent = { ...state, left: { ...left, releases: left.releases - 1 } };
      add(
        "stops its program and releases",
        turn(withNode(spent, index, { program: false }), index, { type: "release" }, rules),
      );
    }
  }
  if (node.lease.phase === "resting") {
    // It forgets its nonces on the way, unless it cannot.
    if (!node.paused) add("ends", withNode(state, index, { alive: false }));
  } else if (left.crashes > 0) {
    const spent = { ...state, left: { ...left, crashes: left.crashes - 1 } };
    const flight = spent.flight.map((message) => forget(message, index));
    // The guard has one tick to see it, and knows the deadline besides.
    const crash = {
      alive: false,
      paused: false,
      lease: initialLease(0),
      timeoutMs: null,
      killAtMs: Math.min(node.killAtMs ?? Infinity, nowMs + 1),
    };
    add("'s manager is killed", withNode({ ...spent, flight }, index, crash));
  }
  return urgent;
}

/** What can become of one request; true when it must before time passes. */
function messageMoves(
  state: LeaseWalkState,
  message: Message,
  at: number,
  rules: Rules,
  add: Add,
): boolean {
  const { left } = state;
  const what = describe(message);
  const replaced = (change: Message | null) => withMessage(state, at, change);
  if (message.answer === null) {
    const { record, answer } = land(state, message, rules.mutant);
    const wrong = record !== state.record ? wrongWrite(state.record, record) : null;
    const landed = { ...replaced({ ...message, answer }), record, broken: wrong };
    add(`${what} lands${answer.type === "refused" ? ", refused" : ""}`, landed);
    // A read that is late is one whose answer is lost.
    if (left.lateRequests > 0 && !message.late && message.request.type === "put") {
      const spent = replaced({ ...message, late: true });
      add(`${what} is under way for long`, {
        ...spent,
        left: { ...left, lateRequests: left.lateRequests - 1 },
      });
    }
    return !message.late && message.sentMs + REQUEST_TIMEOUT <= state.nowMs;
  }
  const node = state.nodes[message.from];
  if (node === undefined || !message.awaited) return false;
  if (!node.paused) {
    const answered = withNode(withMessage(state, at, null), message.from, { timeoutMs: null });
    add(`${what} is answered`, turn(answered, message.from, message.answer, rules));
  }
  if (left.lostReplies > 0) {
    add(`the answer to ${what} is lost`, {
      ...replaced(null),
      left: { ...left, lostReplies: left.lostReplies - 1 },
    });
  }
  return !node.paused;
}

function withMessage(state: LeaseWalkState, at: number, change: Message | null): LeaseWalkState {
  return {
    ...state,
    flight: state.flight.flatMap((other, i) => i !== at ? [other] : change === null ? [] : [change]),
  };
}

function describe({ from, request }: Message): string {
  const name = NAMES[from];
  if (request.type === "get") return `${name}'s read`;
  const { nonce, token, state } = request.record;
  return `${name}'s put ${nonce} (token ${token}, ${state})`;
}
