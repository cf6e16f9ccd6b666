import assert from "node:assert/strict";
import { Bell } from "../../src/database/follow_bell.ts";
import { LagAccount } from "../../src/database/follow_lag.ts";
import { Pins } from "../../src/database/follow_pins.ts";
import { Places } from "../../src/database/follow_places.ts";
import { NO_COUNTS } from "../../src/database/follow_protocol.ts";
import { FollowBoard } from "../../src/database/follow_status.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { VirtualClock } from "../support/virtual_clock.ts";
import { databaseStatus } from "../support/database_status.ts";

const never = new AbortController().signal;

Deno.test("lag counts from the first change that is not durable, through capture, waiting and upload", () => {
  const lag = new LagAccount(100);
  assert.equal(lag.behindSinceMs, 100);
  lag.captureBegins();
  lag.captureEnds();
  assert.equal(lag.behindSinceMs, null);
  lag.changed(200);
  lag.changed(250);
  assert.equal(lag.behindSinceMs, 200);
  lag.captureBegins();
  lag.changed(300);
  lag.captured({ txid: 1, sizeBytes: 10 }, 310);
  lag.captureEnds();
  assert.deepEqual([lag.behindSinceMs, lag.waitingFiles, lag.waitingBytes], [200, 1, 10]);
  lag.durable(1);
  assert.deepEqual([lag.behindSinceMs, lag.waitingFiles, lag.waitingBytes], [300, 0, 0]);
});

Deno.test("lag is kept by a capture that fails or has not taken all", () => {
  const lag = new LagAccount(0);
  lag.captureBegins();
  lag.captureEnds();
  lag.changed(10);
  lag.captureBegins();
  lag.captureFailed();
  assert.equal(lag.behindSinceMs, 10);
  assert.ok(lag.hasUncaptured);
  lag.captureBegins();
  assert.ok(!lag.hasUncaptured);
  lag.captured({ txid: 4, sizeBytes: 1 }, 20);
  lag.durable(4);
  assert.equal(lag.behindSinceMs, 10, "the rest of what was seen is still to be taken");
  lag.captureEnds();
  assert.equal(lag.behindSinceMs, null);
});

Deno.test("lag counts from the begin of a capture after which nobody looks for a while, until somebody looks", () => {
  const lag = new LagAccount(0);
  lag.captureBegins();
  lag.looksLater(10);
  lag.captured({ txid: 1, sizeBytes: 1 }, 11);
  lag.captureEnds();
  assert.equal(lag.behindSinceMs, 0);
  lag.durable(1);
  assert.deepEqual([lag.behindSinceMs, lag.hasUncaptured], [10, false]);
  lag.looked(); // and it has not changed
  assert.equal(lag.behindSinceMs, null);
  lag.looksLater(20);
  lag.captureBegins(); // by somebody who asked for it
  lag.captureEnds();
  assert.equal(lag.behindSinceMs, null);
});

Deno.test("files of a child before count from where that was left", () => {
  const lag = new LagAccount(5);
  lag.found({ txid: 7, sizeBytes: 3 });
  lag.captureBegins();
  lag.captureEnds();
  assert.equal(lag.behindSinceMs, 5);
  lag.durable(7);
  assert.equal(lag.behindSinceMs, null);
});

Deno.test("pins keep what was given out until a later checkpoint is kept", () => {
  const pins = new Pins([1, 2]);
  pins.hold(5);
  pins.hold(5);
  pins.hold(7);
  assert.deepEqual(pins.all(), [1, 2, 5, 7]);
  pins.keep([2, 5]);
  assert.deepEqual(pins.all(), [2, 5, 7], "the checkpoint at 7 is still being made");
  pins.keep([2, 5, 7]);
  pins.keep([7]);
  assert.deepEqual(pins.all(), [7]);
  for (let txid = 8; txid < 100; txid++) pins.hold(txid);
  assert.ok(pins.all().length < 20 && pins.all().includes(99));
});

Deno.test("pins keep what a restore is on its way to, whatever checkpoints are kept, until something else is wanted", () => {
  const pins = new Pins([9]);
  pins.hold(12);
  pins.want([5]);
  assert.deepEqual(pins.all(), [9, 12, 5]);
  pins.want([20]);
  pins.keep([9]);
  assert.deepEqual(pins.all(), [9, 12, 20], "a checkpoint at 12 is still being made");
  pins.keep([9, 12]);
  pins.want([]);
  assert.deepEqual(pins.all(), [9, 12]);
});

Deno.test("bell wakes for a ring that came before, once, and lets go with the signal", async () => {
  const bell = new Bell();
  bell.ring();
  bell.ring();
  await bell.wait(never);
  const stop = new AbortController();
  const second = bell.wait(stop.signal);
  stop.abort(new Error("stopped"));
  await assert.rejects(second, /stopped/);
  const third = bell.wait(never);
  bell.ring();
  await third;
});

Deno.test("places are given in order, and back by disposal; who gives up leaves the row", async () => {
  const places = new Places(1);
  const first = await places.take(never);
  const order: string[] = [];
  const stop = new AbortController();
  const givenUp = places.take(stop.signal);
  const second = places.take(never).then((place) => {
    order.push("second");
    return place;
  });
  stop.abort(new Error("no more"));
  await assert.rejects(givenUp, /no more/);
  assert.deepEqual(order, []);
  first[Symbol.dispose]();
  (await second)[Symbol.dispose]();
  (await places.take(never))[Symbol.dispose]();
  assert.deepEqual(order, ["second"]);
});

Deno.test("board lets lag grow while a child is silent or dead, and keeps counts over its restarts", async () => {
  const clock = new VirtualClock();
  const board = new FollowBoard(clock);
  const status = databaseStatus("a");
  const lag = () => board.status("following", 1).databases[0]?.lagMs;
  board.childStarted();
  board.heard();
  board.update([status], []);
  await clock.advance(5_000);
  assert.equal(lag(), 0, "its next word may be on its way");
  await clock.advance(5_000);
  assert.equal(lag(), 10_000, "nobody knows since its last word");
  board.heard();
  assert.equal(lag(), 0);
  await clock.advance(1_000);
  board.childEnded(new StateManagerError("internal", "it died"));
  await clock.advance(1_000);
  assert.equal(lag(), 2_000);
  assert.deepEqual(board.behind(), { a: clock.monotonicMs() - 2_000 });
  board.childStarted();
  board.heard();
  board.update([{ ...status, counts: { ...NO_COUNTS, syncs: 2 } }], []);
  const { databases, restarts } = board.status("following", 2);
  assert.deepEqual([databases[0]?.lagMs, databases[0]?.counts.syncs, restarts], [0, 5, 1]);
  board.update([], ["a"]);
  assert.deepEqual(board.status("following", 2).databases, []);
});
