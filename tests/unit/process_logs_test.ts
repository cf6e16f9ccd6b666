/** Where output goes: in memory, on, to those who follow; rate limits and pauses; the forms of what is passed on. */

import assert from "node:assert/strict";
import { jsonLines, prefixed, prefixOf } from "../../src/supervisor/log_format.ts";
import { linesOf, type NumberedBatch } from "../../src/supervisor/line_ring.ts";
import { LineBudget } from "../../src/supervisor/rate_limit.ts";
import { batchOf, logSpecOf, quietLogs } from "../support/process_logs.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const textOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

Deno.test("output of different processes is kept apart, and outlives those who wrote it", () => {
  const logs = quietLogs();
  logs.take("web", batchOf("one\n"));
  logs.take("db", batchOf("uno\n"));
  logs.take("web", batchOf("two\n"));
  logs.configure("web", logSpecOf());
  assert.deepEqual(logs.last("web").map(({ text }) => text), ["one", "two"]);
  assert.deepEqual(logs.last("web", 1).map(({ sequence }) => sequence), [2]);
  assert.deepEqual(logs.last("nobody"), []);
  assert.equal(logs.has("nobody"), false);
});

Deno.test("a rate limit lets a burst through, then its rate, and says how much it kept back", async () => {
  const clock = new VirtualClock();
  const passed: string[] = [];
  const passOn = (_name: string, numbered: NumberedBatch) => {
    for (const { text } of linesOf(numbered)) passed.push(text);
    return null;
  };
  const logs = quietLogs({ clock, passOn });
  logs.configure("web", logSpecOf({ passThrough: true, rateLimit: { linesPerSecond: 10, burst: 20 } }));
  logs.take("web", batchOf("a\n".repeat(100)));
  assert.equal(passed.length, 20);
  await clock.advance(500);
  logs.take("web", batchOf("b\n".repeat(100)));
  assert.equal(passed.filter((text) => text === "b").length, 5);
  await clock.advance(10_000);
  logs.take("web", batchOf("c\n"));
  assert.equal(passed.at(-1), "c");
  const notes = passed.filter((text) => text.startsWith("state-manager:"));
  const suppressed = notes.reduce((sum, text) => sum + Number(/: (\d+) lines/.exec(text)?.[1]), 0);
  assert.equal(suppressed, 80 + 95, notes.join());
  await logs.close(0);
});

Deno.test("LineBudget never gives more than its rate allows, however it is asked", () => {
  const budget = new LineBudget({ linesPerSecond: 7, burst: 3 }, 0);
  let given = 0;
  for (let nowMs = 0; nowMs <= 10_000; nowMs += 13) given += budget.take(5, nowMs);
  assert.ok(given <= 3 + 70 && given >= 65, `${given}`);
  assert.equal(budget.take(5, 0), 0, "a clock that goes back gives nothing");
});

Deno.test("a program is asked to pause by a slow reader of our output, and with drop never", async () => {
  const gate = Promise.withResolvers<void>();
  const logs = quietLogs({ passOn: () => gate.promise });
  logs.configure("web", logSpecOf({ passThrough: true }));
  logs.configure("careless", logSpecOf({ passThrough: true, policy: "drop" }));
  logs.configure("silent", logSpecOf());
  const pause = logs.take("web", batchOf("x\n"));
  assert.equal(logs.take("careless", batchOf("x\n")), null);
  assert.equal(logs.take("silent", batchOf("x\n")), null);
  gate.resolve();
  await pause;
});

Deno.test("a closed follower hears nothing and costs nothing", async () => {
  const logs = quietLogs();
  const follower = logs.follow("web", 0);
  logs.take("web", batchOf("one\n"));
  await follower.wait();
  assert.equal(follower.next()?.sequence, 1);
  assert.equal(follower.next(), null);
  const waiting = follower.wait();
  follower.close();
  await waiting;
  logs.take("web", batchOf("two\n"));
  assert.equal(follower.next(), null);
});

Deno.test("what is passed on has the name before each line, or is JSON that nothing in a line can break", () => {
  const batch = batchOf("one\r\n\nlast\n", "stderr");
  assert.equal(textOf(prefixed(batch, prefixOf("web", false))), "web | one\nweb | \nweb | last\n");
  assert.equal(textOf(prefixed(batchOf("cut"), prefixOf("web", false))), "web | cut\n");
  // deno-lint-ignore no-control-regex
  assert.match(textOf(prefixOf("web", true)), /^\x1b\[\d+mweb \|\x1b\[0m $/);
  const lines = [batchOf('"quoted"\u2028\n', "stderr"), batchOf("x", "stderr")]
    .map((each, index) => textOf(jsonLines("web", { batch: each, sequence: 5 + index }))).join("");
  assert.deepEqual(lines.trimEnd().split("\n").map((line) => JSON.parse(line)), [
    {
      time: "1970-01-01T00:00:00.000Z",
      process: "web",
      sequence: 5,
      stream: "stderr",
      text: '"quoted"\u2028',
    },
    {
      time: "1970-01-01T00:00:00.000Z",
      process: "web",
      sequence: 6,
      stream: "stderr",
      text: "x",
      partial: true,
      part: 0,
    },
  ]);
});
