/**
 * What of a state of the lease walk can still matter, as bytes: two states with equal bytes have the same future, up to
 * the names of nodes and nonces and to absolute time (lease_walk_test.ts tries that with every move of many states).
 */

import { isTrusted, type LeaseMachine } from "../../src/lease/machine.ts";
import type { LeaseRecord } from "../../src/lease/types.ts";
import type { Encoding } from "./canonical.ts";
import {
  etagOf,
  type LeaseMutant,
  type LeaseWalkState,
  MARGIN,
  type Message,
  REQUEST_TIMEOUT,
  TTL,
  type WalkNode,
  wrongWrite,
} from "./lease_walk_state.ts";

const ANSWERS = ["read", "written", "refused"];
const NEVER = 255;
const ZERO = 64;

/** Conditions hold and a nonce is written once: what was replaced never stands in the store again. */
function recordsNeverReturn(mutant: LeaseMutant): boolean {
  return mutant.storeIgnoresConditions !== true && mutant.noncesRepeat !== true;
}

/** Encodes states of one model. */
export class LeaseEncoder {
  readonly #mutant: LeaseMutant;
  /** Negative; what lies further back has happened and moves nothing more. */
  readonly #earliest: number;

  constructor(mutant: LeaseMutant) {
    this.#mutant = mutant;
    const late = mutant.guardIsLateTicks ?? 0;
    this.#earliest = -1 - (Number.isFinite(late) ? late : 0);
  }

  /** The nodes are alike but for their names, so both orders are the same state. */
  encode(state: LeaseWalkState, into: Encoding): void {
    const { left } = state;
    into.byte(left.crashes);
    into.byte(left.lateRequests);
    into.byte(left.lostReplies);
    into.byte(left.pauses);
    into.byte(left.releases);
    into.lesser(() => this.#inOrder(state, into, [0, 1]), () => this.#inOrder(state, into, [1, 0]));
  }

  #inOrder(state: LeaseWalkState, into: Encoding, order: readonly number[]): void {
    this.#record(state, into, order, state.record);
    for (const index of order) this.#node(state, into, order, index);
    for (const index of order) {
      for (const message of state.flight) {
        if (message.from === index && !message.awaited) this.#message(state, into, order, message);
      }
    }
  }

  #node(state: LeaseWalkState, into: Encoding, order: readonly number[], index: number): void {
    const node = state.nodes[index];
    if (node === undefined) return;
    const { nowMs } = state;
    into.byte((node.alive ? 1 : 0) + (node.paused ? 2 : 0) + (node.program ? 4 : 0));
    // Every turn sets it anew, and without a turn no program starts.
    if (node.program) into.byte(ticks(this.#killAtMs(node), nowMs, 0));
    this.#nonces(state, into, node.memory);
    if (!node.alive) return;
    const { lease } = node;
    if (lease.phase === "resting") return into.byte(0);
    into.byte(lease.phase === "contending" ? 1 : 2);
    // When it is due is asked only of one that waits for nothing, and set whenever a wait ends.
    if (lease.request === "none") into.byte(ticks(lease.dueMs, nowMs, 0));
    else {
      into.byte(lease.request === "get" ? 1 : 2);
      into.byte(ticks(node.timeoutMs, nowMs, 0));
    }
    this.#attempt(state, into, order, lease);
    if (lease.phase === "contending") {
      into.byte(lease.abandoned ? 1 : 0);
      this.#contender(state, into, order, lease);
    } else this.#owner(state, into, order, node, lease);
    const awaited = state.flight.find((message) => message.awaited && message.from === index);
    if (awaited === undefined) into.byte(0);
    else this.#message(state, into, order, awaited);
  }

  #killAtMs({ killAtMs }: WalkNode): number | null {
    return killAtMs === null ? null : killAtMs + (this.#mutant.guardIsLateTicks ?? 0);
  }

  #attempt(
    state: LeaseWalkState,
    into: Encoding,
    order: readonly number[],
    { attempt }: Exclude<LeaseMachine, { phase: "resting" }>,
  ): void {
    if (attempt === null) return into.byte(0);
    into.byte({ claim: 1, renew: 2, release: 3 }[attempt.purpose] + (attempt.next === "send" ? 4 : 0));
    this.#record(state, into, order, attempt.record);
    this.#record(state, into, order, attempt.base?.record ?? null);
    // Its landing counts from here; after the deadline that this gives it counts for nothing.
    into.byte(ticks(attempt.firstSentMs, state.nowMs, this.#earliest - (TTL - MARGIN)));
  }

  #contender(
    state: LeaseWalkState,
    into: Encoding,
    order: readonly number[],
    lease: Extract<LeaseMachine, { phase: "contending" }>,
  ): void {
    const { attempt, seen, inherited } = lease;
    into.byte(lease.highestToken);
    this.#nonces(state, into, inherited);
    // Whoever has a claim under way made it on what was seen, and sees something else if it fails.
    if (attempt !== null) {
      const base = attempt.base?.record.nonce;
      return into.byte(base !== undefined && inherited.includes(base) ? 1 : 0);
    }
    into.byte(seen === null ? 0 : 1);
    if (seen === null) return;
    this.#record(state, into, order, seen.found?.record ?? null);
    into.byte(ticks(seen.readyMs, state.nowMs, 0));
  }

  #owner(
    state: LeaseWalkState,
    into: Encoding,
    order: readonly number[],
    { program }: WalkNode,
    lease: Extract<LeaseMachine, { phase: "owning" }>,
  ): void {
    const { announced, suspended, inDoubt, ending } = lease;
    into.byte((announced ? 1 : 0) + (suspended ? 2 : 0) + (inDoubt ? 4 : 0) + (ending ? 8 : 0));
    this.#record(state, into, order, lease.own.record);
    // A term that is not trusted gets a new one before it is used again.
    if (isTrusted(lease) || program) into.byte(ticks(lease.deadlineMs, state.nowMs, this.#earliest));
    if (announced) return;
    // It may go back to contending.
    into.byte(lease.highestToken);
    this.#nonces(state, into, lease.inherited);
  }

  #record(
    state: LeaseWalkState,
    into: Encoding,
    order: readonly number[],
    record: LeaseRecord | null,
  ): void {
    into.id(record?.nonce ?? null);
    if (record === null) return;
    into.byte(record.token * 2 + (record.state === "held" ? 0 : 1));
    if (this.#mutant.storeIgnoresConditions !== true) return;
    // Whose it is only matters to what may follow it, which is told with each put where conditions hold.
    for (const index of order) into.byte(record.holder === holderOf(state, index) ? 1 : 0);
  }

  #message(state: LeaseWalkState, into: Encoding, order: readonly number[], message: Message): void {
    const { request, answer, late, sentMs } = message;
    into.byte(1 + (late ? 1 : 0) + (answer === null ? 0 : 2) + (request.type === "get" ? 4 : 0));
    into.byte(order.indexOf(message.from));
    if (answer !== null) {
      into.byte(ANSWERS.indexOf(answer.type));
      if (answer.type === "read") this.#record(state, into, order, answer.found?.record ?? null);
      return;
    }
    if (!late) into.byte(ticks(sentMs + REQUEST_TIMEOUT, state.nowMs, 0));
    if (request.type === "get") return;
    this.#record(state, into, order, request.record);
    this.#record(state, into, order, request.base?.record ?? null);
    into.byte(wrongWrite(request.base?.record ?? null, request.record) === null ? 0 : 1);
  }

  /** Those that may stand in the store, now or later: nobody meets the others again. */
  #nonces(state: LeaseWalkState, into: Encoding, nonces: readonly string[]): void {
    for (const nonce of nonces) {
      if (!recordsNeverReturn(this.#mutant) || mayStand(state, nonce)) into.id(nonce);
    }
    into.byte(0);
  }
}

function holderOf(state: LeaseWalkState, index: number): string {
  return `${index === 0 ? "A" : "B"}${state.nodes[index]?.life}`;
}

/** Ticks until `timeMs`, no less than `earliest`. */
function ticks(timeMs: number | null, nowMs: number, earliest: number): number {
  if (timeMs === null || timeMs === Infinity) return NEVER;
  return ZERO + Math.max(Math.ceil(timeMs - nowMs), earliest);
}

/** It is the record, or was when a read found it, or a put of it is on the record and may be sent or under way. */
function mayStand(state: LeaseWalkState, nonce: string): boolean {
  const { record } = state;
  if (record?.nonce === nonce) return true;
  const isPut = (put: { record: LeaseRecord; base: { etag: string } | null }) =>
    put.record.nonce === nonce && canLand(state, put.base);
  return state.flight.some(({ request, answer }) =>
    answer === null
      ? request.type === "put" && isPut(request)
      : answer.type === "read" && answer.found?.record.nonce === nonce
  ) ||
    state.nodes.some(({ lease }) =>
      lease.phase !== "resting" && lease.attempt !== null && isPut(lease.attempt)
    );
}

function canLand({ record }: LeaseWalkState, base: { etag: string } | null): boolean {
  return (record === null ? null : etagOf(record)) === (base?.etag ?? null);
}
