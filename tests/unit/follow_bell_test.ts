/** One loop waits, others ring. */

import assert from "node:assert/strict";
import { Bell } from "../../src/database/follow_bell.ts";

Deno.test("Bell keeps a ring that came before the wait, and many as one", async () => {
  const bell = new Bell();
  const { signal } = new AbortController();
  bell.ring();
  bell.ring();
  await bell.wait(signal);
  let isOver = false;
  const waiting = bell.wait(signal).then(() => isOver = true);
  await Promise.resolve();
  assert.equal(isOver, false);
  bell.ring();
  await waiting;
});

Deno.test("Bell ends a wait with the signal's reason, now and later, also after it has rung", async () => {
  const bell = new Bell();
  const stop = new AbortController();
  const reason = new Error("stopped");
  const ring = bell.wait(stop.signal);
  bell.ring();
  await ring;
  const waiting = bell.wait(stop.signal);
  stop.abort(reason);
  await assert.rejects(waiting, reason);
  bell.ring();
  await assert.rejects(bell.wait(stop.signal), reason);
});

Deno.test("Bell goes by the signal of the wait that is under way", async () => {
  const bell = new Bell();
  const [former, present] = [new AbortController(), new AbortController()];
  bell.ring();
  await bell.wait(former.signal);
  const waiting = bell.wait(present.signal);
  former.abort(new Error("former"));
  bell.ring();
  await waiting;
  const ended = bell.wait(present.signal);
  present.abort(new Error("present"));
  await assert.rejects(ended, /present/);
});
