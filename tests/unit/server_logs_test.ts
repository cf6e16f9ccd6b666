/** Output and crashes over HTTP: forms, filters, following, gaps, limits. */

import assert from "node:assert/strict";
import { CrashFiles } from "../../src/supervisor/mod.ts";
import { NOW_MS } from "../support/fake_control.ts";
import { batchOf, quietLogs } from "../support/process_logs.ts";
import { type TestApp, testApp } from "../support/test_app.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

function scene(clock?: VirtualClock) {
  const logs = quietLogs();
  return { logs, app: testApp({ logs }, clock) };
}

async function ask(app: TestApp, query: string, accept = "application/json"): Promise<string> {
  const response = await app.ask(`/processes/web/logs?${query}`, { headers: { accept } });
  assert.equal(response.status, 200, await response.clone().text());
  return await response.text();
}

/** Reads chunks until `done` says that it is enough. */
async function readUntil(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  done: (text: string) => boolean,
): Promise<string> {
  let text = "";
  while (!done(text)) {
    const { value, done: over } = await reader.read();
    assert.ok(!over, `ended early: ${text}`);
    text += new TextDecoder().decode(value);
  }
  return text;
}

Deno.test("the output of a process is JSON, JSON lines or text, as the client likes", async () => {
  const { logs, app } = scene();
  logs.take("web", batchOf("one\ntwo\n", "stdout", NOW_MS));
  logs.take("web", batchOf("oops", "stderr", NOW_MS));
  const { lines } = JSON.parse(await ask(app, ""));
  const time = new Date(NOW_MS).toISOString();
  assert.deepEqual(lines, [
    { id: `${logs.runId}-1`, time, stream: "stdout", text: "one" },
    { id: `${logs.runId}-2`, time, stream: "stdout", text: "two" },
    { id: `${logs.runId}-3`, time, stream: "stderr", text: "oops", partial: true, part: 0 },
  ]);
  assert.equal(await ask(app, "", "text/plain"), "one\ntwo\noops");
  const each = (await ask(app, "", "application/x-ndjson")).trimEnd().split("\n").map((line) =>
    JSON.parse(line)
  );
  assert.deepEqual(each.map(({ type, text }) => [type, text]), [["line", "one"], ["line", "two"], [
    "line",
    "oops",
  ]]);
});

Deno.test("output can be asked for by number, time, stream and text", async () => {
  const clock = new VirtualClock();
  const { logs, app } = scene(clock);
  const now = clock.wallMs();
  logs.take("web", batchOf("old alpha\n", "stdout", now - 120_000));
  logs.take("web", batchOf("new alpha\nnew beta\n", "stdout", now - 10_000));
  logs.take("web", batchOf("error beta\n", "stderr", now));
  const texts = async (query: string) => await ask(app, query, "text/plain");
  assert.equal(await texts("tail=2"), "new beta\nerror beta\n");
  assert.equal(await texts("tail=0"), "");
  assert.equal(await texts("since=1m"), "new alpha\nnew beta\nerror beta\n");
  assert.equal(await texts(`since=${new Date(now).toISOString()}`), "error beta\n");
  assert.equal(await texts("stream=stderr"), "error beta\n");
  assert.equal(await texts("text=alpha&tail=1"), "new alpha\n");
  assert.equal(await texts(`after=${logs.runId}-3`), "error beta\n");
  assert.equal(await texts("after=0123-3&tail=1"), "error beta\n");
});

Deno.test("wrong questions about output are refused, and unknown processes are not there", async () => {
  const { app } = scene();
  for (
    const query of [
      "tail=-1",
      "since=yesterday",
      "follow=yes",
      "stream=both",
      "after=7",
      `text=${"x".repeat(201)}`,
    ]
  ) {
    assert.equal((await app.ask(`/processes/web/logs?${query}`)).status, 422, query);
  }
  for (
    const path of [
      "/processes/nobody/logs",
      "/processes/nobody/crashes",
      "/processes/..%2f..%2fetc/crashes/passwd",
    ]
  ) {
    assert.equal((await app.ask(path)).status, 404, path);
  }
});

Deno.test("a follower gets what is kept, then what comes, with ids to come back by and heartbeats", async () => {
  const clock = new VirtualClock();
  const { logs, app } = scene(clock);
  logs.take("web", batchOf("kept\n"));
  const response = await app.ask("/processes/web/logs?follow=true", {
    headers: { accept: "text/event-stream" },
  });
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const reader = response.body?.getReader();
  assert.ok(reader);
  await readUntil(
    reader,
    (text) => text.includes(`id: ${logs.runId}-1\nevent: line\n`) && text.includes("kept"),
  );
  logs.take("web", batchOf("comes\n"));
  await readUntil(reader, (text) => text.includes(`id: ${logs.runId}-2\n`) && text.includes("comes"));
  const next = readUntil(reader, (text) => text.includes("event: heartbeat\n"));
  await clock.advance(15_001);
  await next;
  assert.equal(app.streams.size, 1);
  await reader.cancel();
  assert.equal(app.streams.size, 0);
  assert.equal(clock.sleeping, 0);

  logs.take("web", batchOf("missed\n"));
  const again = await app.ask("/processes/web/logs?follow=true", {
    headers: { accept: "text/event-stream", "last-event-id": `${logs.runId}-2` },
  });
  const back = again.body?.getReader();
  assert.ok(back);
  const text = await readUntil(back, (so) => so.includes("missed"));
  assert.ok(!text.includes("comes"), text);
  await back.cancel();
});

Deno.test("a follower that does not read holds a bounded queue, delays nobody and hears how much it missed", async () => {
  const { logs, app } = scene();
  const response = await app.ask("/processes/web/logs?follow=true", {
    headers: { accept: "application/x-ndjson" },
  });
  const count = 40_000;
  const line = "x".repeat(99) + "\n";
  for (let i = 0; i < count / 100; i++) assert.equal(logs.take("web", batchOf(line.repeat(100))), null);
  const reader = response.body?.getReader();
  assert.ok(reader);
  logs.take("web", batchOf("the last one\n"));
  const text = await readUntil(reader, (so) => so.includes("the last one"));
  const events = text.trimEnd().split("\n").map((each) => JSON.parse(each));
  const gaps = events.filter(({ type }) => type === "gap");
  const lines = events.filter(({ type }) => type === "line");
  assert.equal(gaps.length, 1);
  assert.equal(gaps[0].lines + lines.length, count + 1);
  assert.ok(lines.length * 100 <= (1 << 20) + 100 && lines.length > 1000, `${lines.length}`);
  await reader.cancel();
});

Deno.test("what one read brought is told in slices: no turn of the loop encodes a mebibyte of short lines", async () => {
  const { logs, app } = scene();
  const response = await app.ask("/processes/web/logs?follow=true&tail=0", {
    headers: { accept: "text/plain" },
  });
  const reader = (response.body ?? assert.fail("a body")).getReader();
  const count = 20_000;
  logs.take("web", batchOf(Array.from({ length: count }, (_, n) => `${n}\n`).join("")));
  for (let next = 0; next < count;) {
    const lines = new TextDecoder().decode((await reader.read()).value).trimEnd().split("\n");
    assert.ok(lines.length <= 500, `${lines.length} at once`);
    for (const line of lines) assert.equal(line, String(next++));
  }
  await reader.cancel();
});

Deno.test("a client that comes back too late hears how many lines are gone", async () => {
  const { logs, app } = scene();
  for (let i = 0; i < 1500; i++) logs.take("web", batchOf(`${i}\n`));
  const response = await app.ask(`/processes/web/logs?follow=true&after=${logs.runId}-100`, {
    headers: { accept: "application/x-ndjson" },
  });
  const reader = response.body?.getReader();
  assert.ok(reader);
  const text = await readUntil(reader, (so) => so.includes('"1499"'));
  assert.deepEqual(JSON.parse(text.split("\n")[0] ?? ""), { type: "gap", lines: 400 });
  await reader.cancel();
});

Deno.test("followers are limited, and a stop of the server ends them", async () => {
  const { app } = scene();
  const open = await Promise.all(
    Array.from({ length: 64 }, () => app.ask("/processes/web/logs?follow=true")),
  );
  assert.ok(open.every(({ status }) => status === 200));
  assert.equal((await app.ask("/processes/web/logs?follow=true")).status, 503);
  app.streams.closeAll();
  await Promise.all(open.map((response) => response.text()));
});

Deno.test("crashes are listed newest first, read by id, and nothing else is", async () => {
  const folder = await Deno.makeTempDir({ prefix: "sm-crash-" });
  try {
    const crashes = new CrashFiles(folder, (error) => assert.fail(error.message));
    for (const second of [1, 2]) {
      crashes.add({
        name: "web",
        wallMs: NOW_MS + second * 1000,
        cause: { kind: "exit", code: second },
        uptimeMs: 10,
        pid: 7,
        incarnation: second,
        restartFor: null,
        program: "web",
        cwd: null,
        environment: [],
        limits: {},
        lines: [],
      });
    }
    await crashes.idle();
    const app = testApp({ crashes });
    const listed = (await (await app.ask("/processes/web/crashes")).json()).crashes;
    assert.deepEqual(listed.map(({ cause }: { cause: string }) => cause), ["exit-2", "exit-1"]);
    const one = await app.ask(`/processes/web/crashes/${listed[0].id}`);
    assert.equal(one.headers.get("content-type"), "text/plain; charset=utf-8");
    assert.match(await one.text(), /^process: web\n[^]*cause: exit code 2\n/);
    await Deno.writeTextFile(`${folder}/web/secret.log`, "no crash");
    for (const id of ["secret", "..%2fweb%2fsecret", "20260131T120001000Z-exit-9"]) {
      assert.equal((await app.ask(`/processes/web/crashes/${id}`)).status, 404, id);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
