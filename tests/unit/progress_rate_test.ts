import assert from "node:assert/strict";
import { ProgressRate } from "../../src/checkpoint/progress_rate.ts";

const at = (bytes: number, totalBytes: number | null = 1000) =>
  ({ phase: "read", bytes, totalBytes }) as const;

Deno.test("progress has a rate and a time left once a second has passed, of the last ten", () => {
  const rate = new ProgressRate();
  assert.deepEqual(rate.next(at(0), 0), { bytesPerSecond: null, secondsLeft: null });
  assert.deepEqual(rate.next(at(50), 500), { bytesPerSecond: null, secondsLeft: null });
  assert.deepEqual(rate.next(at(100), 1000), { bytesPerSecond: 100, secondsLeft: 9 });
  // Ten seconds on nothing of the fast beginning is left.
  for (let second = 2; second <= 12; second++) rate.next(at(100 + second), second * 1000);
  assert.deepEqual(rate.next(at(113), 13_000), { bytesPerSecond: 1, secondsLeft: 887 });
});

Deno.test("progress with no total or no movement has no time left, and a new phase begins anew", () => {
  const rate = new ProgressRate();
  rate.next(at(0, null), 0);
  assert.deepEqual(rate.next(at(100, null), 1000), { bytesPerSecond: 100, secondsLeft: null });
  rate.next({ phase: "upload", bytes: 5, totalBytes: 10 }, 2000);
  assert.deepEqual(rate.next({ phase: "upload", bytes: 5, totalBytes: 10 }, 4000), {
    bytesPerSecond: 0,
    secondsLeft: null,
  });
  assert.equal(rate.next({ phase: "upload", bytes: 15, totalBytes: 10 }, 6000).secondsLeft, 0);
});
