/**
 * What time it is at the store, by the Date of its answers. It decides nothing but ages, together with the machine's own
 * clock: one of the two that is wrong must not make what is young look old (docs/operations.md, "Clocks").
 */

import type { Clock } from "../platform/clock.ts";
import type { ObjectStore } from "./object_store.ts";

/** The clock of a store that has one of its own, as its last answer told it, and carried on by the machine's monotonic time. */
export class StoreTime {
  readonly #clock: Pick<Clock, "monotonicMs">;
  /** The store's wall clock less our monotonic one. */
  #aheadMs: number | null = null;

  constructor(clock: Pick<Clock, "monotonicMs">) {
    this.#clock = clock;
  }

  /** The Date header of an answer that has just come: whole seconds, so it is late by one at most, and by the answer's way. */
  note(date: string | null): void {
    const atMs = date === null ? NaN : Date.parse(date);
    if (!Number.isNaN(atMs)) this.#aheadMs = atMs - this.#clock.monotonicMs();
  }

  /** Milliseconds since the Unix epoch; null as long as no answer has told it. */
  nowMs(): number | null {
    return this.#aheadMs === null ? null : this.#clock.monotonicMs() + this.#aheadMs;
  }
}

type Clocks = readonly [store: Pick<ObjectStore, "clockMs">, clock: Pick<Clock, "wallMs">];

/** Now, as the store will say of what it takes in this moment. */
export function storeNowMs(...[store, clock]: Clocks): number {
  return store.clockMs() ?? clock.wallMs();
}

/** Now, where something is deleted for its age: the earlier of the machine's clock and the store's. */
export function earlierNowMs(...[store, clock]: Clocks): number {
  return Math.min(clock.wallMs(), store.clockMs() ?? Infinity);
}

/** Now, where that is written down for such an age to be counted from: the later of the two. */
export function laterNowMs(...[store, clock]: Clocks): number {
  return Math.max(clock.wallMs(), store.clockMs() ?? -Infinity);
}
