/** What is in the store: counted by what it is for, listed once for all who ask, and compared with earlier. */

import assert from "node:assert/strict";
import type { CatalogEvent } from "../../src/database/mod.ts";
import { EventHub } from "../../src/manager/event_hub.ts";
import { growthOf, StorageMeter } from "../../src/manager/storage_meter.ts";
import { memoryStore, type ObjectStore } from "../../src/storage/mod.ts";
import { storageUsage } from "../support/fake_control.ts";
import { testApp } from "../support/test_app.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const signal = new AbortController().signal;

async function scene() {
  const clock = new VirtualClock();
  const plain = memoryStore({ clock });
  let lists = 0;
  const store: ObjectStore = new Proxy(plain, {
    get(target, name) {
      if (name === "list") lists++;
      const value = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const recorded: CatalogEvent[] = [];
  const meter = new StorageMeter({ store, clock, record: (event) => recorded.push(event) });
  const put = (key: string, size: number) => plain.put(key, new Uint8Array(size), { signal });
  await put("repo.json", 10);
  await put("checkpoints/packs/7/a", 1000);
  await put("checkpoints/packs/7/b", 500);
  await put("checkpoints/index/7-a", 20);
  await put("checkpoints/roots/7-a.json", 30);
  await put("databases/main/0000/0000000000000001-0000000000000001.ltx", 100);
  await put("databases/main/0009/0000000000000001-0000000000000001.ltx", 200);
  await put("databases/shops/a.db/ltx/0/0000000000000001-0000000000000001.ltx", 50);
  await put("notes.txt", 1);
  return { clock, meter, recorded, put, lists: () => lists };
}

Deno.test("what is in the store is told by what it is for, and databases by name", async () => {
  const { meter, recorded } = await scene();
  const { atMs: _, ...usage } = await meter.usage({ refresh: false });
  assert.deepEqual(usage, {
    objects: 9,
    bytes: 1911,
    kinds: {
      packs: { objects: 2, bytes: 1500 },
      indexes: { objects: 1, bytes: 20 },
      roots: { objects: 1, bytes: 30 },
      databases: { objects: 3, bytes: 350 },
      repository: { objects: 1, bytes: 10 },
      other: { objects: 1, bytes: 1 },
    },
    databases: { main: { objects: 2, bytes: 300 }, "shops/a.db": { objects: 1, bytes: 50 } },
  });
  assert.deepEqual(recorded.map(({ kind, detail }) => [kind, detail?.["bytes"]]), [["storage", 1911]]);
});

Deno.test("the store is listed once for all who ask, and again after an hour or on request", async () => {
  const { clock, meter, put, lists } = await scene();
  const [one, other] = await Promise.all([meter.usage({ refresh: true }), meter.usage({ refresh: false })]);
  assert.equal(one, other);
  await put("checkpoints/packs/7/c", 5);
  await clock.advance(59 * 60_000);
  assert.equal((await meter.usage({ refresh: false })).objects, 9);
  assert.equal(lists(), 1);
  assert.equal((await meter.usage({ refresh: true })).objects, 10);
  await put("checkpoints/packs/7/d", 5);
  await clock.advance(61 * 60_000);
  assert.equal((await meter.usage({ refresh: false })).objects, 11);
  assert.equal(lists(), 3);
  meter.stop();
  await assert.rejects(meter.usage({ refresh: true }), { code: "cancelled" });
});

Deno.test("growth is against the listing of a day ago, else the oldest", async () => {
  const clock = new VirtualClock();
  const events = new EventHub({ runId: "ab", clock, openCatalog: () => null });
  const DAY_MS = 24 * 3600_000;
  const history = () => events.history({ kinds: ["storage"], order: "newest-first", limit: 50 });
  const listed = (bytes: number) =>
    events.record({ kind: "storage", subject: "", summary: "", detail: { objects: 1, bytes } });
  const growth = async (bytes: number) =>
    growthOf(storageUsage({ atMs: clock.wallMs(), objects: 4, bytes }), await history());
  assert.equal(await growth(5), null);
  listed(100);
  assert.equal(await growth(100), null, "the listing itself is no earlier one");
  await clock.advance(DAY_MS / 2);
  assert.deepEqual(await growth(150), {
    sinceMs: clock.wallMs() - DAY_MS / 2,
    objects: 3,
    bytes: 50,
    bytesPerDay: 100,
  });
  await clock.advance(DAY_MS);
  listed(400);
  await clock.advance(DAY_MS);
  listed(900);
  assert.equal((await growth(300))?.bytes, -100);
});

Deno.test("the store is shown over HTTP with the time that it is from", async () => {
  const asked: boolean[] = [];
  const growth = { sinceMs: 0, objects: -1, bytes: 20, bytesPerDay: 10 };
  const app = testApp({
    storage: ({ refresh }) => {
      asked.push(refresh);
      return Promise.resolve({ usage: storageUsage({ atMs: 1000 }), growth });
    },
  });
  const answer = await (await app.ask("/storage")).json();
  assert.equal(answer.time, "1970-01-01T00:00:01.000Z");
  assert.deepEqual(answer.kinds.packs, { objects: 3, bytes: 900 });
  assert.deepEqual(answer.growth, {
    since: "1970-01-01T00:00:00.000Z",
    objects: -1,
    bytes: 20,
    bytes_per_day: 10,
  });
  assert.equal((await app.ask("/storage?refresh=true")).status, 200);
  assert.equal((await app.ask("/storage?refresh=yes")).status, 422);
  assert.deepEqual(asked, [false, true]);
});
