/**
 * The lease with its programs and the guard at small size, for the walk over every interleaving: two nodes, few ticks
 * to a TTL, and a budget of faults. Times are whole ticks; nobody's clock drifts (the simulation does that).
 * A node that is not stopped acts in time: the clock goes on only when nothing is due, so what is late is a fault.
 */

import { initialLease, isHeld, nextWakeMs, nonces } from "../../src/lease/machine.ts";
import type { Found, LeaseMachine, LeaseSettings, MachineEvent } from "../../src/lease/machine.ts";
import { step } from "../../src/lease/rules.ts";
import type { LeaseRecord } from "../../src/lease/types.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { canonicalText } from "./canonical.ts";
import type { Model, Move } from "./walker.ts";

/** In ticks. */
const TTL = 4;
const MARGIN = 1;
const SETTINGS = { ttlMs: TTL, renewMs: 2, marginMs: MARGIN, pollMs: 1, requestTimeoutMs: 1, info: {} };
const REQUEST_TIMEOUT = 1;

export type LeaseStep = typeof step;

/** How many of each may happen in one history. */
export interface Budget {
  readonly crashes: number;
  /** Requests that land whenever they like, or never. */
  readonly lateRequests: number;
  readonly lostReplies: number;
  /** Managers that are stopped for as long as they like; their programs run on. */
  readonly pauses: number;
  readonly releases: number;
  /** Terms that may begin; histories are not followed beyond. */
  readonly terms: number;
}

/** One deliberate mistake. */
export interface LeaseMutant {
  readonly step?: (shipped: LeaseStep) => LeaseStep;
  readonly storeIgnoresConditions?: true;
  readonly guardIsLateTicks?: number;
  readonly returnsWithoutProof?: true;
  readonly thawsBeforeProof?: true;
}

interface WalkNode {
  readonly life: number;
  readonly alive: boolean;
  readonly paused: boolean;
  readonly lease: LeaseMachine;
  readonly program: boolean;
  /** When the guard kills what runs; null: nothing to fear. */
  readonly killAtMs: number | null;
  /** Nonces that a successor on the same folder may inherit. */
  readonly memory: readonly string[];
  /** When the request under way is given up. */
  readonly timeoutMs: number | null;
}

interface Message {
  readonly from: number;
  readonly life: number;
  /** False when the sender has given it up or moved on: its answer counts for nothing. */
  readonly awaited: boolean;
  readonly late: boolean;
  readonly sentMs: number;
  readonly request: { readonly type: "get" } | {
    readonly type: "put";
    readonly record: LeaseRecord;
    readonly base: Found | null;
  };
  /** Null: not at the store yet. */
  readonly answer: MachineEvent | null;
}

export interface LeaseWalkState {
  readonly nowMs: number;
  readonly nodes: readonly WalkNode[];
  readonly record: LeaseRecord | null;
  readonly flight: readonly Message[];
  readonly left: Budget;
  readonly idsMade: number;
  readonly broken: string | null;
}

const UNREACHABLE = new StateManagerError("store-unreachable", "no answer");
const NAMES = ["A", "B"];

export function leaseModel(budget: Budget, mutant: LeaseMutant = {}): Model<LeaseWalkState> {
  const rules = mutant.step?.(step) ?? step;
  const node: WalkNode = {
    life: 0,
    alive: false,
    paused: false,
    lease: initialLease(0),
    program: false,
    killAtMs: null,
    memory: [],
    timeoutMs: null,
  };
  const initial: LeaseWalkState = {
    nowMs: 0,
    nodes: [node, node],
    record: null,
    flight: [],
    left: budget,
    idsMade: 0,
    broken: null,
  };
  return {
    initial,
    moves: (state) => movesOf(state, { rules, mutant }),
    violation,
    canonical: (state) => canonicalText(state, state.nowMs, 3 * TTL),
  };
}

interface Rules {
  readonly rules: LeaseStep;
  readonly mutant: LeaseMutant;
}

function violation(state: LeaseWalkState): string | null {
  if (state.broken !== null) return state.broken;
  if (state.nodes.every((node) => node.program)) return "two programs run at once";
  const twin = state.nodes.findIndex((node) =>
    node.program && node.alive && node.lease.phase === "contending"
  );
  if (twin !== -1) return `${NAMES[twin]} waits for the lease while the program of its former life runs`;
  if (state.nodes.every((node) => node.alive && isHeld(node.lease, state.nowMs))) {
    return "two nodes hold the lease at once";
  }
  return null;
}

function settingsOf(index: number, life: number): LeaseSettings {
  return { ...SETTINGS, holder: `${NAMES[index]}${life}` };
}

function etagOf(record: LeaseRecord): string {
  return `${record.holder}/${record.token}/${record.state}/${record.nonce}`;
}

function withNode(state: LeaseWalkState, index: number, change: Partial<WalkNode>): LeaseWalkState {
  return {
    ...state,
    nodes: state.nodes.map((node, i) => i === index ? { ...node, ...change } : node),
  };
}

/** One turn of a node's machine, and what the manager does about it. */
function turn(
  before: LeaseWalkState,
  index: number,
  event: MachineEvent,
  { rules, mutant }: Rules,
): LeaseWalkState | null {
  const node = before.nodes[index];
  if (node === undefined) return null;
  const now = before.nowMs;
  const { state: lease, effects } = rules(settingsOf(index, node.life), node.lease, event, {
    nowMs: now,
    nonce: `n${before.idsMade}`,
    jitter: 0.5,
  });
  const idle = lease.phase === "resting" || lease.request === "none";
  let state = withNode({ ...before, idsMade: before.idsMade + 1 }, index, {
    lease,
    ...(idle ? { timeoutMs: null } : {}),
  });
  if (idle) state = { ...state, flight: state.flight.map((message) => forget(message, index)) };
  for (const effect of effects) {
    if (effect.type === "fail") {
      return { ...state, broken: `${NAMES[index]} failed: ${effect.error.message}` };
    }
    if (effect.type === "tell") {
      const { type } = effect.event;
      const running = type === "acquired" || type === "regained";
      const stopped = type === "lost" || type === "released" ||
        type === "suspended" && mutant.thawsBeforeProof !== true;
      if (running || stopped) state = withNode(state, index, { program: running });
      continue;
    }
    if (effect.type === "put" && effect.record.token > state.left.terms) return null;
    const message: Message = {
      from: index,
      life: node.life,
      awaited: true,
      late: false,
      sentMs: now,
      request: effect.type === "get" ? { type: "get" } : effect,
      answer: null,
    };
    state = withNode(
      { ...state, flight: [...state.flight.map((other) => forget(other, index)), message] },
      index,
      { timeoutMs: now + REQUEST_TIMEOUT, ...(effect.type === "put" ? { memory: nonces(lease) } : {}) },
    );
  }
  const held = lease.phase === "owning" && lease.announced && !lease.ending;
  return withNode(state, index, { killAtMs: held ? lease.deadlineMs + MARGIN / 2 : null });
}

function forget(message: Message, from: number): Message {
  return message.from === from && message.awaited ? { ...message, awaited: false } : message;
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
  if (left.crashes > 0 && node.lease.phase !== "resting") {
    const spent = { ...state, left: { ...left, crashes: left.crashes - 1 } };
    const flight = spent.flight.map((message) => forget(message, index));
    // The guard has one tick to see it.
    const crash = {
      alive: false,
      paused: false,
      lease: initialLease(0),
      timeoutMs: null,
      killAtMs: nowMs + 1,
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
  const what = `${NAMES[message.from]}'s ${describe(message)}`;
  const replaced = (change: Message | null): LeaseWalkState => ({
    ...state,
    flight: state.flight.flatMap((other, i) => i !== at ? [other] : change === null ? [] : [change]),
  });
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
    const forgotten = { ...replaced(null) };
    const answered = withNode(forgotten, message.from, { timeoutMs: null });
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

function describe({ request }: Message): string {
  if (request.type === "get") return "read";
  const { nonce, token, state } = request.record;
  return `put ${nonce} (token ${token}, ${state})`;
}

function land(
  state: LeaseWalkState,
  { request }: Message,
  mutant: LeaseMutant,
): { record: LeaseRecord | null; answer: MachineEvent } {
  const before = state.record;
  if (request.type === "get") {
    const found = before === null ? null : { etag: etagOf(before), record: before };
    return { record: before, answer: { type: "read", found } };
  }
  const matches = (before === null ? null : etagOf(before)) === (request.base?.etag ?? null);
  if (!matches && mutant.storeIgnoresConditions !== true) {
    return { record: before, answer: { type: "refused" } };
  }
  return { record: request.record, answer: { type: "written", etag: etagOf(request.record) } };
}

function wrongWrite(before: LeaseRecord | null, after: LeaseRecord | null): string | null {
  if (after === null) return null;
  const sameTerm = before?.token === after.token && before.holder === after.holder;
  if (sameTerm || after.token === (before?.token ?? 0) + 1) return null;
  return `token ${after.token} of ${after.holder} follows ${before?.token ?? 0}`;
}
