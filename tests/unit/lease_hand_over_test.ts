/** Hand-over on request: the pure rules, and lease holders that ask and answer in virtual time. */

import assert from "node:assert/strict";
import {
  type HandOver,
  type HandOverSettings,
  NO_HAND_OVER,
  stepHandOver,
} from "../../src/lease/hand_over.ts";
import type { HandOverRequest, LeaseEvent } from "../../src/lease/mod.ts";
import { decodeHandOver, encodeHandOver } from "../../src/lease/record.ts";
import { type Bench, bench, end, foreign, held, news, recordIn } from "../support/lease_bench.ts";
import type { ScriptedStore } from "../support/scripted_store.ts";
import { settled } from "../support/virtual_clock.ts";

const KEY = "hand-over.json";
/** Two polls of at most 1 s, and one request of 2.5 s. */
const GRACE_MS = 4_500;
const ANSWERS = { answer: true, ask: false };
const ASKS = { answer: true, ask: true };

function requestIn(store: ScriptedStore): HandOverRequest | null {
  const text = store.text(KEY);
  return text === null ? null : decodeHandOver(new TextEncoder().encode(text));
}

function writeRequest(store: ScriptedStore, change: Partial<HandOverRequest>): void {
  const request: HandOverRequest = {
    v: 1,
    token: 1,
    asker: "asker",
    nonce: "x",
    info: { host: "new" },
    ...change,
  };
  store.write(KEY, new TextDecoder().decode(encodeHandOver(request)));
}

function askedBy(events: readonly LeaseEvent[]): string[] {
  return events.flatMap((event) => event.type === "asked" ? [event.by.holder] : []);
}

/** Reads of the request object so far. */
function looks({ store }: Bench): number {
  return store.reads.filter((key) => key === KEY).length;
}

Deno.test("a waiter asks once for the term that it sees, its holder is told once and releases to it", async () => {
  const one = await held({ handOver: ASKS });
  const { store, clock } = one;
  const two = bench({ handOver: ASKS, info: { host: "two" } }, one);
  const asker = two.holder.status.holder;
  const acquired = two.holder.acquire({ wait: true });
  await clock.advance(4_100);
  assert.deepEqual(requestIn(store)?.token, 1);
  assert.deepEqual(requestIn(store)?.asker, asker);
  assert.deepEqual(one.events.find((event) => event.type === "asked"), {
    type: "asked",
    by: { holder: asker, info: { host: "two" } },
  });
  const nonce = requestIn(store)?.nonce;
  await clock.advance(60_000);
  assert.deepEqual(askedBy(one.events), [asker], "once");
  assert.equal(requestIn(store)?.nonce, nonce, "written once");
  one.holder.assertHeld();

  await one.holder.release({ to: asker });
  assert.equal(recordIn(store).to, asker);
  await clock.advance(1_250);
  assert.equal((await acquired).token, 2);
  assert.equal((await acquired).clean, true);
  await end(one, two);
});

Deno.test("a lease released to one holder is left to it for a grace, then it is anybody's", async () => {
  for (const comes of [true, false]) {
    const made = bench();
    const { store, clock, holder } = made;
    store.write("lease.json", foreign({ state: "released", to: comes ? holder.status.holder : "dead" }));
    const acquired = holder.acquire({ wait: true });
    if (comes) assert.equal((await acquired).token, 6);
    await clock.advance(GRACE_MS - 1);
    assert.equal(store.puts.filter((text) => text.includes('"token":6')).length, comes ? 2 : 0);
    await clock.advance(1_251);
    assert.equal((await acquired).token, 6);
    await end(made);
  }
});

Deno.test("a third contender does not snatch a lease that is handed to another one", async () => {
  const one = await held({ handOver: ANSWERS });
  const { clock } = one;
  const two = bench({ handOver: ASKS }, one);
  const third = bench({ pollMs: 200 }, one);
  const acquired = two.holder.acquire({ wait: true });
  third.holder.acquire({ wait: true }).catch(() => {});
  await clock.advance(10_000);
  await one.holder.release({ to: two.holder.status.holder });
  await clock.advance(1_250);
  assert.equal((await acquired).token, 2);
  assert.equal(third.holder.status.state, "waiting");
  await end(one, two, third);
});

Deno.test("of several waiters one asks, and the others see that it did", async () => {
  const one = await held({ handOver: ANSWERS });
  const { store, clock } = one;
  let requests = 0;
  store.onPut = (key) => requests += key === KEY ? 1 : 0;
  const waiters = Array.from({ length: 4 }, () => bench({ handOver: ASKS }, one));
  for (const { holder } of waiters) {
    holder.acquire({ wait: true }).catch(() => {});
    await clock.advance(50);
  }
  await clock.advance(20_000);
  assert.equal(requests, 1);
  assert.deepEqual(askedBy(one.events), [waiters[0]?.holder.status.holder]);
  await end(one, ...waiters);
});

Deno.test("a waiter asks anew for each foreign term, instead of what was asked before", async () => {
  const made = bench({ handOver: ASKS });
  const { store, clock, holder } = made;
  writeRequest(store, { token: 4 });
  store.write("lease.json", foreign());
  holder.acquire({ wait: true }).catch(() => {});
  await clock.advance(2_000);
  assert.equal(requestIn(store)?.token, 5);
  store.write("lease.json", foreign({ token: 6 }));
  await clock.advance(2_000);
  assert.equal(requestIn(store)?.token, 6);
  await end(made);
});

Deno.test("a lease holder is not told of its own request, of another term's, or of rubbish", async () => {
  const made = await held({ handOver: ANSWERS });
  const { store, clock, holder, events } = made;
  const cases = [
    () => writeRequest(store, { asker: holder.status.holder }),
    () => writeRequest(store, { token: 2 }),
    () => store.write(KEY, "rubbish"),
    () => store.write(KEY, JSON.stringify({ v: 2, token: 1, asker: "a", nonce: "n", info: {} })),
    () => store.write(KEY, " ".repeat(1 << 20)),
    () => store.write(KEY, ""),
  ];
  for (const write of cases) {
    write();
    await clock.advance(5_000);
    holder.assertHeld();
    assert.deepEqual(news(events), ["acquired"]);
  }
  writeRequest(store, {});
  await clock.advance(2_000);
  assert.deepEqual(askedBy(events), ["asker"]);
  await end(made);
});

Deno.test("rubbish in the place of the request does not keep a waiter from asking", async () => {
  const made = bench({ handOver: ASKS });
  made.store.write(KEY, "rubbish");
  made.store.write("lease.json", foreign());
  made.holder.acquire({ wait: true }).catch(() => {});
  await made.clock.advance(1_000);
  assert.equal(requestIn(made.store)?.token, 5);
  await end(made);
});

Deno.test("lease holders that may not ask or answer never touch the request", async () => {
  for (const handOver of [undefined, { answer: false, ask: false }]) {
    const options = handOver === undefined ? {} : { handOver };
    const one = await held(options);
    const two = bench(options, one);
    writeRequest(one.store, {});
    two.holder.acquire({ wait: true }).catch(() => {});
    await one.clock.advance(30_000);
    assert.equal(looks(one), 0);
    assert.deepEqual(news(one.events), ["acquired"]);
    await end(one, two);
  }
});

Deno.test("what a lease holder may answer is read at each use", async () => {
  const handOver = { answer: false, ask: false };
  const made = await held({ handOver });
  writeRequest(made.store, {});
  await made.clock.advance(10_000);
  assert.deepEqual(news(made.events), ["acquired"]);
  handOver.answer = true;
  await made.clock.advance(4_000);
  assert.deepEqual(news(made.events), ["acquired", "asked"]);
  await end(made);
});

Deno.test("a contender that does not wait does not ask either", async () => {
  const made = bench({ handOver: ASKS });
  made.store.write("lease.json", foreign());
  await assert.rejects(made.holder.acquire({ wait: false }), /held by other/);
  await made.clock.advance(5_000);
  assert.equal(requestIn(made.store), null);
  await end(made);
});

Deno.test("a lease holder looks for requests every four seconds and after each renewal, until it was asked", async () => {
  const made = await held({ handOver: ANSWERS });
  await made.clock.advance(60_000);
  const often = looks(made);
  assert.ok(often >= 13 && often <= 24, `${often} looks in a minute`);
  writeRequest(made.store, {});
  await made.clock.advance(5_000);
  const then = looks(made);
  await made.clock.advance(60_000);
  assert.equal(looks(made), then);
  await end(made);
});

Deno.test("a request whose store fails is tried a few times and never delays the lease's own requests", async () => {
  const one = await held({ handOver: ANSWERS });
  const { store, clock } = one;
  let tries = 0;
  store.spoil = (operation, key) => {
    if (key !== KEY) return null;
    tries += operation === "put" ? 1 : 0;
    return operation === "put" ? "hang" : null;
  };
  const two = bench({ handOver: ASKS }, one);
  const acquired = two.holder.acquire({ wait: true });
  await clock.advance(300_000);
  assert.equal(tries, 6);
  one.holder.assertHeld(5_000);
  await one.holder.release();
  await clock.advance(1_250);
  assert.equal((await acquired).token, 2);
  await end(one, two);
});

Deno.test("a lost reply to a request does not make the waiter ask twice", async () => {
  const one = await held({ handOver: ANSWERS });
  let requests = 0;
  one.store.spoil = (operation, key) =>
    operation === "put" && key === KEY && requests++ === 0 ? "after" : null;
  const two = bench({ handOver: ASKS }, one);
  two.holder.acquire({ wait: true }).catch(() => {});
  await one.clock.advance(30_000);
  assert.equal(requests, 1);
  assert.deepEqual(askedBy(one.events), [two.holder.status.holder]);
  await end(one, two);
});

Deno.test("a lease holder whose term is suspended or in doubt is not asked, and is when it has it again", async () => {
  const made = await held({ handOver: ANSWERS });
  const { store, clock, events } = made;
  store.spoil = (operation, key) => key === KEY ? null : operation === "put" ? "before" : null;
  await clock.advance(12_000);
  writeRequest(store, {});
  await clock.advance(10_000);
  assert.deepEqual(news(events), ["acquired", "suspended"]);
  store.spoil = () => null;
  await clock.advance(5_000);
  assert.deepEqual(news(events), ["acquired", "suspended", "regained", "asked"]);
  await end(made);
});

Deno.test("a waiter that gives up stops asking and leaves no timer", async () => {
  const made = bench({ handOver: ASKS });
  made.store.write("lease.json", foreign());
  made.store.spoil = (_operation, key) => key === KEY ? "hang" : null;
  const cancel = new AbortController();
  const rejected = assert.rejects(made.holder.acquire({ wait: true, signal: cancel.signal }), /enough/);
  await made.clock.advance(1_000);
  cancel.abort(new Error("enough"));
  await rejected;
  await settled();
  assert.equal(made.clock.sleeping, 0);
  await end(made);
});

// The rules alone.

const SETTINGS: HandOverSettings = { holder: "me", pollMs: 1_000, info: {}, answer: true, ask: true };
const TURN = { nowMs: 0, nonce: "n" };

function waitingFor(token: number, state: HandOver = NO_HAND_OVER) {
  const event = { type: "lease", waitingFor: token, holding: null, renewed: false } as const;
  return stepHandOver(SETTINGS, state, event, TURN);
}

Deno.test("a request is a swap on what was read, so that one which lands late replaces no newer one", () => {
  const looked = waitingFor(5);
  assert.deepEqual(looked.effects, [{ type: "get" }]);
  const found = { etag: "tag-4", request: null };
  const asked = stepHandOver(SETTINGS, looked.state, { type: "read", found }, TURN);
  assert.deepEqual(asked.effects, [
    { type: "put", request: { v: 1, token: 5, asker: "me", nonce: "n", info: {} }, base: "tag-4" },
  ]);
  const refused = stepHandOver(SETTINGS, asked.state, { type: "failed" }, TURN);
  assert.deepEqual(refused.effects, []);
  const again = stepHandOver(SETTINGS, refused.state, { type: "tick" }, { ...TURN, nowMs: 1_000 });
  assert.deepEqual(again.effects, [{ type: "get" }], "looks before it asks again");
  const absent = stepHandOver(SETTINGS, again.state, { type: "read", found: null }, TURN);
  assert.equal(absent.effects[0]?.type === "put" && absent.effects[0].base, null);
  const written = stepHandOver(SETTINGS, absent.state, { type: "written" }, TURN);
  assert.deepEqual(waitingFor(5, written.state).effects, []);
  assert.deepEqual(waitingFor(6, written.state).effects, [{ type: "get" }]);
});

Deno.test("a result that comes after the task has gone changes nothing", () => {
  const { state } = waitingFor(5);
  const gone = stepHandOver(SETTINGS, state, {
    type: "lease",
    waitingFor: null,
    holding: null,
    renewed: false,
  }, TURN);
  assert.equal(gone.state.task, null);
  const late = stepHandOver(SETTINGS, gone.state, { type: "read", found: null }, TURN);
  assert.deepEqual(late.effects, []);
});

Deno.test("rubbish is noted once for each version of it", () => {
  const holding = { type: "lease", waitingFor: null, holding: 5, renewed: true } as const;
  let { state } = stepHandOver(SETTINGS, NO_HAND_OVER, holding, TURN);
  const notes: string[] = [];
  for (const etag of ["a", "a", "b"]) {
    const read = stepHandOver(SETTINGS, state, { type: "read", found: { etag, request: null } }, TURN);
    notes.push(...read.effects.map(({ type }) => type));
    state = stepHandOver(SETTINGS, read.state, holding, TURN).state;
  }
  assert.deepEqual(notes, ["note", "note"]);
});

Deno.test("hand-over request survives encoding, and what is none is refused", () => {
  const request: HandOverRequest = { v: 1, token: 5, asker: "a", nonce: "n", info: { host: "h" } };
  assert.deepEqual(decodeHandOver(encodeHandOver(request)), request);
  const wrong = [null, [], 1, {}, { ...request, v: 2 }, { ...request, token: 0 }, { ...request, asker: "" }];
  for (const value of [...wrong, { ...request, nonce: 1 }, { ...request, info: { a: 1 } }]) {
    assert.equal(decodeHandOver(new TextEncoder().encode(JSON.stringify(value))), null);
  }
  assert.equal(decodeHandOver(new Uint8Array(1 << 20)), null);
  assert.equal(decodeHandOver(new Uint8Array([0xff])), null);
});
