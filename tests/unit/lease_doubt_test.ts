/** The deadlines that the lease holder tells, and its doubt after the wall clock jumped ahead. */

import assert from "node:assert/strict";
import type { LeaseEvent } from "../../src/lease/mod.ts";
import { BELIEF_MS, bench, code, end, foreign, held, news } from "../support/lease_bench.ts";
import { settled } from "../support/virtual_clock.ts";

const HOUR_MS = 3_600_000;
/** From fencing to the guard's kill: half of the default margin. */
const KILL_AFTER_MS = 1_500;

function renewal(sentMs: number): LeaseEvent {
  const fenceAtMs = sentMs + BELIEF_MS;
  return { type: "renewed", fenceAtMs, killAtMs: fenceAtMs + KILL_AFTER_MS };
}

Deno.test("lease holder tells the deadlines of a term at once and with each renewal, from the first send", async () => {
  const made = await held();
  const { clock, store, events } = made;
  const beganMs = clock.monotonicMs();
  assert.deepEqual(events.map(({ type }) => type), ["acquired", "renewed"]);
  assert.deepEqual(events[1], renewal(beganMs));
  await clock.advance(4_000);
  assert.deepEqual(events[2], renewal(beganMs + 4_000));
  let failures = 2;
  store.spoil = (operation) => operation === "put" && failures-- > 0 ? "before" : null;
  await clock.advance(7_000); // resent, landed: still from the first send
  assert.deepEqual(events[3], renewal(beganMs + 8_000));
  await end(made);
});

Deno.test("lease holder tells new deadlines after it regained the term, and none for a release", async () => {
  const made = await held();
  const { clock, store, events, holder } = made;
  store.spoil = () => "before";
  await clock.advance(20_000);
  store.spoil = () => null;
  await clock.advance(3_000);
  await holder.release();
  const types = events.map(({ type }) => type);
  assert.deepEqual(types, ["acquired", "renewed", "suspended", "regained", "renewed", "released"]);
  await end(made);
});

Deno.test("lease holder proves its term by a new write at once when the wall clock jumped ahead", async () => {
  const made = await held();
  const { clock, store, holder, events } = made;
  clock.stepWall(HOUR_MS);
  assert.throws(() => holder.assertHeld(), code("lease-not-held"));
  assert.throws(() => holder.assertHeld(), /wall clock jumped ahead/);
  await holder.confirmHeld(BELIEF_MS);
  holder.assertHeld(BELIEF_MS);
  assert.equal(store.puts.length, 2);
  await clock.advance(60_000);
  holder.assertHeld();
  assert.deepEqual(news(events), ["acquired"], "nobody was told to freeze anything");
  await end(made);
});

Deno.test("lease holder notices the jump in confirmHeld and by itself, with nobody asking", async () => {
  const made = await held();
  const { clock, store, holder } = made;
  clock.stepWall(HOUR_MS);
  const confirmed = holder.confirmHeld();
  assert.throws(() => holder.assertHeld(), code("lease-not-held"));
  await confirmed;
  clock.stepWall(HOUR_MS);
  await clock.advance(4_000);
  assert.equal(store.puts.length, 3, "claim, proof, and the next renewal, which is a proof too");
  holder.assertHeld();
  await end(made);
});

Deno.test("lease holder lets a wall clock drift and take small steps", async () => {
  const made = await held();
  const { clock, store, holder, events } = made;
  for (let seconds = 0; seconds < 60; seconds += 4) {
    clock.stepWall(1_900);
    holder.assertHeld();
    await clock.advance(4_000);
  }
  assert.equal(store.puts.length, 16, "renewals only");
  assert.deepEqual(news(events), ["acquired"]);
  await end(made);
});

Deno.test("lease holder adds up small steps of the wall clock while no renewal lands", async () => {
  const made = await held();
  const { clock, store, holder } = made;
  store.spoil = () => "before";
  clock.stepWall(1_500);
  await clock.advance(5_000);
  holder.assertHeld();
  clock.stepWall(1_500);
  assert.throws(() => holder.assertHeld(), code("lease-not-held"));
  await end(made);
});

Deno.test("lease holder in doubt waits for the store, and no longer than its term lasts", async () => {
  const made = await held();
  const { clock, store, holder, events } = made;
  store.spoil = () => "before";
  clock.stepWall(HOUR_MS);
  let confirmed = false;
  const waiting = holder.confirmHeld().then(() => confirmed = true);
  await clock.advance(5_000);
  assert.equal(confirmed, false);
  assert.deepEqual(news(events), ["acquired"]);
  store.spoil = () => null;
  await clock.advance(2_000);
  await waiting;
  holder.assertHeld();

  store.spoil = () => "before";
  clock.stepWall(HOUR_MS);
  const rejected = assert.rejects(holder.confirmHeld(), code("lease-not-held"));
  await clock.advance(BELIEF_MS);
  await rejected;
  assert.deepEqual(news(events), ["acquired", "suspended"]);
  await end(made);
});

Deno.test("lease holder in doubt takes no reading of an older write as a proof, nor does it move a deadline", async () => {
  const made = await held();
  const { clock, store, holder, events } = made;
  store.spoil = (operation) => operation === "put" ? "before" : null;
  clock.stepWall(HOUR_MS);
  await clock.advance(3_000); // our claim stands there, read again and again
  assert.throws(() => holder.assertHeld(), code("lease-not-held"));
  store.spoil = () => null;
  await clock.advance(1_300);
  holder.assertHeld();

  // A renewal on its way when the clock jumps: that it landed says nothing about now.
  const told = events.length;
  store.spoil = (operation) => operation === "put" ? "hang-after" : null;
  const sent = store.puts.length;
  await clock.advance(4_000);
  assert.equal(store.puts.length, sent + 1);
  clock.stepWall(HOUR_MS);
  assert.throws(() => holder.assertHeld(), code("lease-not-held"));
  await clock.advance(2_500); // read back: landed, in doubt, so that a new one leaves
  assert.equal(store.puts.length, sent + 2);
  assert.throws(() => holder.assertHeld(), code("lease-not-held"));
  assert.equal(events.length, told, "the doubted one told no deadline");
  store.spoil = () => null;
  await clock.advance(2_500);
  holder.assertHeld();
  await end(made);
});

Deno.test("lease holder in doubt loses the term when another has it", async () => {
  const made = await held();
  const { clock, store, holder, events } = made;
  store.write("lease.json", foreign({ token: 2 }));
  clock.stepWall(HOUR_MS);
  await assert.rejects(holder.confirmHeld(), code("lease-lost"));
  assert.throws(() => holder.assertHeld(), code("lease-lost"));
  assert.deepEqual(news(events), ["acquired", "lost"]);
  await end(made);
});

Deno.test("lease holder whose claim was under way when the wall clock jumped renews it before it tells", async () => {
  const made = bench();
  const { clock, store, holder, events } = made;
  let puts = 0;
  store.spoil = (operation) => operation === "put" && puts++ === 0 ? "hang-after" : null;
  const acquired = holder.acquire({ wait: true });
  await settled();
  clock.stepWall(HOUR_MS);
  await clock.advance(2_500);
  await acquired;
  assert.equal(store.puts.length, 2);
  assert.equal(holder.status.remainingMs, BELIEF_MS);
  assert.deepEqual(news(events), ["acquired"]);
  await end(made);
});

Deno.test("lease holder that waits does not care for the wall clock", async () => {
  const made = bench();
  made.store.write("lease.json", foreign());
  const acquired = made.holder.acquire({ wait: true });
  await made.clock.advance(5_000);
  made.clock.stepWall(HOUR_MS);
  await made.clock.advance(10_500);
  assert.equal(made.store.puts.length, 0, "not a moment earlier");
  await made.clock.advance(1_500);
  assert.equal((await acquired).token, 6);
  await end(made);
});

Deno.test("lease holder in doubt can release, and confirmHeld of one that holds nothing rejects", async () => {
  const made = await held();
  made.clock.stepWall(HOUR_MS);
  await made.holder.release();
  await assert.rejects(made.holder.confirmHeld(), code("lease-not-held"));
  assert.deepEqual(news(made.events), ["acquired", "released"]);
  await end(made);
});
