/** Events over HTTP: what comes, what came before, progress, limits, and clients that do not read. */

import assert from "node:assert/strict";
import type { CatalogEvent } from "../../src/database/mod.ts";
import { EventHub } from "../../src/manager/event_hub.ts";
import { Secret } from "../../src/platform/secret.ts";
import { MemoryCatalog } from "../support/memory_catalog.ts";
import { testApp } from "../support/test_app.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const RUN = "a1";

function scene({ catalog = new MemoryCatalog() as MemoryCatalog | null, runId = RUN } = {}) {
  const clock = new VirtualClock();
  const events = new EventHub({ runId, clock, openCatalog: () => catalog });
  return { clock, events, catalog: catalog ?? new MemoryCatalog(), app: testApp({ events }, clock) };
}

type Scene = ReturnType<typeof scene>;

function tell({ events }: Scene, from: number, to = from, kind: CatalogEvent["kind"] = "process-start") {
  for (let n = from; n <= to; n++) events.record({ kind, subject: `p${n}`, summary: `event ${n}` });
}

type Told = Readonly<Record<string, unknown>>;

/** Reads JSON lines as they come; what was read and not asked for stays for the next call. */
async function follow({ app }: Scene, query = "", headers: Readonly<Record<string, string>> = {}) {
  const response = await app.ask(`/events?${query}`, {
    headers: { accept: "application/x-ndjson", ...headers },
  });
  assert.equal(response.status, 200, response.status === 200 ? "" : await response.text());
  const reader = response.body?.getReader();
  assert.ok(reader !== undefined);
  const waiting: Told[] = [];
  let rest = "";
  return {
    /** Without heartbeats, until `enough`; or to the end of the stream. */
    async until(enough: (told: readonly Told[]) => boolean): Promise<Told[]> {
      while (!enough(waiting)) {
        const { value, done } = await reader.read();
        if (done) break;
        const lines = (rest + new TextDecoder().decode(value)).split("\n");
        rest = lines.pop() ?? "";
        waiting.push(...lines.map((line) => JSON.parse(line)).filter(({ type }) => type !== "heartbeat"));
      }
      return waiting.splice(0);
    },
    next: async () => (await reader.read()).value,
    close: () => reader.cancel(),
  };
}

const has = (number: number) => (told: readonly Told[]) => told.length >= number;
const numbers = (told: readonly Told[]) => told.map(({ id, type, events }) => id ?? `${type} ${events}`);
const ids = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => `${RUN}-${from + index}`);

Deno.test("an event is told as it comes, as server-sent event with its id", async () => {
  const it = scene();
  const response = await it.app.ask("/events");
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const reader = response.body?.getReader();
  const read = async () => new TextDecoder().decode((await reader?.read())?.value);
  assert.equal(await read(), "event: heartbeat\ndata: {}\n\n");
  const detail = { code: 1, secret_key: "hunter2", deep: new Secret("hunter3") };
  const waiting = read();
  it.events.record({ kind: "process-exit", subject: "web", summary: "web: exit code 1", detail });
  const time = new Date(it.clock.wallMs()).toISOString();
  const data = {
    id: `${RUN}-1`,
    time,
    kind: "process-exit",
    subject: "web",
    summary: "web: exit code 1",
    detail: { code: 1, secret_key: "***", deep: "***" },
  };
  assert.equal(await waiting, `id: ${RUN}-1\nevent: process-exit\ndata: ${JSON.stringify(data)}\n\n`);
  await reader?.cancel();
  assert.equal(it.app.streams.size, 0);
  assert.equal(it.clock.sleeping, 0);
});

Deno.test("a client that comes back hears what came meanwhile, once, and without an id only what comes", async () => {
  const it = scene();
  tell(it, 1, 5);
  const back = await follow(it, "", { "last-event-id": `${RUN}-2` });
  const later = await follow(it, `after=${RUN}-4`);
  const fresh = await follow(it);
  await fresh.next(); // the first sign of life
  tell(it, 6);
  assert.deepEqual(numbers(await back.until(has(4))), ids(3, 6));
  assert.deepEqual(numbers(await later.until(has(2))), ids(5, 6));
  assert.deepEqual(numbers(await fresh.until(has(1))), ids(6, 6));
  for (const each of [back, later, fresh]) await each.close();
  assert.equal(it.clock.sleeping, 0);
});

Deno.test("a client that did not read for long gets all of it from the catalog, and costs no memory meanwhile", async () => {
  const it = scene();
  it.events.openCatalog();
  const slow = await follow(it);
  await slow.next();
  tell(it, 1, 3500);
  assert.ok(it.events.last - it.events.first < 1000, "memory is bounded");
  const told = await slow.until(has(3500));
  assert.equal(numbers(told).join(), ids(1, 3500).join());
  await slow.close();
});

Deno.test("what neither memory nor the catalog has is counted, where it is missing", async () => {
  const it = scene();
  it.catalog.loses = ({ place }) => (place?.sequence ?? 0) % 1000 === 10;
  it.events.openCatalog();
  const slow = await follow(it);
  await slow.next();
  tell(it, 1, 2000);
  const told = numbers(await slow.until(has(2000)));
  assert.equal(told[9], "gap 1");
  assert.equal(told[10], `${RUN}-11`);
  assert.equal(told.length, 2000);
  it.catalog.broken = true;
  tell(it, 2001, 4500);
  const later = await slow.until((told) => told.at(-1)?.["id"] === `${RUN}-4500`);
  assert.equal(later[0]?.["type"], "gap");
  const missed = Number(later[0]?.["events"]);
  assert.ok(missed >= 1500, `${missed} events are missing`);
  assert.equal(numbers(later.slice(1)).join(), ids(2001 + missed, 4500).join());
  await slow.close();
});

Deno.test("a client of the manager's run before hears the end of that run, and then all of this one", async () => {
  const before = scene({ runId: "b2" });
  before.events.openCatalog();
  tell(before, 1, 3);
  const now = scene({ catalog: before.catalog });
  tell(now, 1, 2);
  const back = await follow(now, "", { "last-event-id": "b2-2" });
  assert.deepEqual(numbers(await back.until(has(3))), ["b2-3", `${RUN}-1`, `${RUN}-2`]);
  await back.close();
  const stranger = await follow(now, "after=c3-9");
  assert.deepEqual(numbers(await stranger.until(has(3))), ["gap null", `${RUN}-1`, `${RUN}-2`]);
  await stranger.close();
});

Deno.test("only wanted kinds are told, and a heartbeat comes each 15 s whatever else happens", async () => {
  const it = scene();
  const wanted = await follow(it, "kind=checkpoint,restore&kind=verify");
  await wanted.next();
  const beat = wanted.next();
  for (let second = 0; second < 14; second++) {
    tell(it, second);
    await it.clock.advance(1000);
  }
  let beaten = false;
  beat.then(() => beaten = true);
  await it.clock.advance(500);
  assert.equal(beaten, false);
  await it.clock.advance(500);
  assert.match(new TextDecoder().decode(await beat), /^\{"type":"heartbeat"\}\n$/);
  tell(it, 20, 20, "checkpoint");
  assert.deepEqual((await wanted.until(has(1))).map(({ kind }) => kind), ["checkpoint"]);
  await wanted.close();
  for (const query of ["kind=weather", "kind=", "after=7", "after=zz-1"]) {
    const response = await it.app.ask(`/events?${query}`);
    assert.equal(response.status, 422, query);
    assert.doesNotMatch(await response.text(), /weather|zz/);
  }
});

Deno.test("of long work only the newest step is told, then its end; none of it has an id or is kept", async () => {
  const it = scene();
  const step = (bytes: number) => ({ phase: "read", entries: 1, bytes, totalBytes: 140 });
  it.events.progress("checkpoint", step(0));
  const slow = await follow(it, "kind=progress");
  for (let bytes = 1; bytes <= 50; bytes++) {
    await it.clock.advance(1000);
    it.events.progress("checkpoint", step(bytes));
  }
  const told = await slow.until((told) => told.at(-1)?.["bytes"] === 50);
  assert.ok(told.length <= 2, `${told.length} steps`);
  const { bytes_per_second, seconds_left, id } = told.at(-1) ?? {};
  assert.deepEqual({ bytes_per_second, seconds_left, id }, {
    bytes_per_second: 1,
    seconds_left: 90,
    id: undefined,
  });
  it.events.progress("checkpoint", "failed");
  const [end] = await slow.until(has(1));
  assert.deepEqual([end?.["work"], end?.["state"], end?.["phase"]], ["checkpoint", "failed", null]);
  await slow.close();
  const late = await follow(it);
  tell(it, 1);
  assert.deepEqual(numbers(await late.until(has(1))), ids(1, 1));
  await late.close();
  assert.equal(it.events.last, 1);
});

Deno.test("streams of events above the limit are refused, and the manager's end tells what it did last", async () => {
  const it = scene();
  const streams = await Promise.all(Array.from({ length: 64 }, () => follow(it)));
  assert.equal((await it.app.ask("/events")).status, 503);
  await Promise.all(streams.map((stream) => stream.next()));
  const reading = streams[0]?.until(() => false);
  tell(it, 1);
  tell(it, 2);
  it.app.streams.closeAll();
  assert.deepEqual(numbers(await reading ?? []), ids(1, 2));
  for (const stream of streams.slice(1)) {
    assert.deepEqual(numbers(await stream.until(() => false)), ids(1, 2));
  }
  assert.equal((await it.app.ask("/events")).status, 503);
  assert.equal(it.clock.sleeping, 0);
});

Deno.test("the history is told in pages, newest first, by kind and time, also before there is a catalog", async () => {
  for (const catalog of [new MemoryCatalog(), null]) {
    const it = scene({ catalog });
    tell(it, 1, 2);
    await it.clock.advance(60_000);
    const middle = new Date(it.clock.wallMs()).toISOString();
    tell(it, 3, 4, "checkpoint");
    await it.clock.advance(60_000);
    tell(it, 5);
    const ask = async (query: string) => await (await it.app.ask(`/history?${query}`)).json();
    const all = await ask("");
    assert.deepEqual(all.events.map(({ id }: Told) => id), ids(1, 5).reverse());
    assert.equal(all.next_after, null);
    const page = await ask("limit=2");
    assert.deepEqual([page.events.length, page.next_after], [2, `${RUN}-4`]);
    const rest = await ask(`limit=2&after=${page.next_after}`);
    assert.deepEqual(rest.events.map(({ id }: Told) => id), [`${RUN}-3`, `${RUN}-2`]);
    const subjects = async (query: string) => (await ask(query)).events.map(({ subject }: Told) => subject);
    assert.deepEqual(await subjects("kind=checkpoint"), ["p4", "p3"]);
    assert.deepEqual(await subjects("since=90s"), ["p5", "p4", "p3"]);
    assert.deepEqual(await subjects(`until=${middle}`), ["p2", "p1"]);
    assert.deepEqual(await subjects(`since=${middle}&until=30s`), ["p4", "p3"]);
    for (const query of ["limit=0", "limit=1001", "since=then", "kind=progress", "after=7"]) {
      assert.equal((await it.app.ask(`/history?${query}`)).status, 422, query);
    }
    assert.equal((await it.app.ask("/history?after=c3-1")).status, 404);
  }
});

Deno.test("events need the right to read, and no more", async () => {
  const it = scene();
  const beyond = { connection: { loopback: false } };
  for (const path of ["/events", "/history"]) {
    assert.equal((await it.app.ask(path, beyond)).status, 401, path);
  }
});
