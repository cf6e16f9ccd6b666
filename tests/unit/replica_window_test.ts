/** The time in which anything may be sent. */

import assert from "node:assert/strict";
import { SendWindow } from "../../src/database/replica_window.ts";
import { isError } from "../../src/platform/errors.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const never = new AbortController().signal;
const notHeld = (error: unknown) => isError(error, "lease-not-held");

Deno.test("SendWindow sends nothing while it is closed", async () => {
  const clock = new VirtualClock();
  const window = new SendWindow(clock, null);
  const send = () => assert.fail("it was sent");
  await assert.rejects(window.within(never, send), notHeld);
  window.renew(clock.monotonicMs());
  await assert.rejects(window.within(never, send), notHeld);
});

Deno.test("SendWindow ends a request when it closes, at the last deadline that it was told", async () => {
  const clock = new VirtualClock();
  const window = new SendWindow(clock, clock.monotonicMs() + 1_000);
  let endedMs = 0;
  const request = window.within(never, async (signal) => {
    try {
      await clock.sleep(60_000, { signal });
    } finally {
      endedMs = clock.monotonicMs();
    }
  });
  const ended = assert.rejects(request, notHeld);
  const startMs = clock.monotonicMs();
  await clock.advance(500);
  window.renew(clock.monotonicMs() + 2_000);
  await clock.advance(5_000);
  await ended;
  assert.equal(endedMs - startMs, 2_500);
  assert.equal(clock.sleeping, 0);
});

Deno.test("SendWindow ends a request when the lease is gone, and with the caller's signal", async () => {
  const clock = new VirtualClock();
  const window = new SendWindow(clock, clock.monotonicMs() + 1e6);
  const lost = assert.rejects(window.within(never, (signal) => clock.sleep(1e5, { signal })), notHeld);
  window.renew(null);
  await lost;
  window.renew(clock.monotonicMs() + 1e6);
  const controller = new AbortController();
  const reason = new Error("enough");
  const stopped = assert.rejects(
    window.within(controller.signal, (signal) => clock.sleep(1e5, { signal })),
    reason,
  );
  controller.abort(reason);
  await stopped;
  await clock.advance(0);
  assert.equal(clock.sleeping, 0);
});
