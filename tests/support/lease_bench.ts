/** A lease holder, a store in memory and a clock that the test moves. */

import assert from "node:assert/strict";
import { LeaseHolder, type LeaseHolderOptions } from "../../src/lease/mod.ts";
import { decodeLease, encodeLease, type LeaseEvent, type LeaseRecord } from "../../src/lease/mod.ts";
import { type ErrorCode, isError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { ScriptedStore } from "./scripted_store.ts";
import { VirtualClock } from "./virtual_clock.ts";

export const TTL_MS = 15_000;
/** TTL · (1 + 2ρ) */
export const TAKE_OVER_MS = 15_600;
/** TTL less the default margin. */
export const BELIEF_MS = 12_000;

export interface Bench {
  readonly store: ScriptedStore;
  readonly clock: VirtualClock;
  readonly holder: LeaseHolder;
  readonly events: LeaseEvent[];
}

/** A holder with times of the default kind, in a world of its own or beside another one. */
export function bench(
  options: Partial<LeaseHolderOptions> = {},
  world?: Pick<Bench, "store" | "clock">,
): Bench {
  const store = world?.store ?? new ScriptedStore();
  const clock = world?.clock ?? new VirtualClock();
  const events: LeaseEvent[] = [];
  const holder = new LeaseHolder({
    store,
    clock,
    random: systemRandom(),
    ttlMs: TTL_MS,
    renewMs: 4_000,
    info: { host: "test" },
    onEvent: (event) => events.push(event),
    ...options,
  });
  return { store, clock, holder, events };
}

/** What was told, renewals left out. */
export function news(events: readonly LeaseEvent[]): string[] {
  return events.map((event) => event.type).filter((type) => type !== "renewed");
}

let count = 0;

/** What somebody else's manager left in the store. */
export function foreign(change: Partial<LeaseRecord> = {}): string {
  const record: LeaseRecord = {
    v: 1,
    token: 5,
    holder: "other",
    nonce: `nonce-${count++}`,
    state: "held",
    ttlMs: TTL_MS,
    info: { host: "elsewhere" },
    ...change,
  };
  return new TextDecoder().decode(encodeLease(record));
}

export function recordIn(store: ScriptedStore): LeaseRecord {
  return decodeLease(new TextEncoder().encode(store.text("lease.json") ?? ""));
}

export function code(wanted: ErrorCode): (error: unknown) => boolean {
  return (error) => isError(error, wanted);
}

/** Ends the holders of one world whatever they are doing, and checks that they leave no timer. */
export async function end(first: Bench, ...others: Bench[]): Promise<void> {
  const { store, clock } = first;
  store.spoil = () => null;
  const ended = [first, ...others].map(({ holder }) => holder[Symbol.asyncDispose]());
  await clock.advance(60_000);
  await Promise.all(ended);
  assert.equal(clock.sleeping, 0, "a timer was left behind");
}

export async function held(options: Partial<LeaseHolderOptions> = {}): Promise<Bench> {
  const made = bench(options);
  await made.holder.acquire({ wait: false });
  return made;
}
