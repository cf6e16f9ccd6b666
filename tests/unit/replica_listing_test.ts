/** The names of a replica's objects in both layouts, and what a listing of them says. */

import assert from "node:assert/strict";
import {
  parseReplicaKey,
  replicaKey,
  type ReplicaPlace,
  timestampMetadata,
  timestampOf,
} from "../../src/database/replica_layout.ts";
import {
  chainDefects,
  HolderListing,
  listReplica,
  type ReplicaFile,
} from "../../src/database/replica_listing.ts";
import { observed } from "../../src/storage/observed_store.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { randomOf } from "../support/seeded_random.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const BUCKET: ReplicaPlace = { layout: "bucket", name: "app" };
const FOLDER: ReplicaPlace = { layout: "folder", name: "app" };
const body = (bytes = 200) => new Uint8Array(bytes);

Deno.test("replicaKey names files as Litestream does, in both layouts", () => {
  const name = { level: 9, minTxid: 1, maxTxid: 0x1f };
  assert.equal(replicaKey(BUCKET, name), "databases/app/0009/0000000000000001-000000000000001f.ltx");
  assert.equal(replicaKey(FOLDER, name), "databases/app/ltx/9/0000000000000001-000000000000001f.ltx");
});

Deno.test("parseReplicaKey reads back what replicaKey made, for any name", () => {
  const random = randomOf(71);
  for (const place of [BUCKET, FOLDER]) {
    for (let turn = 0; turn < 500; turn++) {
      const minTxid = 1 + Math.floor(random.float() * 2 ** Math.floor(random.float() * 52));
      const name = {
        level: Math.floor(random.float() * 10),
        minTxid,
        maxTxid: minTxid + Math.floor(random.float() * 1e6),
      };
      assert.deepEqual(parseReplicaKey(place, replicaKey(place, name)), name, "seed 71");
    }
  }
});

Deno.test("parseReplicaKey refuses every key that replicaKey would not make", () => {
  const one = "0000000000000001";
  for (
    const key of [
      `databases/app/0000/${one}-${one}`,
      `databases/app/0000/${one}-${one}.ltx.tmp`,
      `databases/app/0000/${one}.ltx`,
      `databases/app/000a/${one}-${one}.ltx`,
      `databases/app/0/${one}-${one}.ltx`,
      `databases/app/0000/x/${one}-${one}.ltx`,
      `databases/app/0000/0000000000000000-${one}.ltx`,
      `databases/app/0000/0000000000000002-${one}.ltx`,
      `databases/app/0000/${one}-000000000000001F.ltx`,
      `databases/app/0000/${one}-0020000000000000.ltx`,
      `databases/application/0000/${one}-${one}.ltx`,
    ]
  ) {
    assert.equal(parseReplicaKey(BUCKET, key), null, key);
  }
  assert.equal(parseReplicaKey(FOLDER, `databases/app/0000/${one}-${one}.ltx`), null);
});

Deno.test("timestampOf reads RFC 3339 times of any precision and nothing else", () => {
  assert.equal(timestampOf(timestampMetadata(1_700_000_000_123)), 1_700_000_000_123);
  assert.equal(timestampOf({ "litestream-timestamp": "2026-11-25T09:36:17.123456789Z" }), 1795599377123);
  assert.equal(timestampOf({ "litestream-timestamp": "2026-11-25T11:36:17+02:00" }), 1795599377000);
  assert.equal(timestampOf({ "litestream-timestamp": "soon" }), null);
  assert.equal(timestampOf({}), null);
});

Deno.test("listReplica sorts by level and TXID and names odd keys, small files, gaps and overlaps", async () => {
  const store = memoryStore();
  const put = (level: number, minTxid: number, maxTxid: number, bytes = 200) =>
    store.put(replicaKey(BUCKET, { level, minTxid, maxTxid }), body(bytes));
  await put(1, 1, 3);
  await put(0, 5, 5);
  await put(0, 4, 4);
  await put(0, 7, 7);
  await put(1, 3, 4);
  await put(9, 1, 3);
  await put(9, 1, 4);
  await put(0, 8, 8, 99);
  await store.put("databases/app/lock.json", body());
  await store.put("databases/apple/0000/0000000000000001-0000000000000001.ltx", body());
  const { files, defects } = await listReplica(store, BUCKET);
  assert.deepEqual(files.map(({ level, minTxid, maxTxid }) => [level, minTxid, maxTxid]), [
    [0, 4, 4],
    [0, 5, 5],
    [0, 7, 7],
    [1, 1, 3],
    [1, 3, 4],
    [9, 1, 3],
    [9, 1, 4],
  ]);
  assert.deepEqual(defects.map(({ kind, key }) => [kind, key.slice("databases/app/".length)]), [
    ["too-small", "0000/0000000000000008-0000000000000008.ltx"],
    ["odd-key", "lock.json"],
    ["gap", "0000/0000000000000007-0000000000000007.ltx"],
    ["overlap", "0001/0000000000000003-0000000000000004.ltx"],
  ]);
  const some = await listReplica(store, BUCKET, { levels: [9, 1] });
  assert.deepEqual(some.files.map(({ level }) => level), [1, 1, 9, 9]);
});

Deno.test("chainDefects takes no gap for one whose TXIDs are in other files", () => {
  const file = (level: number, minTxid: number, maxTxid: number): ReplicaFile => ({
    level,
    minTxid,
    maxTxid,
    key: replicaKey(BUCKET, { level, minTxid, maxTxid }),
    sizeBytes: 200,
    timestampMs: 0,
    modifiedMs: 0,
  });
  const gaps = (...files: ReplicaFile[]) => chainDefects(files).map(({ kind }) => kind);
  assert.deepEqual(gaps(file(0, 1, 1), file(0, 9, 9)), ["gap"]);
  assert.deepEqual(gaps(file(0, 1, 1), file(0, 9, 9), file(9, 1, 8)), []);
  assert.deepEqual(gaps(file(0, 1, 1), file(0, 9, 9), file(1, 5, 8), file(2, 2, 4)), []);
  assert.deepEqual(gaps(file(0, 1, 1), file(0, 9, 9), file(1, 6, 8), file(2, 2, 4), file(9, 1, 3)), ["gap"]);
});

Deno.test("HolderListing sends one listing and then stays equal to the store by its own puts and deletes", async () => {
  let requests = 0;
  const inner = memoryStore();
  const store = observed(inner, new VirtualClock(), () => requests++);
  const random = randomOf(72);
  const names = Array.from({ length: 30 }, (_, at) => ({ level: at % 3, minTxid: at + 1, maxTxid: at + 1 }));
  for (const name of names) await inner.put(replicaKey(FOLDER, name), body());
  const { listing } = await HolderListing.load(store, FOLDER);
  assert.equal(requests, 1);
  for (let turn = 0; turn < 300; turn++) {
    const level = Math.floor(random.float() * 3);
    const minTxid = 1 + Math.floor(random.float() * 60);
    const name = { level, minTxid, maxTxid: minTxid + Math.floor(random.float() * 3) };
    if (random.float() < 0.6) {
      await inner.put(replicaKey(FOLDER, name), body());
      listing.added({ ...name, sizeBytes: 200, timestampMs: turn, modifiedMs: turn });
    } else {
      const file = listing.files[Math.floor(random.float() * listing.files.length)];
      if (file === undefined) continue;
      await inner.delete(file.key);
      listing.removed(file.key);
      assert.equal(listing.get(file.key), null);
    }
    const { files } = await listReplica(inner, FOLDER);
    assert.deepEqual(
      listing.files.map(({ key }) => key),
      files.map(({ key }) => key),
      `seed 72, turn ${turn}`,
    );
    const most = Math.max(0, ...files.map(({ maxTxid }) => maxTxid));
    assert.equal(listing.maxTxid, most);
  }
  assert.equal(requests, 1);
});
