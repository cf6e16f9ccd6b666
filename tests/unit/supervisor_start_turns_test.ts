import assert from "node:assert/strict";
import { StartTurns } from "../../src/supervisor/start_turns.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

/** Each start takes 4 ms, by a clock that goes on besides. */
function scene() {
  const inner = new VirtualClock();
  let busyMs = 0;
  const clock = {
    wallMs: () => inner.wallMs(),
    monotonicMs: () => inner.monotonicMs() + busyMs,
    sleep: (ms: number, options?: { signal?: AbortSignal }) => inner.sleep(ms, options),
  };
  let waiting = 0;
  let started = 0;
  const turns: StartTurns = new StartTurns(clock, () => look());
  const look = () => {
    while (waiting > 0 && !turns.isPause) {
      turns.take(() => {
        busyMs += 4;
        waiting--;
        started++;
        return true;
      });
    }
  };
  const want = () => {
    waiting++;
    look();
  };
  return { inner, turns, want, started: () => started };
}

Deno.test("StartTurns lets others have their turn however many looks the starts come from, and forgets none", async () => {
  const { inner, turns, want, started } = scene();
  for (let n = 0; n < 10; n++) want(); // as timers that are due together do, each with a look of its own
  assert.deepEqual([started(), turns.isPause], [3, true]);
  await inner.advance(4);
  assert.equal(started(), 3);
  await inner.advance(1);
  assert.equal(started(), 6);
  await inner.advance(10);
  assert.deepEqual([started(), turns.isPause], [10, false]);
  assert.equal(inner.sleeping, 0);
});

Deno.test("StartTurns counts no start that came long before, nor what was none", async () => {
  const { inner, turns, want, started } = scene();
  for (let n = 0; n < 10; n++) {
    want();
    await inner.advance(5);
  }
  assert.deepEqual([started(), turns.isPause, inner.sleeping], [10, false, 0]);
  for (let n = 0; n < 100; n++) assert.equal(turns.take(() => false), false);
  assert.equal(turns.isPause, false);
});

Deno.test("StartTurns that is stopped in a pause leaves no timer and calls nobody", async () => {
  const { inner, turns, want, started } = scene();
  for (let n = 0; n < 10; n++) want();
  turns.stop();
  await inner.advance(100);
  assert.deepEqual([started(), turns.isPause, inner.sleeping], [3, true, 0]);
});
