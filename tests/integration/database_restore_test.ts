/** Restores of real databases from memory and folder stores: every point, damage, expiry while it runs, and the edges. */

import assert from "node:assert/strict";
import { drillDatabase } from "../../src/database/drill.ts";
import { LtxEncoder } from "../../src/database/ltx/mod.ts";
import { replicaKey, type ReplicaPlace } from "../../src/database/replica_layout.ts";
import {
  planDatabaseRestore,
  restoreDatabase,
  restoreDatabaseTo,
} from "../../src/database/restore_database.ts";
import { findReplica, listDatabases, listRestorePoints } from "../../src/database/restore_points.ts";
import { restorePoints, type RestoreTarget } from "../../src/database/restore_plan.ts";
import type { RestoreRequest } from "../../src/database/restore_types.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { directoryStore } from "../../src/storage/directory_store.ts";
import { faulty } from "../../src/storage/faulty_store.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { type ObjectStore } from "../../src/storage/object_store.ts";
import { ReplicaBuilder } from "../support/replica_builder.ts";
import { randomReplica, timeOf } from "../support/replica_model.ts";
import { randomOf } from "../support/seeded_random.ts";
import { scratchFolder } from "../support/tree_model.ts";

const BUCKET: ReplicaPlace = { layout: "bucket", name: "app" };
const FOLDER: ReplicaPlace = { layout: "folder", name: "app" };
const clock = systemClock();
/** Asked before any test: it loads libc, which older runtimes count as a leak of the test that does it. */
const asRoot = isRoot();
const never = new AbortController().signal;

function environment(store: ObjectStore) {
  return { store, clock, signal: never };
}

function newMemoryStore(): ObjectStore {
  return memoryStore();
}

function request(file: string, target: RestoreTarget, change: Partial<RestoreRequest> = {}): RestoreRequest {
  return { place: BUCKET, target, file, owner: null, mode: 0o600, check: "quick", ...change };
}

function names(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

async function restored(store: ObjectStore, file: string, target: RestoreTarget, place = BUCKET) {
  const result = await restoreDatabaseTo(request(file, target, { place }), environment(store));
  const bytes = Deno.readFileSync(file);
  Deno.removeSync(file);
  return { result, bytes };
}

Deno.test("every restore point of a random history comes back byte by byte, by TXID and by time", async () => {
  for (const [seed, pageSize] of [[1, 512], [2, 1024], [3, 4096], [4, 65536]] as const) {
    await using folder = scratchFolder("restore-");
    const place = seed % 2 === 0 ? FOLDER : BUCKET;
    const store = seed === 4
      ? directoryStore({ path: `${folder.path}/store`, clock, random: systemRandom() })
      : newMemoryStore();
    using builder = new ReplicaBuilder({ store, place, folder: folder.path, pageSize });
    const random = randomOf(seed).float;
    await builder.commitRandom(random, 24);
    for (let first = 1; first + 4 <= builder.txid; first += 5) {
      await builder.put({ level: 1, minTxid: first, maxTxid: first + 4 });
    }
    await builder.put({ level: 2, minTxid: 6, maxTxid: 20 });
    await builder.put({ level: 9, minTxid: 1, maxTxid: 8 });
    for (let txid = 1; txid < 18; txid++) await builder.remove({ level: 0, minTxid: txid, maxTxid: txid });
    const { points, total } = await listRestorePoints({ place, after: 0 }, environment(store));
    assert.deepEqual(
      points.map(({ txid }) => txid),
      [5, 8, 10, 15, 20, 21, 22, 23, 24, 25],
      `seed ${seed}`,
    );
    assert.equal(total, points.length);
    const file = `${folder.path}/restored.db`;
    for (const { txid, timestampMs } of points) {
      assert.equal(timestampMs, timeOf(txid));
      const { result, bytes } = await restored(store, file, { kind: "txid", txid }, place);
      assert.deepEqual(bytes, builder.bytesAt(txid), `seed ${seed}, TXID ${txid}`);
      assert.equal(result.txid, txid);
      assert.equal(result.timestampMs, timeOf(txid));
      assert.equal(result.check, "passed");
      const byTime = await restored(store, file, { kind: "before", beforeMs: timestampMs + 1 }, place);
      assert.equal(byTime.result.txid, txid, `seed ${seed}, time of ${txid}`);
    }
    await builder.commit("CREATE TABLE last(a)");
    const newest = await restored(store, file, { kind: "newest" }, place);
    assert.deepEqual(newest.bytes, builder.bytesAt(builder.txid));
    assert.equal(newest.result.token, 7);
    assert.deepEqual(names(folder.path).filter((name) => name.startsWith(".sm-")), []);
    await store.close();
  }
});

Deno.test("any retained subset of files restores to the exact bytes at each TXID that it reaches", async () => {
  let restores = 0;
  for (let seed = 1; seed <= 12; seed++) {
    await using folder = scratchFolder("restore-");
    const store = newMemoryStore();
    using builder = new ReplicaBuilder({ store, place: BUCKET, folder: folder.path, pageSize: 512 });
    const random = randomOf(seed);
    await builder.commitRandom(random.float, 19);
    const kept = randomReplica(random, builder.txid);
    for (let txid = 1; txid <= builder.txid; txid++) {
      await builder.remove({ level: 0, minTxid: txid, maxTxid: txid });
    }
    for (const name of kept) await builder.put(name);
    for (const { txid } of restorePoints(kept)) {
      const { bytes } = await restored(store, `${folder.path}/restored.db`, { kind: "txid", txid });
      assert.deepEqual(bytes, builder.bytesAt(txid), `seed ${seed}, TXID ${txid}`);
      restores++;
    }
  }
  assert.ok(restores > 60, `only ${restores} restores`);
});

Deno.test("times come from the metadata, else from the header", async () => {
  await using folder = scratchFolder("restore-");
  const store = newMemoryStore();
  using builder = new ReplicaBuilder({ store, place: BUCKET, folder: folder.path });
  await builder.commit("CREATE TABLE t(a)");
  await builder.put({ level: 9, minTxid: 1, maxTxid: 1 }, undefined, false);
  await builder.remove({ level: 0, minTxid: 1, maxTxid: 1 });
  const { points } = await listRestorePoints({ place: BUCKET, after: 0 }, environment(store));
  assert.deepEqual(points, [{ txid: 1, timestampMs: timeOf(1), level: 9 }]);
  const early = { kind: "before", beforeMs: timeOf(1) } as const;
  await assert.rejects(restored(store, `${folder.path}/x.db`, early), { code: "not-found" });
});

/** Snapshot at 4, merged 5 to 8, L0 9 and 10. */
async function smallReplica(folder: string, store: ObjectStore): Promise<ReplicaBuilder> {
  const builder = new ReplicaBuilder({ store, place: BUCKET, folder, pageSize: 512 });
  await builder.commitRandom(randomOf(11).float, 9);
  await builder.put({ level: 9, minTxid: 1, maxTxid: 4 });
  await builder.put({ level: 1, minTxid: 5, maxTxid: 8 });
  for (let txid = 1; txid <= 8; txid++) await builder.remove({ level: 0, minTxid: txid, maxTxid: txid });
  return builder;
}

const SMALL_REPLICA = [
  { level: 9, minTxid: 1, maxTxid: 4 },
  { level: 1, minTxid: 5, maxTxid: 8 },
  { level: 0, minTxid: 9, maxTxid: 9 },
  { level: 0, minTxid: 10, maxTxid: 10 },
] as const;

Deno.test("a damaged or missing object is a clear error and leaves no file, whichever it is", async () => {
  await using folder = scratchFolder("restore-");
  const store = newMemoryStore();
  using builder = await smallReplica(folder.path, store);
  const random = randomOf(5).float;
  const file = `${folder.path}/restored.db`;
  const before = names(folder.path);
  for (const name of SMALL_REPLICA) {
    const key = replicaKey(BUCKET, name);
    const whole = (await store.get(key)).body;
    const damages: (Uint8Array<ArrayBuffer> | null)[] = [null, whole.slice(0, 140), whole.slice(0, -1)];
    for (let turn = 0; turn < 40; turn++) {
      const copy = whole.slice();
      const at = Math.floor(random() * copy.length);
      copy[at] = (copy[at] ?? 0) ^ (1 + Math.floor(random() * 255));
      damages.push(copy, whole.slice(0, Math.floor(random() * whole.length)));
    }
    for (const [index, bytes] of damages.entries()) {
      if (bytes === null) await store.delete(key);
      else await store.put(key, bytes);
      const attempt = restoreDatabaseTo(request(file, { kind: "txid", txid: 10 }), environment(store));
      const error = await attempt.then(() => null, (thrown) => thrown);
      if (error === null) { // LZ4 can say the same in another way: a match of equal bytes elsewhere
        assert.deepEqual(Deno.readFileSync(file), builder.bytesAt(10), `${key}, damage ${index}`);
        Deno.removeSync(file);
        continue;
      }
      // A count of pages beyond all bounds is too large for any disk.
      assert.ok(
        isError(error, "data-damaged", "not-found", "disk-full"),
        `${key}, damage ${index}: ${error}`,
      );
      assert.ok(error.hint !== undefined && error.meaning.exit !== 70, `${key}, damage ${index}`);
      assert.deepEqual(names(folder.path), before, `${key}, damage ${index}`);
    }
    await store.put(key, whole);
  }
  assert.deepEqual((await restored(store, file, { kind: "newest" })).bytes, builder.bytesAt(10));
});

Deno.test("an object under another's name, or with other pages than it should have, is refused", async () => {
  await using folder = scratchFolder("restore-");
  const store = newMemoryStore();
  using builder = await smallReplica(folder.path, store);
  const file = `${folder.path}/restored.db`;
  const refuse = (message: RegExp) =>
    assert.rejects(restored(store, file, { kind: "newest" }), { code: "data-damaged", message });
  const [snapshot, merged, ninth] = SMALL_REPLICA;

  const whole = (await store.get(replicaKey(BUCKET, ninth))).body;
  await builder.put(ninth, builder.encode({ level: 0, minTxid: 10, maxTxid: 10 }));
  await refuse(/it holds TXIDs 10 to 10/);
  await builder.put(ninth, whole);

  const tenth = SMALL_REPLICA[3];
  await builder.remove(tenth);
  await builder.put(
    { level: 1, minTxid: 9, maxTxid: 10 },
    builder.encode({ level: 1, minTxid: 9, maxTxid: 9 }),
  );
  await refuse(/it holds TXIDs 9 to 9/);
  await builder.remove({ level: 1, minTxid: 9, maxTxid: 10 });
  await builder.put(tenth);

  // A file that leaves out the page it grew by.
  const grown = builder.bytesAt(8).length / 512;
  await builder.put(merged, builder.encode(merged, (pgno, data) => pgno === grown ? null : data));
  assert.ok(builder.bytesAt(4).length / 512 < grown, "the history of this seed grows there");
  await refuse(/page \d+ of \d+ is in none of the files/);
  await builder.put(merged);

  using other = new ReplicaBuilder({ store: newMemoryStore(), place: BUCKET, folder: folder.path });
  await other.commitRandom(randomOf(11).float, 9);
  await builder.put(merged, other.encode(merged));
  await refuse(/page \d+ of \d+ is in none of the files/);
  await builder.put(merged);

  // A database that was broken before it was replicated: SQLite finds it, and on request it is restored all the same.
  await builder.put(snapshot, builder.encode(snapshot, (pgno, data) => pgno === 1 ? data : data.fill(0xee)));
  const broken = { kind: "txid", txid: 4 } as const;
  await assert.rejects(restored(store, file, broken), { code: "data-damaged", message: /SQLite says/ });
  assert.deepEqual(names(folder.path).filter((name) => name.includes("restored")), []);
  await restoreDatabaseTo(request(file, broken, { check: "none" }), environment(store));
  assert.equal(Deno.statSync(file).size, builder.bytesAt(4).length);
});

Deno.test("a database whose page size was changed restores from the commit that wrote it anew", async () => {
  await using folder = scratchFolder("restore-");
  const store = newMemoryStore();
  using builder = await smallReplica(folder.path, store);
  using wider = new ReplicaBuilder({
    store: newMemoryStore(),
    place: BUCKET,
    folder: folder.path,
    pageSize: 4096,
  });
  await wider.commitRandom(randomOf(12).float, 6);
  const bytes = wider.bytesAt(7);
  const commit = bytes.length / 4096;
  const header = { pageSize: 4096, commit, minTxid: 11, maxTxid: 11, timestampMs: timeOf(11), walOffset: 32 };
  const encoder = new LtxEncoder(header);
  const parts = [encoder.start()];
  for (let pgno = 1; pgno <= commit; pgno++) {
    parts.push(encoder.page(pgno, bytes.subarray((pgno - 1) * 4096, pgno * 4096)));
  }
  parts.push(encoder.finish().bytes);
  await builder.put(
    { level: 0, minTxid: 11, maxTxid: 11 },
    new Uint8Array(await new Blob(parts).arrayBuffer()),
  );
  const file = `${folder.path}/restored.db`;
  assert.deepEqual((await restored(store, file, { kind: "newest" })).bytes, bytes);
  assert.deepEqual((await restored(store, file, { kind: "txid", txid: 10 })).bytes, builder.bytesAt(10));
});

Deno.test("a restore plans anew when a planned file expires while it runs, and goes on from what it has", async () => {
  await using folder = scratchFolder("restore-");
  const inner = newMemoryStore();
  using builder = await smallReplica(folder.path, inner);
  let expired = false;
  const store: ObjectStore = {
    ...inner,
    get: async (key, options) => {
      const ninth = replicaKey(BUCKET, SMALL_REPLICA[2]);
      if (key === ninth && options?.range === undefined && !expired) {
        expired = true;
        await builder.put({ level: 1, minTxid: 9, maxTxid: 10 });
        await builder.remove(SMALL_REPLICA[2]);
      }
      return await inner.get(key, options);
    },
  };
  const { result, bytes } = await restored(store, `${folder.path}/restored.db`, { kind: "newest" });
  assert.deepEqual(bytes, builder.bytesAt(10));
  assert.equal(result.replans, 1);
  assert.equal(result.fileCount, 3, "snapshot, merged, and the new merged one: nothing twice");
});

Deno.test("a restore begins again when a large snapshot expires in its middle", async () => {
  await using folder = scratchFolder("restore-");
  const inner = newMemoryStore();
  using builder = new ReplicaBuilder({ store: inner, place: BUCKET, folder: folder.path });
  await builder.commit("CREATE TABLE t(a); INSERT INTO t VALUES(randomblob(20000000))");
  await builder.commit("INSERT INTO t VALUES(1)");
  const old = { level: 9, minTxid: 1, maxTxid: 1 };
  await builder.put(old);
  await builder.remove({ level: 0, minTxid: 1, maxTxid: 1 });
  let pieces = 0;
  const store: ObjectStore = {
    ...inner,
    get: async (key, options) => {
      if (key === replicaKey(BUCKET, old) && ++pieces === 3) {
        await builder.put({ level: 9, minTxid: 1, maxTxid: 2 });
        await builder.remove(old);
      }
      return await inner.get(key, options);
    },
  };
  const { result, bytes } = await restored(store, `${folder.path}/restored.db`, { kind: "newest" });
  assert.deepEqual(bytes, builder.bytesAt(2));
  assert.equal(result.replans, 1);
});

Deno.test("a restore gives up after four plans when an object is listed and never there", async () => {
  await using folder = scratchFolder("restore-");
  const inner = newMemoryStore();
  using _builder = await smallReplica(folder.path, inner);
  let lists = 0;
  const missing = replicaKey(BUCKET, SMALL_REPLICA[1]);
  const store: ObjectStore = {
    ...inner,
    list: (options) => {
      lists++;
      return inner.list(options);
    },
    get: (key, options) =>
      key === missing
        ? Promise.reject(new StateManagerError("object-not-found", "gone"))
        : inner.get(key, options),
  };
  await assert.rejects(restored(store, `${folder.path}/restored.db`, { kind: "newest" }), {
    code: "object-not-found",
    message: /is listed and not there/,
  });
  assert.equal(lists, 4);
  assert.deepEqual(names(folder.path).filter((name) => name.includes("restored")), []);
});

Deno.test("a restore keeps few requests in flight, and uses several at a time", async () => {
  await using folder = scratchFolder("restore-");
  const inner = newMemoryStore();
  using builder = new ReplicaBuilder({ store: inner, place: BUCKET, folder: folder.path });
  await builder.commit("CREATE TABLE t(a); INSERT INTO t VALUES(randomblob(2000000))");
  for (let turn = 0; turn < 60; turn++) await builder.commit(`INSERT INTO t VALUES(${turn})`);
  const flight = { now: 0, most: 0 };
  const store: ObjectStore = {
    ...inner,
    get: async (key, options) => {
      flight.most = Math.max(flight.most, ++flight.now);
      try {
        await new Promise((resolve) => setTimeout(resolve, 1));
        return await inner.get(key, options);
      } finally {
        flight.now--;
      }
    },
  };
  const { bytes } = await restored(store, `${folder.path}/restored.db`, { kind: "newest" });
  assert.deepEqual(bytes, builder.bytesAt(61));
  assert.ok(flight.most > 4 && flight.most <= 16, `${flight.most} requests at a time`);
});

Deno.test("an aborted restore rejects with the reason and leaves no file", async () => {
  await using folder = scratchFolder("restore-");
  const store = newMemoryStore();
  using _builder = await smallReplica(folder.path, store);
  const before = names(folder.path);
  const abort = new AbortController();
  const reason = new StateManagerError("cancelled", "test: not wanted any more");
  const onProgress = () => abort.abort(reason);
  const attempt = restoreDatabaseTo(request(`${folder.path}/restored.db`, { kind: "newest" }), {
    ...environment(store),
    signal: abort.signal,
    onProgress,
  });
  await assert.rejects(attempt, reason);
  assert.deepEqual(names(folder.path), before);
});

Deno.test("a store that fails in the middle of a restore leaves no file", async () => {
  await using folder = scratchFolder("restore-");
  const inner = newMemoryStore();
  using builder = await smallReplica(folder.path, inner);
  const before = names(folder.path);
  let failures = 0;
  for (let nth = 1; nth < 40; nth++) {
    const store = faulty(inner, { clock, rules: [{ nth, error: "store-unreachable" }] });
    try {
      const { bytes } = await restored(store, `${folder.path}/restored.db`, { kind: "newest" });
      assert.deepEqual(bytes, builder.bytesAt(10));
      break;
    } catch (error) {
      assert.ok(isError(error, "store-unreachable"), `request ${nth}: ${error}`);
      failures++;
    }
    assert.deepEqual(names(folder.path), before, `request ${nth}`);
  }
  assert.ok(failures >= 5, `${failures} requests failed`);
});

Deno.test("a restore refuses a name that is taken, and replaces what a crash left of an earlier one", async () => {
  await using folder = scratchFolder("restore-");
  const store = newMemoryStore();
  using builder = await smallReplica(folder.path, store);
  const file = `${folder.path}/deep/er/restored.db`;
  Deno.mkdirSync(`${folder.path}/deep/er`, { recursive: true });
  for (const suffix of ["", "-wal", "-shm", "-journal"]) {
    Deno.writeTextFileSync(file + suffix, "mine");
    await assert.rejects(restored(store, file, { kind: "newest" }), { code: "usage" });
    assert.equal(Deno.readTextFileSync(file + suffix), "mine");
    Deno.removeSync(file + suffix);
  }
  Deno.writeTextFileSync(`${folder.path}/deep/er/.sm-swap-database-restored.db`, "half");
  Deno.writeTextFileSync(`${folder.path}/deep/er/.sm-swap-database-restored.db-wal`, "half");
  assert.deepEqual((await restored(store, file, { kind: "newest" })).bytes, builder.bytesAt(10));
  assert.deepEqual(names(`${folder.path}/deep/er`), []);
});

Deno.test("a restored file has the owner and mode that were asked for", async () => {
  await using folder = scratchFolder("restore-");
  const store = newMemoryStore();
  using _builder = await smallReplica(folder.path, store);
  const file = `${folder.path}/restored.db`;
  const owner = { uid: 4321, gid: 1234 };
  const result = await restoreDatabase(
    request(file, { kind: "newest" }, { owner, mode: 0o640 }),
    environment(store),
  );
  const { mode, uid, gid } = Deno.statSync(file);
  assert.equal((mode ?? 0) & 0o7777, 0o640);
  if (asRoot) assert.deepEqual({ uid, gid }, owner);
  else assert.match(result.warnings.join(), /owner 4321:1234 not set/);
});

Deno.test("a restore that does not fit on the disk is refused before anything is written", async () => {
  await using folder = scratchFolder("restore-");
  const store = newMemoryStore();
  using builder = await smallReplica(folder.path, store);
  const name = SMALL_REPLICA[3];
  const bytes = builder.encode(name);
  new DataView(bytes.buffer).setUint32(12, 0xfffffff0); // the header's size in pages: some terabytes
  await builder.put(name, bytes);
  await assert.rejects(restored(store, `${folder.path}/restored.db`, { kind: "newest" }), {
    code: "disk-full",
    message: /needs \d{13} bytes/,
  });
  assert.deepEqual(names(folder.path).filter((each) => each.includes("restored")), []);
});

Deno.test("a plan tells what a restore would read, and reads little itself", async () => {
  await using folder = scratchFolder("restore-");
  const store = newMemoryStore();
  using builder = await smallReplica(folder.path, store);
  const plan = await planDatabaseRestore({ place: BUCKET, target: { kind: "newest" } }, environment(store));
  assert.deepEqual(
    plan.files.map(({ level, minTxid, maxTxid }) => ({ level, minTxid, maxTxid })),
    SMALL_REPLICA,
  );
  assert.equal(plan.txid, 10);
  assert.equal(plan.databaseBytes, builder.bytesAt(10).length);
  assert.equal(plan.fetchBytes, plan.files.reduce((sum, file) => sum + file.sizeBytes, 0));
});

Deno.test("a drill passes on a sound replica, fails on a broken one, and does not judge an unreachable store", async () => {
  await using folder = scratchFolder("restore-");
  const store = newMemoryStore();
  using builder = await smallReplica(folder.path, store);
  const drill = (over: ObjectStore) =>
    drillDatabase({ place: BUCKET, file: `${folder.path}/drill.db` }, environment(over));
  const passed = await drill(store);
  assert.equal(passed.outcome, "passed");
  assert.equal(passed.restored?.txid, 10);
  await builder.remove(SMALL_REPLICA[2]);
  const failed = await drill(store);
  assert.equal(failed.outcome, "failed");
  assert.match(failed.error?.message ?? "", /no file of the replica holds TXID 9/);
  const away = await drill(
    faulty(store, { clock, rules: [{ count: Infinity, error: "store-unreachable" }] }),
  );
  assert.equal(away.outcome, "not-run");
  assert.deepEqual(names(folder.path).filter((name) => name.includes("drill")), []);
});

Deno.test("listDatabases finds both layouts and names with slashes, and leaves out what is no replica", async () => {
  await using folder = scratchFolder("restore-");
  const store = newMemoryStore();
  const places: readonly ReplicaPlace[] = [
    { layout: "bucket", name: "app" },
    { layout: "bucket", name: "tenants/one.db" },
    { layout: "folder", name: "tenants/two.db" },
    { layout: "bucket", name: "tenants" },
  ];
  for (const place of places) {
    using builder = new ReplicaBuilder({ store, place, folder: Deno.makeTempDirSync({ dir: folder.path }) });
    await builder.commit("CREATE TABLE t(a)");
    await builder.commit("CREATE TABLE u(a)");
  }
  await store.put("databases/notes.txt", new Uint8Array(500));
  await store.put("databases/app/0000/readme", new Uint8Array(500));
  const found = await listDatabases(store);
  assert.deepEqual(
    found.map(({ name, layout, files, newestTxid }) => [name, layout, files, newestTxid]),
    [
      ["app", "bucket", 2, 2],
      ["tenants", "bucket", 2, 2],
      ["tenants/one.db", "bucket", 2, 2],
      ["tenants/two.db", "folder", 2, 2],
    ],
  );
  assert.equal((await findReplica(store, "tenants/two.db", "bucket"))?.layout, "folder");
  assert.equal((await findReplica(store, "tenants", "folder"))?.layout, "bucket");
  assert.equal(await findReplica(store, "none", "folder"), null);
});
