import assert from "node:assert/strict";
import type { LongWork } from "../../src/manager/control.ts";
import { checkpointResult } from "../support/fake_control.ts";
import { testApp } from "../support/test_app.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

/** A checkpoint that the test moves on by hand. */
function steered() {
  const begun = Promise.withResolvers<LongWork>();
  const end = Promise.withResolvers<void>();
  return {
    begun: begun.promise,
    end: end.resolve,
    checkpoint: async (_request: unknown, work?: LongWork) => {
      begun.resolve(work ?? {});
      await end.promise;
      return checkpointResult();
    },
  };
}

const lines = { method: "POST", headers: { accept: "application/x-ndjson" } };

Deno.test("a body that does not arrive in time is given up", async () => {
  const clock = new VirtualClock();
  const app = testApp({}, clock);
  const body = new ReadableStream({
    start: (controller) => controller.enqueue(new TextEncoder().encode('{"com')),
  });
  const asked = app.ask("/checkpoint", { body, headers: { "content-type": "application/json" } });
  await clock.advance(19_000);
  assert.equal(clock.sleeping, 1);
  await clock.advance(2_000);
  const response = await asked;
  assert.equal(response.status, 504);
  assert.equal((await response.json()).code, "timeout");
  assert.equal(clock.sleeping, 0);
});

Deno.test("a quiet stream has a heartbeat each 15 s and leaves no timer behind", async () => {
  const clock = new VirtualClock();
  const work = steered();
  const app = testApp({ checkpoint: work.checkpoint }, clock);
  const asked = app.ask("/checkpoint", lines);
  await work.begun;
  await clock.advance(300);
  const response = await asked;
  await clock.advance(46_000);
  work.end();
  const events = (await response.text()).trimEnd().split("\n").map((line) => JSON.parse(line).type);
  assert.deepEqual(events, ["heartbeat", "heartbeat", "heartbeat", "complete"]);
  assert.equal(clock.sleeping, 0);
  assert.equal(app.streams.size, 0);
});

Deno.test("a reader that stopped reading loses progress, never the end, and holds a bounded buffer", async () => {
  const work = steered();
  const app = testApp({ checkpoint: work.checkpoint });
  const asked = app.ask("/checkpoint", lines);
  const { onProgress } = await work.begun;
  const progress = { phase: "read", entries: 1, bytes: 1, totalBytes: null } as const;
  onProgress?.(progress);
  const response = await asked;
  for (let i = 0; i < 10_000; i++) onProgress?.(progress);
  work.end();
  await new Promise((resolve) => setTimeout(resolve, 0));
  const events = (await response.text()).trimEnd().split("\n").map((line) => JSON.parse(line).type);
  assert.ok(events.length <= 66, `${events.length} events were kept`);
  assert.equal(events.at(-1), "complete");
});

Deno.test("streams above the limit are refused, and closing all ends them without ending the work", async () => {
  const work = steered();
  let calls = 0;
  const app = testApp({
    checkpoint: (request, long) => {
      calls++;
      return work.checkpoint(request, long);
    },
  });
  const key = { ...lines, headers: { ...lines.headers, "idempotency-key": "one" } };
  const open = await Promise.all(Array.from({ length: 64 }, () => app.ask("/checkpoint", key)));
  assert.ok(open.every((response) => response.status === 200));
  assert.equal(app.streams.size, 64);
  assert.equal((await app.ask("/checkpoint", key)).status, 503);
  assert.equal((await app.ask("/checkpoint", lines)).status, 503);
  assert.equal(calls, 1, "what is refused has not begun");
  app.streams.closeAll();
  await Promise.all(open.map((response) => response.text()));
  const waiting = app.ask("/checkpoint", { method: "POST", headers: { "idempotency-key": "one" } });
  work.end();
  assert.equal((await waiting).status, 201);
  assert.equal(calls, 1);
});

Deno.test("a stream that waits for the capture only ends there", async () => {
  const work = steered();
  const app = testApp({ checkpoint: work.checkpoint });
  const asked = app.ask("/checkpoint?wait=captured", lines);
  const { onCaptured } = await work.begun;
  onCaptured?.("01kgcaptured");
  const text = await (await asked).text();
  assert.deepEqual(text.trimEnd().split("\n").map((line) => JSON.parse(line).type), ["captured"]);
  work.end();
});

Deno.test("a HEAD of a stream leaves none open", async () => {
  const app = testApp();
  for (const path of ["/events", "/processes/web/logs?follow=true"]) {
    const response = await app.ask(path, { method: "HEAD" });
    assert.deepEqual([response.status, await response.text(), app.streams.size], [200, "", 0], path);
  }
});
