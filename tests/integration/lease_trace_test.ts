/**
 * What real holders did on a real store, turn by turn, replays through the shipped rules: so the histories that the
 * simulator tries are of the same machine that runs. Replies are lost on the way, one asks the other, some are in doubt.
 */

import assert from "node:assert/strict";
import { initialLease, type LeaseMachine, type LeaseTurn } from "../../src/lease/machine.ts";
import { LeaseHolder } from "../../src/lease/mod.ts";
import { step } from "../../src/lease/rules.ts";
import type { LeaseEvent } from "../../src/lease/types.ts";
import { type Clock, systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { type FaultRule, faulty } from "../../src/storage/faulty_store.ts";
import { openStore } from "../../src/storage/mod.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { say } from "../support/say.ts";
import { storeOptionsOf, testOnStores, type TestStore } from "../support/test_stores.ts";

const machine = systemClock();
const random = systemRandom();

const HOLDERS = 4;
const TERMS = 12;
const TTL_MS = 1_500;

/** Each holder meets these in its own requests, counted from its first one. */
const FAULTS: readonly FaultRule[] = [
  { operation: "put", nth: 2, error: "outcome-unknown", when: "after" },
  { operation: "put", nth: 5, error: "outcome-unknown", when: "before" },
  { operation: "put", nth: 8, error: "store-unreachable", when: "after" },
  { operation: "get", nth: 4, error: "store-unreachable" },
  { operation: "get", nth: 9, count: 2, error: "store-unreachable" },
];

function plainStore(store: TestStore): ObjectStore {
  const settings = storeOptionsOf(store);
  const named = settings.kind === "directory" ? { ...settings, keyPrefix: "trace" } : settings;
  return openStore(named, { clock: machine, random, plain: true });
}

/** The machine's clock with a wall that can be set. */
function steppingClock(): Clock & { jump(ms: number): void } {
  let aheadMs = 0;
  return {
    wallMs: () => machine.wallMs() + aheadMs,
    monotonicMs: () => machine.monotonicMs(),
    sleep: (ms, options) => machine.sleep(ms, options),
    jump: (ms) => void (aheadMs += ms),
  };
}

/** Contends until enough terms were seen by all together; every other term it waits to be asked for it. */
async function contend(store: ObjectStore, tokens: number[], turns: LeaseTurn[]): Promise<number> {
  const clock = steppingClock();
  const faults = faulty(store, { clock: machine, rules: FAULTS });
  let asked = Promise.withResolvers<string>();
  const onEvent = (event: LeaseEvent) => {
    if (event.type === "acquired") tokens.push(event.term.token);
    if (event.type === "asked") asked.resolve(event.by.holder);
  };
  await using holder = new LeaseHolder({
    store: faults,
    clock,
    random,
    ttlMs: TTL_MS,
    renewMs: 200,
    pollMs: 60,
    info: {},
    handOver: { answer: true, ask: true },
    onEvent,
    // A copy: if anybody changed a state in place, the replay would differ.
    onTurn: (turn) => turns.push(structuredClone({ ...turn, event: { ...turn.event } })),
  });
  while (tokens.length < TERMS) {
    asked = Promise.withResolvers();
    try {
      const term = await holder.acquire({ wait: 2 * TTL_MS });
      if (term.token % 3 === 0) clock.jump(5_000);
      const others = term.token % 2 === 0 ? asked.promise : machine.sleep(250).then(() => undefined);
      const to = await Promise.race([others, machine.sleep(3_000).then(() => undefined)]);
      await holder.release(to === undefined ? {} : { to });
    } catch (error) {
      if (!isError(error, "lease-held-elsewhere", "lease-lost", "timeout", "store-unreachable")) throw error;
    }
  }
  return faults.hits;
}

/** Errors have no own enumerable text that deepEqual could be fooled by: as they are told. */
function comparable(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value, (_, each) => {
    if (each instanceof Error) return `error: ${each.message}`;
    return each === -Infinity ? "-Infinity" : each;
  }));
}

function replay(turns: readonly LeaseTurn[]): void {
  let state: LeaseMachine = initialLease(0);
  for (const [index, recorded] of turns.entries()) {
    const { settings, event, turn, after } = recorded;
    assert.deepEqual(comparable(recorded.state), comparable(state), `before turn ${index}`);
    const stepped = step(settings, state, event, turn);
    assert.deepEqual(comparable(stepped), comparable(after), `turn ${index}: ${event.type}`);
    state = stepped.state;
  }
}

testOnStores("every turn that real holders took replays through the rules of the lease", async (place) => {
  const store = plainStore(place);
  try {
    const tokens: number[] = [];
    const traces: LeaseTurn[][] = Array.from({ length: HOLDERS }, () => []);
    const hits = await Promise.all(traces.map((turns) => contend(store, tokens, turns)));
    for (const turns of traces) replay(turns);
    // Not by one: a claim whose answer was lost for too long is a term that nobody heard of.
    assert.deepEqual(tokens, [...new Set(tokens)].toSorted((a, b) => a - b), "tokens only grow");
    const all = traces.flat();
    const count = (is: (turn: LeaseTurn) => boolean) => all.filter(is).length;
    const seen = {
      turns: all.length,
      terms: tokens.length,
      faults: hits.reduce((sum, each) => sum + each, 0),
      doubts: count(({ event }) => event.type === "doubt"),
      released_to: count(({ after }) =>
        after.effects.some((effect) => effect.type === "put" && effect.record.to !== undefined)
      ),
    };
    say(`replayed ${JSON.stringify(seen)}`);
    for (const [what, number] of Object.entries(seen)) assert.ok(number > 0, `no ${what} in the trace`);
  } finally {
    await store.close();
  }
});
