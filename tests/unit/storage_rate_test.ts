import assert from "node:assert/strict";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { RateLimit, rateLimited } from "../../src/storage/rate_limit.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const bytes = (length: number) => new Uint8Array(length);

Deno.test("rate limit lets the first transfer go at once and each next one when those before had their time", async () => {
  const clock = new VirtualClock();
  const limit = new RateLimit(1000, clock);
  const begin = clock.monotonicMs();
  const at: number[] = [];
  for (const size of [500, 2000, 100, 1]) {
    void limit.take(size).then(() => at.push(clock.monotonicMs() - begin));
  }
  await clock.advance(10_000);
  assert.deepEqual(at, [0, 500, 2500, 2600]);
  // Idle time is not saved up: afterwards it is one transfer at once, and then the rate again.
  const again: number[] = [];
  const later = clock.monotonicMs();
  for (const size of [1000, 1000, 1000]) {
    void limit.take(size).then(() => again.push(clock.monotonicMs() - later));
  }
  await clock.advance(10_000);
  assert.deepEqual(again, [0, 1000, 2000]);
});

Deno.test("rate limit holds its rate over many transfers of every size", async () => {
  const clock = new VirtualClock();
  const limit = new RateLimit(10_000, clock);
  const begin = clock.monotonicMs();
  let sent = 0;
  for (let n = 0; n < 100; n++) {
    void limit.take(n * 37 % 5000).then(() => {
      sent += n * 37 % 5000;
    });
  }
  while (clock.sleeping > 0) {
    await clock.advance(1000);
    const seconds = (clock.monotonicMs() - begin) / 1000;
    assert.ok(sent <= 10_000 * seconds + 5000, `${sent} bytes in ${seconds} s`);
  }
});

Deno.test("rate limited store waits before a put and after a get, and a cancelled wait ends at once", async () => {
  const clock = new VirtualClock();
  const base = memoryStore();
  const rates = { upload: new RateLimit(100, clock), download: new RateLimit(1000, clock) };
  const store = rateLimited(base, rates);
  await store.put("a", bytes(1000));
  let done = false;
  void store.put("b", bytes(10)).then(() => done = true);
  await clock.advance(9_999);
  assert.equal(done, false);
  await assert.rejects(base.head("b"));
  await clock.advance(1);
  assert.equal(done, true);
  assert.equal((await store.get("a")).body.length, 1000);
  const abort = new AbortController();
  const got = store.get("b", { signal: abort.signal });
  await clock.advance(0);
  abort.abort(new Error("enough"));
  await assert.rejects(got, /enough/);
  assert.equal(clock.sleeping, 0);
  await store.close();
});

Deno.test("rate limited store spaces the pieces of a large put", async () => {
  const clock = new VirtualClock();
  const store = rateLimited(memoryStore(), { upload: new RateLimit(100, clock) });
  async function* pieces() {
    for (let n = 0; n < 5; n++) yield await Promise.resolve(bytes(100));
  }
  let done = false;
  void store.putLarge("large", pieces(), { sizeBytes: 500 }).then(() => done = true);
  await clock.advance(3_999);
  assert.equal(done, false);
  await clock.advance(1);
  assert.equal(done, true);
  assert.equal((await store.get("large")).sizeBytes, 500);
});
