/** The lease holder against a store in memory and a clock that the test moves. */

import assert from "node:assert/strict";
import { fixedLease, type LeaseEvent, LeaseHolder } from "../../src/lease/mod.ts";
import { isError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import {
  BELIEF_MS,
  bench,
  code,
  end,
  foreign,
  held,
  news,
  recordIn,
  TAKE_OVER_MS,
  TTL_MS,
} from "../support/lease_bench.ts";
import { settled } from "../support/virtual_clock.ts";

Deno.test("lease holder takes an absent lease at once, above the highest token in the data", async () => {
  const made = await held({ tokenFloor: 41 });
  const { holder, store, events } = made;
  assert.equal(holder.term?.token, 42);
  assert.equal(holder.term?.previous, null);
  assert.equal(holder.term?.clean, true);
  assert.equal(recordIn(store).token, 42);
  assert.equal(recordIn(store).state, "held");
  assert.deepEqual(news(events), ["acquired"]);
  assert.equal(holder.status.state, "held");
  assert.equal(holder.status.remainingMs, BELIEF_MS);
  holder.assertHeld(BELIEF_MS);
  assert.throws(() => holder.assertHeld(BELIEF_MS + 1), code("lease-not-held"));
  await end(made);
});

Deno.test("lease holder takes a released lease at once and knows whose it was", async () => {
  const made = bench();
  made.store.write("lease.json", foreign({ state: "released", token: 8 }));
  const term = await made.holder.acquire({ wait: false });
  assert.equal(term.token, 9);
  assert.equal(term.clean, true);
  assert.equal(term.previous?.holder, "other");
  await end(made);
});

Deno.test("lease holder that must not wait gives up at once, and at its time when it may wait a while", async () => {
  const made = bench();
  made.store.write("lease.json", foreign());
  await assert.rejects(made.holder.acquire({ wait: false }), code("lease-held-elsewhere"));
  const waiting = made.holder.acquire({ wait: 3_000 });
  const rejected = assert.rejects(waiting, /held by other, host elsewhere/);
  await made.clock.advance(2_999);
  assert.equal(made.holder.status.state, "waiting");
  assert.deepEqual(made.holder.status.heldBy, { holder: "other", token: 5, info: { host: "elsewhere" } });
  await made.clock.advance(1);
  await rejected;
  assert.equal(made.holder.status.state, "idle");
  assert.equal(made.store.puts.length, 0);
  await end(made);
});

Deno.test("lease holder takes over when one tag stood unchanged for TTL (1 + 2ρ), never before", async () => {
  const made = bench();
  made.store.write("lease.json", foreign());
  const waiting = made.holder.acquire({ wait: true });
  await made.clock.advance(10_000);
  made.store.write("lease.json", foreign()); // renewed: the wait starts again at the next look
  await made.clock.advance(TAKE_OVER_MS - 1);
  assert.equal(made.store.puts.length, 0);
  await made.clock.advance(1_251); // at most one poll later
  const term = await waiting;
  assert.equal(term.token, 6);
  assert.equal(term.clean, false);
  assert.deepEqual(news(made.events), ["waiting", "acquired"]);
  await end(made);
});

Deno.test("lease holder renews with a new nonce each time and stays held", async () => {
  const made = await held();
  await made.clock.advance(60_000);
  assert.equal(made.holder.status.state, "held");
  assert.equal(made.store.puts.length, 16);
  assert.equal(new Set(made.store.puts).size, 16);
  assert.equal(recordIn(made.store).token, 1);
  assert.deepEqual(news(made.events), ["acquired"]);
  await end(made);
});

Deno.test("lease holder resends the same bytes after an unknown outcome, and counts from the first send", async () => {
  const made = await held();
  let failures = 2;
  made.store.spoil = (operation) => operation === "put" && failures-- > 0 ? "before" : null;
  await made.clock.advance(4_000); // the renewal's first send
  await made.clock.advance(3_000);
  const [, first, second, third, ...more] = made.store.puts;
  assert.equal(first, second);
  assert.equal(first, third);
  assert.deepEqual(more, []);
  assert.equal(made.holder.status.remainingMs, BELIEF_MS - 3_000);
  await end(made);
});

Deno.test("lease holder finds its own write behind a lost reply and behind a refusal", async () => {
  for (const spoil of ["after", "hang-after", "outcome-unknown"] as const) {
    const made = await held();
    let spoiled = false;
    made.store.spoil = (operation) => {
      if (operation !== "put" || spoiled) return null;
      spoiled = true;
      return spoil;
    };
    await made.clock.advance(9_000);
    assert.equal(made.holder.status.state, "held", spoil);
    assert.ok((made.holder.status.remainingMs ?? 0) > BELIEF_MS - 5_000, spoil);
    assert.deepEqual(news(made.events), ["acquired"], spoil);
    await end(made);
  }
});

Deno.test("lease holder is suspended at its deadline and regains the same term when the store is back", async () => {
  const made = await held();
  const { holder, store, clock, events } = made;
  store.spoil = () => "before";
  await clock.advance(BELIEF_MS - 1);
  holder.assertHeld();
  await clock.advance(1);
  assert.throws(() => holder.assertHeld(), code("lease-not-held"));
  assert.equal(holder.status.state, "suspended");
  assert.equal(holder.term?.token, 1);
  assert.equal(holder.signal.aborted, false);
  await clock.advance(100_000);
  store.spoil = () => null;
  await clock.advance(3_000);
  holder.assertHeld(5_000);
  assert.deepEqual(news(events), ["acquired", "suspended", "regained"]);
  assert.equal(recordIn(store).token, 1);
  await end(made);
});

Deno.test("lease holder loses its term at once when the record is another's or gone", async () => {
  for (const text of [foreign({ token: 2 }), null, "damaged", JSON.stringify({ v: 9 })]) {
    const made = await held();
    const { holder, store, clock, events } = made;
    const { signal } = holder;
    if (text === null) store.objects.clear();
    else store.write("lease.json", text);
    await clock.advance(4_000);
    assert.deepEqual(news(events), ["acquired", "lost"]);
    assert.equal(signal.aborted, true);
    assert.ok(isError(signal.reason, "lease-lost"));
    assert.throws(() => holder.assertHeld(), code("lease-lost"));
    assert.equal(holder.status.state, "lost");
    assert.equal(holder.term, null);
    assert.equal(store.text("lease.json"), text, "what is there stays");
    await end(made);
  }
});

Deno.test("lease holder in a stopped process holds nothing when it runs again, before any timer has fired", async () => {
  const made = await held();
  const { holder, clock, store, events } = made;
  clock.jump(BELIEF_MS);
  assert.throws(() => holder.assertHeld(), code("lease-not-held"));
  assert.equal(holder.status.state, "suspended");
  assert.equal(holder.status.remainingMs, 0);
  store.write("lease.json", foreign({ token: 2 }));
  await clock.advance(0);
  assert.deepEqual(news(events), ["acquired", "suspended", "lost"]);
  await end(made);
});

Deno.test("lease holder does not care for a wall clock that goes back", async () => {
  const made = await held();
  for (const hours of [-48, -1, -5]) {
    made.clock.stepWall(hours * 3_600_000);
    made.holder.assertHeld(5_000);
    await made.clock.advance(5_000);
  }
  assert.deepEqual(news(made.events), ["acquired"]);
  assert.equal(made.store.puts.length, 4, "the claim and a renewal each 4 s");
  await end(made);
});

Deno.test("lease holder releases by a swap that keeps the token, and can begin the next term", async () => {
  const made = await held();
  const { holder, store, events } = made;
  const released = holder.release();
  assert.throws(() => holder.assertHeld(), code("lease-not-held"));
  assert.equal(holder.status.state, "releasing");
  await released;
  await holder.release();
  assert.equal(recordIn(store).state, "released");
  assert.equal(recordIn(store).token, 1);
  assert.equal(holder.status.state, "released");
  assert.equal(holder.signal.aborted, false);
  assert.equal((await holder.acquire({ wait: false })).token, 2);
  assert.deepEqual(news(events), ["acquired", "released", "acquired"]);
  await end(made);
});

Deno.test("lease holder releases after a renewal under way, and behind a lost reply", async () => {
  const made = await held();
  const { holder, store, clock } = made;
  let puts = 0;
  store.spoil = (operation) => operation === "put" && puts++ < 2 ? "hang-after" : null;
  await clock.advance(4_000);
  const released = holder.release();
  await clock.advance(6_000);
  await released;
  assert.equal(recordIn(store).state, "released");
  assert.equal(store.puts.length, 3);
  await end(made);
});

Deno.test("lease holder whose release landed unheard does not call the next holder's term a loss", async () => {
  const made = await held();
  const { holder, store, clock, events } = made;
  store.spoil = (operation) => operation === "put" ? "hang-after" : null;
  const released = holder.release();
  await settled();
  store.write("lease.json", foreign({ token: 2 }));
  await clock.advance(2_500);
  await released;
  assert.deepEqual(news(events), ["acquired", "released"]);
  await end(made);
});

Deno.test("lease holder's release gives up at its time when the store does not answer", async () => {
  const made = await held();
  made.store.spoil = () => "hang";
  const rejected = assert.rejects(made.holder.release({ timeoutMs: 900 }), code("timeout"));
  await made.clock.advance(900);
  await rejected;
  assert.equal(made.holder.status.state, "idle");
  await end(made);
});

Deno.test("lease holder that is cancelled while it waits leaves nothing behind", async () => {
  const made = bench();
  made.store.write("lease.json", foreign());
  const cancel = new AbortController();
  const rejected = assert.rejects(made.holder.acquire({ wait: true, signal: cancel.signal }), /enough/);
  await made.clock.advance(5_000);
  cancel.abort(new Error("enough"));
  await rejected;
  assert.equal(made.clock.sleeping, 0);
  assert.equal(made.store.puts.length, 0);
  await end(made);
});

Deno.test("lease holder that is cancelled with a claim under way releases it if it landed", async () => {
  const made = bench();
  const { store, holder, clock } = made;
  let puts = 0;
  store.spoil = (operation) => operation === "put" && puts++ === 0 ? "hang-after" : null;
  const cancel = new AbortController();
  const rejected = assert.rejects(holder.acquire({ wait: true, signal: cancel.signal }), /enough/);
  await settled();
  cancel.abort(new Error("enough"));
  await rejected;
  await clock.advance(2_500);
  assert.equal(recordIn(store).state, "released");
  assert.equal(recordIn(store).token, 1);
  assert.deepEqual(made.events, []);
  assert.equal((await holder.acquire({ wait: false })).token, 2);
  await end(made);
});

Deno.test("lease holder that is cancelled with a claim that stays unknown gives up within a deadline", async () => {
  const made = bench();
  const { store, holder, clock } = made;
  store.spoil = (operation) => operation === "put" ? "hang" : null;
  const cancel = new AbortController();
  const rejected = assert.rejects(holder.acquire({ wait: true, signal: cancel.signal }), /enough/);
  await settled();
  store.spoil = () => "hang";
  cancel.abort(new Error("enough"));
  await rejected;
  assert.equal(holder.status.state, "releasing");
  await clock.advance(10_000);
  assert.equal(holder.status.state, "idle");
  assert.equal(clock.sleeping, 0);
  await end(made);
});

Deno.test("lease holder whose claim is confirmed too late renews it before anybody hears of the term", async () => {
  const made = bench();
  const { store, holder, clock, events } = made;
  let puts = 0;
  store.spoil = (operation) => operation === "put" && puts++ === 0 ? "hang-after" : null;
  const acquired = holder.acquire({ wait: true });
  await settled();
  clock.jump(BELIEF_MS + 500);
  await clock.advance(0);
  assert.equal((await acquired).token, 1);
  assert.equal(store.puts.length, 2);
  assert.equal(holder.status.remainingMs, BELIEF_MS);
  assert.deepEqual(news(events), ["acquired"]);
  await end(made);
});

Deno.test("lease holder waits for the old holder's time when the record vanishes under its eyes", async () => {
  const made = bench();
  made.store.write("lease.json", foreign());
  const acquired = made.holder.acquire({ wait: true });
  await made.clock.advance(2_000);
  made.store.objects.clear();
  await made.clock.advance(TAKE_OVER_MS - 1);
  assert.equal(made.store.puts.length, 0);
  await made.clock.advance(2_000);
  assert.equal((await acquired).token, 6, "above every token seen");
  await end(made);
});

Deno.test("lease holder never overwrites a record that it does not understand", async () => {
  const cases = [["damaged", "data-damaged"], [JSON.stringify({ v: 2 }), "format-too-new"]] as const;
  for (const [text, wanted] of cases) {
    const made = bench();
    made.store.write("lease.json", text);
    await assert.rejects(made.holder.acquire({ wait: true }), code(wanted));
    assert.equal(made.store.puts.length, 0);
    await end(made);
  }
});

Deno.test("lease holder says what is wrong with a store that refuses or does not answer", async () => {
  const refused = bench();
  refused.store.spoil = () => "store-access-denied";
  await assert.rejects(refused.holder.acquire({ wait: true }), code("store-access-denied"));
  await end(refused);

  const readOnly = bench();
  readOnly.store.spoil = (operation) => operation === "put" ? "store-access-denied" : null;
  const denied = assert.rejects(readOnly.holder.acquire({ wait: true }), code("store-access-denied"));
  await readOnly.clock.advance(10_000);
  await denied;
  await end(readOnly);

  for (const wait of [false, 20_000]) {
    const silent = bench();
    silent.store.spoil = () => "hang";
    const rejected = assert.rejects(silent.holder.acquire({ wait }), code("store-unreachable"));
    await silent.clock.advance(20_000);
    await rejected;
    await end(silent);
  }
});

Deno.test("lease holder keeps waiting through an outage of the store", async () => {
  const made = bench();
  made.store.write("lease.json", foreign());
  const acquired = made.holder.acquire({ wait: true });
  await made.clock.advance(1_000);
  made.store.spoil = () => "store-access-denied";
  await made.clock.advance(60_000);
  assert.equal(made.holder.status.state, "waiting");
  assert.ok(made.holder.status.lastError?.includes("spoiled"));
  made.store.spoil = () => null;
  await made.clock.advance(3_000);
  assert.equal((await acquired).token, 6);
  await end(made);
});

Deno.test("two lease holders on one store are never held together and hand over on release", async () => {
  const one = await held();
  const events: LeaseEvent[] = [];
  const two = new LeaseHolder({
    store: one.store,
    clock: one.clock,
    random: systemRandom(),
    ttlMs: TTL_MS,
    renewMs: 4_000,
    info: {},
    onEvent: (event) => events.push(event),
  });
  const acquired = two.acquire({ wait: true });
  await one.clock.advance(120_000);
  assert.equal(two.status.state, "waiting");
  assert.equal(two.status.heldBy?.info["host"], "test");
  await one.holder.release();
  await one.clock.advance(1_250);
  assert.equal((await acquired).token, 2);
  assert.equal((await acquired).previous?.state, "released");
  await end({ ...one, holder: two });
  await end(one);
});

Deno.test("lease holder refuses times that leave no room for a renewal", () => {
  assert.throws(() => bench({ renewMs: 11_000 }), code("config-invalid"));
  assert.throws(() => bench({ ttlMs: 0 }), code("config-invalid"));
  assert.throws(() => bench({ ttlMs: 25 * 3_600_000 }), code("config-invalid"));
});

Deno.test("lease holder refuses a second acquire while one is under way or held", async () => {
  const made = await held();
  await assert.rejects(made.holder.acquire({ wait: true }), code("wrong-state"));
  await end(made);
});

Deno.test("fixed lease gives growing tokens and writes nothing", async () => {
  const events: LeaseEvent[] = [];
  const lease = fixedLease({
    highestToken: 3,
    random: systemRandom(),
    onEvent: (event) => events.push(event),
  });
  assert.throws(() => lease.assertHeld(), code("lease-not-held"));
  assert.equal((await lease.acquire({ wait: true })).token, 4);
  lease.assertHeld(1e9);
  assert.equal(lease.signal.aborted, false);
  await lease.release();
  assert.equal(lease.term, null);
  assert.equal((await lease.acquire({ wait: true })).token, 5);
  await lease[Symbol.asyncDispose]();
  assert.deepEqual(news(events), ["acquired", "released", "acquired", "released"]);
});
