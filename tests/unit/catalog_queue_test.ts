import assert from "node:assert/strict";
import { type CatalogThread, openCatalog } from "../../src/database/catalog.ts";
import type { CatalogReply, CatalogRequest } from "../../src/database/catalog_types.ts";
import type { CatalogEvent } from "../../src/database/mod.ts";
import type { Log } from "../../src/platform/log.ts";
import { Secret } from "../../src/platform/secret.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

type Behaviour = (request: CatalogRequest) => CatalogReply | "silent" | "crash";

const accept: Behaviour = ({ id }) => ({ id, ok: true, rows: [], notices: [] });

/** A catalog on threads that behave as told; `told` keeps every request, `warnings` every line of the log. */
function scripted(behaviour: Behaviour) {
  const state = {
    behaviour,
    told: [] as CatalogRequest[],
    warnings: [] as string[],
    started: 0,
    running: 0,
  };
  const startThread = (): CatalogThread => {
    state.started++;
    state.running++;
    const thread: CatalogThread = {
      onmessage: null,
      onerror: null,
      terminate: () => void state.running--,
      postMessage(request: CatalogRequest) {
        state.told.push(request);
        const reply = state.behaviour(request);
        if (reply === "silent") return;
        queueMicrotask(() => {
          if (reply === "crash") {
            thread.onerror?.call(
              thread as never,
              new ErrorEvent("error", { message: "dead", cancelable: true }),
            );
          } else {thread.onmessage?.call(
              thread as never,
              new MessageEvent("message", { data: reply }),
            );}
        });
      },
    };
    return thread;
  };
  const keep = (message: string) => void state.warnings.push(message);
  const log: Log = { debug: keep, info: keep, warn: keep, error: keep };
  const clock = new VirtualClock();
  const catalog = openCatalog({
    path: "/data/catalog.db",
    clock,
    log,
    startThread,
  });
  return { catalog, clock, state };
}

const event = (n: number): CatalogEvent => ({
  kind: "process-start",
  subject: `p${n}`,
  summary: "started",
});

async function settle(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 0));
}

function recorded(told: readonly CatalogRequest[]): number {
  return told.reduce(
    (sum, each) => sum + (each.operation === "record" ? each.rows.length : 0),
    0,
  );
}

Deno.test("catalog starts nothing before the first event", async () => {
  const { catalog, state } = scripted(accept);
  await catalog.close(100);
  assert.equal(state.started, 0);
});

Deno.test("catalog writes events in order and in batches", async () => {
  const { catalog, state } = scripted(accept);
  for (let n = 0; n < 450; n++) catalog.record(event(n));
  await settle();
  const batches = state.told.flatMap((each) => each.operation === "record" ? [each.rows] : []);
  assert.deepEqual(batches.map((rows) => rows.length), [200, 200, 50]);
  assert.deepEqual(
    batches.flat().map((row) => row.subject),
    Array.from({ length: 450 }, (_, n) => `p${n}`),
  );
  await catalog.close(100);
  assert.equal(state.running, 0);
  assert.equal(catalog.droppedEvents, 0);
});

Deno.test("catalog records an event that comes in the turn in which its loop ends", async () => {
  const { catalog, state } = scripted(accept);
  for (let n = 0; n < 50; n++) {
    catalog.record(event(n));
    for (let turns = 0; turns < n; turns++) await Promise.resolve();
  }
  await settle();
  assert.equal(recorded(state.told), 50);
  await catalog.close(100);
});

Deno.test("catalog drops and counts what exceeds its queue while the thread hangs", async () => {
  const { catalog, clock, state } = scripted(() => "silent");
  for (let n = 0; n < 10_500; n++) catalog.record(event(n));
  await settle();
  assert.equal(catalog.droppedEvents, 500);
  assert.equal(state.started, 1);
  const closed = catalog.close(10);
  await clock.advance(10);
  await closed;
  assert.equal(state.running, 0);
  assert.equal(catalog.droppedEvents, 10_500);
});

Deno.test("catalog close ends a thread that hangs when its deadline has passed", async () => {
  const { catalog, clock, state } = scripted(() => "silent");
  catalog.record(event(1));
  await settle();
  let closed = false;
  const done = catalog.close(1000).then(() => closed = true);
  await clock.advance(999);
  await settle();
  assert.equal(closed, false);
  await clock.advance(1);
  await done;
  assert.equal(state.running, 0);
});

Deno.test("catalog starts a new thread after a pause when one died, and says how many events are missing", async () => {
  const { catalog, clock, state } = scripted((request) =>
    request.operation === "record" ? "crash" : accept(request)
  );
  catalog.record(event(1));
  await settle();
  assert.equal(state.running, 0);
  state.behaviour = accept;
  catalog.record(event(2));
  await settle();
  assert.equal(state.started, 1);
  await clock.advance(1000);
  await settle();
  assert.equal(state.started, 2);
  assert.equal(catalog.droppedEvents, 1);
  assert.deepEqual(state.warnings, [
    "the catalog does not work; trying again later",
    "events are missing in the catalog",
  ]);
  await catalog.close(100);
});

Deno.test("catalog tells a failure once, however often it tries, with pauses that grow to five minutes", async () => {
  const { catalog, clock, state } = scripted(({ id }) => ({
    id,
    ok: false,
    message: "disk full",
  }));
  catalog.record(event(0));
  await settle();
  const starts: number[] = [];
  for (let minute = 0; minute < 60; minute++) {
    catalog.record(event(minute));
    await clock.advance(60_000);
    await settle();
    starts.push(state.started);
  }
  assert.equal(state.warnings.length, 1);
  const lastHalfHour = (starts[59] ?? 0) - (starts[29] ?? 0);
  assert.ok(
    lastHalfHour >= 5 && lastHalfHour <= 6,
    `${lastHalfHour} starts in 30 minutes`,
  );
  await catalog.close(0);
});

Deno.test("catalog history waits for what was recorded before it", async () => {
  const { catalog, state } = scripted(accept);
  for (let n = 0; n < 300; n++) catalog.record(event(n));
  await catalog.history({ order: "newest-first", limit: 5000, kinds: ["restore"] });
  const last = state.told.at(-1);
  assert.deepEqual(last?.operation === "history" && last.query, {
    order: "newest-first",
    limit: 1000,
    kinds: ["restore"],
  });
  assert.equal(recorded(state.told), 300);
  await catalog.close(100);
});

Deno.test("catalog history rejects, with what is wrong, while the catalog does not work", async () => {
  const { catalog } = scripted(({ id }) => ({
    id,
    ok: false,
    message: "disk full",
  }));
  const wanted = { code: "local-io", message: /disk full/ };
  await assert.rejects(catalog.history({ order: "newest-first", limit: 1 }), wanted);
  await assert.rejects(catalog.history({ order: "newest-first", limit: 1 }), wanted);
  await catalog.close(0);
  await assert.rejects(catalog.history({ order: "newest-first", limit: 1 }), {
    code: "local-io",
    message: /closed/,
  });
});

Deno.test("catalog close does not wait for the next try of a catalog that does not work", async () => {
  const { catalog, state } = scripted(({ id }) => ({
    id,
    ok: false,
    message: "disk full",
  }));
  for (let n = 0; n < 1000; n++) catalog.record(event(n));
  await settle();
  await catalog.close(10_000); // the clock stands still
  assert.equal(catalog.droppedEvents, 1000);
  assert.equal(state.running, 0);
});

Deno.test("catalog keeps no secret and bounds what an event brings along", async () => {
  const { catalog, state } = scripted(accept);
  catalog.record({
    kind: "config-version",
    subject: "s".repeat(10_000),
    summary: "changed",
    detail: {
      storage: { secret_key: new Secret("hunter2") },
      access_key: "hunter2",
    },
  });
  catalog.record({
    kind: "restore",
    subject: "big",
    summary: "",
    detail: { text: "x".repeat(8000) },
  });
  await settle();
  const text = JSON.stringify(state.told);
  assert.doesNotMatch(text, /hunter2/);
  assert.ok(text.length < 4000, `${text.length} bytes`);
  await catalog.close(100);
});

Deno.test("catalog record survives an event of the wrong shape", async () => {
  const { catalog } = scripted(accept);
  catalog.record({ kind: "restore" } as unknown as CatalogEvent);
  assert.equal(catalog.droppedEvents, 1);
  await catalog.close(100);
});
