/** Waits that are nearly always given up before they end. */

import assert from "node:assert/strict";
import { startTimer, systemClock } from "../../src/platform/clock.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

Deno.test("startTimer acts once when its time is over, on a clock without timers of its own", async () => {
  const clock = new VirtualClock();
  let calls = 0;
  const end = startTimer(clock, 500, () => calls++);
  await clock.advance(499);
  assert.equal(calls, 0);
  await clock.advance(1_000);
  assert.equal(calls, 1);
  end();
  assert.equal(clock.sleeping, 0);
});

Deno.test("startTimer does not act any more once it was ended, and leaves no sleeper", async () => {
  const clock = new VirtualClock();
  const end = startTimer(clock, 500, () => assert.fail("it acted"));
  end();
  end();
  await clock.advance(1_000);
  assert.equal(clock.sleeping, 0);
});

Deno.test("the machine's clock acts when the time of a timer is over, and not after its end", async () => {
  const clock = systemClock();
  const acted = Promise.withResolvers<void>();
  const ended = startTimer(clock, 1, () => assert.fail("it acted"));
  ended(); // the runtime's check for leaks sees one that was left
  startTimer(clock, 100 * 24 * 3_600_000, () => assert.fail("a long one is not cut to nothing"))();
  startTimer(clock, -1, acted.resolve);
  await acted.promise;
});
