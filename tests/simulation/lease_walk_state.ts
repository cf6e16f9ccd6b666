/**
 * The lease with its programs and the guard at small size, for the walk over every interleaving: two nodes, few ticks
 * to a TTL, and a budget of faults. Times are whole ticks; nobody's clock drifts (the simulation does that).
 * A node that is not stopped acts in time: the clock goes on only when nothing is due, so what is late is a fault.
 */

import { initialLease, isHeld, nonces } from "../../src/lease/machine.ts";
import type { Found, LeaseMachine, LeaseSettings, MachineEvent } from "../../src/lease/machine.ts";
import type { step } from "../../src/lease/rules.ts";
import type { LeaseRecord } from "../../src/lease/types.ts";

/** In ticks. */
export const TTL = 4;
export const MARGIN = 1;
const SETTINGS = { ttlMs: TTL, renewMs: 2, marginMs: MARGIN, pollMs: 1, requestTimeoutMs: 1, info: {} };
export const REQUEST_TIMEOUT = 1;
export const NAMES = ["A", "B"];

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
  /** `step` writes one nonce twice. */
  readonly noncesRepeat?: true;
  /** Infinity: there is none. */
  readonly guardIsLateTicks?: number;
  readonly returnsWithoutProof?: true;
  readonly thawsBeforeProof?: true;
}

/** What the model runs: the shipped rules, or mistaken ones. */
export interface Rules {
  readonly rules: LeaseStep;
  readonly mutant: LeaseMutant;
}

export interface WalkNode {
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

export interface Message {
  readonly from: number;
  /** False when the sender has given it up or moved on: its answer counts for nothing. */
  readonly awaited: boolean;
  readonly late: boolean;
  readonly sentMs: number;
  readonly request: { readonly type: "get" } | PutRequest;
  /** Null: not at the store yet. */
  readonly answer: MachineEvent | null;
}

export interface PutRequest {
  readonly type: "put";
  readonly record: LeaseRecord;
  readonly base: Found | null;
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

export function initialState(budget: Budget): LeaseWalkState {
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
  return {
    nowMs: 0,
    nodes: [node, node],
    record: null,
    flight: [],
    left: budget,
    idsMade: 0,
    broken: null,
  };
}

export function violation(state: LeaseWalkState): string | null {
  if (state.broken !== null) return state.broken;
  if (state.nodes.every((node) => node.program)) return "two programs run at once";
  const twin = state.nodes.findIndex(hasTwin);
  if (twin !== -1) return `${NAMES[twin]} waits for the lease while the program of its former life runs`;
  if (state.nodes.every((node) => holds(node, state.nowMs))) return "two nodes hold the lease at once";
  return null;
}

export function hasTwin(node: WalkNode): boolean {
  return node.program && node.alive && node.lease.phase === "contending";
}

export function holds(node: WalkNode, nowMs: number): boolean {
  return node.alive && isHeld(node.lease, nowMs);
}

function settingsOf(index: number, life: number): LeaseSettings {
  return { ...SETTINGS, holder: `${NAMES[index]}${life}` };
}

export function etagOf(record: LeaseRecord): string {
  return `${record.holder}/${record.token}/${record.state}/${record.nonce}`;
}

export function withNode(state: LeaseWalkState, index: number, change: Partial<WalkNode>): LeaseWalkState {
  return {
    ...state,
    nodes: state.nodes.map((node, i) => i === index ? { ...node, ...change } : node),
  };
}

/** One turn of a node's machine, and what the manager does about it. Null: a term beyond those that are followed. */
export function turn(
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

export function forget(message: Message, from: number): Message {
  return message.from === from && message.awaited ? { ...message, awaited: false } : message;
}

/** The record after `request` is carried out, and what its sender is answered. */
export function land(
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

export function wrongWrite(before: LeaseRecord | null, after: LeaseRecord | null): string | null {
  if (after === null) return null;
  const sameTerm = before?.token === after.token && before.holder === after.holder;
  if (sameTerm || after.token === (before?.token ?? 0) + 1) return null;
  return `token ${after.token} of ${after.holder} follows ${before?.token ?? 0}`;
}
