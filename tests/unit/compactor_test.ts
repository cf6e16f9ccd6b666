/** The compactor with real files: what a restore gives stays the same while files are merged and deleted under it. */

import assert from "node:assert/strict";
import { Compactor, type CompactorOptions } from "../../src/database/compactor.ts";
import { readHeader } from "../../src/database/ltx/mod.ts";
import { replicaKey, type ReplicaPlace, SNAPSHOT_LEVEL } from "../../src/database/replica_layout.ts";
import { HolderListing, listReplica } from "../../src/database/replica_listing.ts";
import { SendWindow } from "../../src/database/replica_window.ts";
import { restorePoints } from "../../src/database/restore_plan.ts";
import { SlotWriter } from "../../src/database/slot_writer.ts";
import type { ReadableFile } from "../../src/platform/local_files.ts";
import { MemoryDisk } from "../../src/platform/memory_disk.ts";
import { faulty } from "../../src/storage/faulty_store.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { withOperations } from "../../src/storage/object_store.ts";
import { observed } from "../../src/storage/observed_store.ts";
import { ModelDatabase, type ModelOptions, restored } from "../support/replica_files.ts";
import { randomOf } from "../support/seeded_random.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const PLACE: ReplicaPlace = { layout: "folder", name: "app" };
const TOKEN = 3;
const SECOND_MS = 1_000;
const SNAPSHOT_INTERVAL_MS = 3_600_000;

/** A holder whose commits are in the store at once. */
class Scene {
  readonly clock = new VirtualClock();
  readonly inner = memoryStore({ clock: this.clock });
  readonly store = faulty(
    observed(this.inner, this.clock, ({ kind }) => {
      this.requests++;
      this.kinds.push(kind);
    }),
    { clock: this.clock },
  );
  readonly window = new SendWindow(this.clock, Infinity);
  readonly listing = HolderListing.of(PLACE, []);
  readonly pins = new Set<number>();
  readonly database: ModelDatabase;
  readonly compactor: Compactor;
  readonly signal = new AbortController().signal;
  readonly files = new MemoryDisk();
  readonly kinds: string[] = [];
  requests = 0;

  constructor(model: ModelOptions = { random: randomOf(11) }, options: Partial<CompactorOptions> = {}) {
    this.database = new ModelDatabase(model);
    this.compactor = this.newCompactor(options);
  }

  newCompactor(options: Partial<CompactorOptions> = {}): Compactor {
    return new Compactor({
      store: this.store,
      place: PLACE,
      token: TOKEN,
      window: this.window,
      listing: this.listing,
      clock: this.clock,
      files: this.files,
      scratchPath: "/scratch",
      snapshotIntervalMs: SNAPSHOT_INTERVAL_MS,
      retentionMs: SNAPSHOT_INTERVAL_MS,
      pins: () => [...this.pins],
      ...options,
    });
  }

  async commit(whole = false): Promise<number> {
    const nowMs = this.clock.wallMs();
    const txid = this.database.commit({ token: TOKEN, nowMs, whole });
    const name = { level: 0, minTxid: txid, maxTxid: txid };
    const body = this.database.files.get(txid) ?? new Uint8Array();
    await this.inner.put(replicaKey(PLACE, name), body);
    this.listing.added({ ...name, sizeBytes: body.length, timestampMs: nowMs, modifiedMs: nowMs });
    return txid;
  }

  /** Time passes, and a turn is made. */
  async turn(ms = 30 * SECOND_MS): Promise<void> {
    this.clock.jump(ms);
    await this.compactor.turn(this.signal);
  }

  async assertListed(): Promise<void> {
    const { files } = await listReplica(this.inner, PLACE);
    assert.deepEqual(
      this.listing.files.map(({ key, sizeBytes }) => [key, sizeBytes]),
      files.map(({ key, sizeBytes }) => [key, sizeBytes]),
    );
  }

  async assertRestores(txid: number, where = ""): Promise<void> {
    const got = await restored(this.inner, PLACE, { kind: "txid", txid });
    assert.deepEqual([got.txid, got.digest], [txid, this.database.digests.get(txid)], where);
  }

  keys(level: number): string[] {
    return this.listing.level(level).map(({ minTxid, maxTxid }) => `${minTxid}-${maxTxid}`);
  }
}

Deno.test("Compactor keeps every restore point the same through merges, snapshots and retention", async () => {
  for (const seed of [21, 22, 23]) {
    const random = randomOf(seed);
    const scene = new Scene({ random, pageSize: seed === 23 ? 4096 : 512 });
    for (let step = 0; step < 400; step++) {
      const where = `seed ${seed}, step ${step}`;
      for (let n = Math.floor(random.float() * 3); n > 0; n--) await scene.commit(random.float() < 0.02);
      if (scene.database.txid > 0 && random.float() < 0.03) scene.pins.add(scene.database.txid);
      await scene.turn(15 * SECOND_MS);
      assert.equal(scene.compactor.status().lastError, null, where);
      if (step % 80 !== 79) continue;
      await scene.assertListed();
      const { files } = await listReplica(scene.inner, PLACE);
      const points = restorePoints(files.map((file) => ({ ...file, timestampMs: file.modifiedMs })));
      assert.equal(points.at(-1)?.txid, scene.database.txid, where);
      for (let n = 0; n < 8; n++) {
        const point = points[Math.floor(random.float() * points.length)];
        if (point !== undefined) await scene.assertRestores(point.txid, where);
      }
      for (const pin of scene.pins) await scene.assertRestores(pin, where);
    }
    const { merges, snapshots, deletedFiles, defects, unreachablePins } = scene.compactor.status();
    assert.ok(
      merges > 100 && snapshots >= 2 && deletedFiles > 100,
      `seed ${seed}: ${merges}, ${snapshots}, ${deletedFiles}`,
    );
    assert.deepEqual([defects, unreachablePins], [[], []]);
  }
});

Deno.test("Compactor deletes nothing that is young by the store's clock, however far ahead the machine's is", async () => {
  const scene = new Scene();
  const store = withOperations(scene.store, { clockMs: () => scene.clock.wallMs() });
  const clock = {
    monotonicMs: () => scene.clock.monotonicMs(),
    wallMs: () => scene.clock.wallMs() + 30 * 24 * 3_600_000,
    sleep: () => Promise.reject(new Error("not asked for")),
  };
  const compactor = scene.newCompactor({ store, clock });
  const turns = async (count: number) => {
    for (let left = count; left > 0; left--) {
      await scene.commit();
      scene.clock.jump(30 * SECOND_MS);
      await compactor.turn(scene.signal);
      assert.equal(compactor.status().lastError, null);
    }
  };
  await turns(8);
  assert.deepEqual([compactor.status().deletedFiles, scene.keys(0).length], [0, 8]);
  assert.ok(compactor.status().merges > 0);
  await turns(8);
  assert.ok(compactor.status().deletedFiles > 0); // five minutes old by the store's clock
});

Deno.test("Compactor writes the newest commit's time, size and our token into what it makes", async () => {
  const scene = new Scene();
  for (let commit = 0; commit < 3; commit++) {
    scene.clock.jump(SECOND_MS);
    await scene.commit();
  }
  const wallMs = scene.clock.wallMs();
  await scene.turn();
  for (const { level, key } of scene.listing.files.filter((file) => file.level > 0)) {
    const header = readHeader((await scene.inner.get(key)).body.subarray(0, 100));
    assert.deepEqual(
      [header.timestampMs, header.nodeId, header.maxTxid],
      [wallMs, TOKEN, 3],
      `level ${level}`,
    );
  }
});

Deno.test("Compactor makes the first snapshot before the levels, so that they begin after it", async () => {
  const scene = new Scene();
  await scene.commit();
  await scene.turn();
  assert.deepEqual([scene.keys(9), scene.keys(1)], [["1-1"], []]);
  await scene.commit();
  await scene.turn();
  assert.deepEqual([scene.keys(9), scene.keys(1)], [["1-1"], ["2-2"]]);
});

Deno.test("Compactor of a new term makes of each level what its newest file makes due, and no more", async () => {
  const scene = new Scene();
  await scene.commit();
  await scene.turn(0);
  await scene.commit();
  await scene.newCompactor().turn(scene.signal); // the levels have their first files
  assert.deepEqual([scene.keys(1), scene.keys(2), scene.keys(3)], [["2-2"], ["2-2"], ["2-2"]]);
  const next = scene.newCompactor();
  await scene.commit(); // its seal
  await next.turn(scene.signal);
  assert.deepEqual([next.status().merges, next.status().requests], [0, 0]);
  scene.clock.jump(30 * SECOND_MS);
  await next.turn(scene.signal);
  assert.deepEqual([scene.keys(1), scene.keys(2), scene.keys(3)], [["2-2", "3-3"], ["2-2"], ["2-2"]]);
  await scene.assertRestores(3);
  scene.clock.jump(SNAPSHOT_INTERVAL_MS);
  await next.turn(scene.signal);
  assert.deepEqual([scene.keys(2), scene.keys(3)], [["2-2", "3-3"], ["2-2", "3-3"]]);
  await scene.assertRestores(3);
});

Deno.test("Compactor sends nothing for an idle database", async () => {
  const scene = new Scene();
  for (let commit = 0; commit < 5; commit++) await scene.commit();
  for (let hour = 0; hour < 4; hour++) await scene.turn(3_600 * SECOND_MS);
  const { requests } = scene;
  for (let step = 0; step < 500; step++) await scene.turn(600 * SECOND_MS);
  assert.equal(scene.requests, requests);
  assert.ok(!scene.kinds.includes("list"));
  // The newest of each level stays: it is where the next merge goes on.
  assert.deepEqual([scene.keys(0), scene.keys(9)], [["5-5"], ["1-5"]]);
});

Deno.test("Compactor sends nothing while the window is closed", async () => {
  const scene = new Scene();
  await scene.commit();
  scene.window.renew(null);
  await scene.turn();
  assert.equal(scene.requests, 0);
  scene.window.renew(Infinity);
  await scene.turn();
  assert.deepEqual(scene.keys(9), ["1-1"]);
});

Deno.test("Compactor counts a merge that is there already as done", async () => {
  const scene = new Scene();
  await scene.commit();
  await scene.turn();
  await scene.commit();
  await scene.turn();
  const key = scene.listing.level(1)[0]?.key ?? "";
  const there = (await scene.inner.get(key)).body;
  // As a holder that did not see it.
  scene.listing.removed(key);
  await scene.newCompactor().turn(scene.signal);
  assert.deepEqual(scene.keys(1), ["2-2"]);
  assert.deepEqual((await scene.inner.get(key)).body, there);
});

Deno.test("Compactor deletes nothing in a turn in which anything failed, and does it at the next", async () => {
  const scene = new Scene();
  for (let commit = 0; commit < 10; commit++) await scene.commit();
  await scene.turn();
  await scene.commit();
  scene.clock.jump(600 * SECOND_MS);
  const end = scene.store.inject({ operation: "get", count: Infinity, error: "store-unreachable" });
  await scene.turn();
  assert.equal(scene.compactor.status().lastError?.error.code, "store-unreachable");
  assert.equal(scene.compactor.status().deletedFiles, 0);
  assert.equal(scene.listing.level(0).length, 11);
  end();
  await scene.turn();
  assert.deepEqual(scene.keys(0), ["11-11"]);
  await scene.assertListed();
});

Deno.test("Compactor sends a delete of unknown outcome again", async () => {
  const scene = new Scene();
  for (let commit = 0; commit < 4; commit++) await scene.commit();
  await scene.turn();
  scene.store.inject({ operation: "delete", error: "store-unreachable" });
  await scene.turn(600 * SECOND_MS);
  assert.equal(scene.compactor.status().errors, 1);
  await scene.turn();
  await scene.assertListed();
  assert.deepEqual(scene.keys(0), ["4-4"]);
});

Deno.test("Compactor stops at a damaged file, keeps all there is, and says which", async () => {
  const scene = new Scene();
  for (let commit = 0; commit < 4; commit++) await scene.commit();
  const key = scene.listing.level(0)[2]?.key ?? "";
  const { body } = await scene.inner.get(key);
  body[150] = (body[150] ?? 0) ^ 1;
  await scene.inner.put(key, body);
  for (let step = 0; step < 30; step++) await scene.turn();
  const { lastError, deletedFiles, merges } = scene.compactor.status();
  assert.equal(lastError?.error.code, "data-damaged");
  assert.match(lastError?.error.message ?? "", new RegExp(key.slice(-20, -4)));
  assert.deepEqual([deletedFiles, merges], [0, 0]);
});

Deno.test("Compactor lists anew, a little later, when the store lacks what its listing shows", async () => {
  const scene = new Scene();
  for (let commit = 0; commit < 4; commit++) await scene.commit();
  await scene.turn();
  await scene.commit();
  // A former holder's delete arrives late: the files are in the snapshot.
  scene.listing.added({
    level: 0,
    minTxid: 6,
    maxTxid: 6,
    sizeBytes: 300,
    timestampMs: 0,
    modifiedMs: scene.clock.wallMs(),
  });
  for (let step = 0; step < 5; step++) await scene.turn();
  assert.deepEqual(scene.keys(1), ["5-5"]);
  assert.equal(scene.kinds.filter((kind) => kind === "list").length, 1);
  await scene.assertListed();
});

Deno.test("Compactor begins a new file where the page size changes, and a snapshot after it", async () => {
  const scene = new Scene();
  await scene.commit();
  await scene.turn();
  await scene.commit();
  await scene.commit();
  const wider = new ModelDatabase({ random: randomOf(12), pageSize: 1024 });
  const nowMs = scene.clock.wallMs();
  for (let txid = 1; txid <= 5; txid++) {
    wider.commit({ token: TOKEN, nowMs, whole: true });
    if (txid < 4) continue;
    const name = { level: 0, minTxid: txid, maxTxid: txid };
    const body = wider.files.get(txid) ?? new Uint8Array();
    await scene.inner.put(replicaKey(PLACE, name), body);
    scene.listing.added({ ...name, sizeBytes: body.length, timestampMs: nowMs, modifiedMs: nowMs });
  }
  await scene.turn();
  assert.deepEqual(scene.keys(1), ["2-3", "4-5"]);
  await scene.turn(SNAPSHOT_INTERVAL_MS);
  assert.equal(scene.compactor.status().lastError, null);
  assert.deepEqual(scene.keys(SNAPSHOT_LEVEL), ["1-1", "1-5"]);
  const got = await restored(scene.inner, PLACE, { kind: "newest" });
  assert.equal(got.digest, wider.digests.get(5));
});

/** A disk that loses a bit of what is read from it. */
class RottenDisk extends MemoryDisk {
  isRotten = true;

  override async open(path: string): Promise<ReadableFile> {
    const file = await super.open(path);
    return {
      facts: () => file.facts(),
      read: async (target, position) => {
        const count = await file.read(target, position);
        if (this.isRotten && position === 0) target[500] = (target[500] ?? 0) ^ 1;
        return count;
      },
      [Symbol.dispose]: () => file[Symbol.dispose](),
    };
  }
}

Deno.test("Compactor verifies a large output in the scratch file before it is put, and leaves no file", async () => {
  const files = new RottenDisk();
  const scene = new Scene({ random: randomOf(13), pageSize: 65536, mostPages: 260 }, { files });
  for (let commit = 0; commit < 160; commit++) await scene.commit();
  await scene.turn();
  assert.equal(scene.compactor.status().lastError?.error.code, "data-damaged");
  assert.ok(!scene.kinds.includes("put"));
  assert.deepEqual(await files.list("/"), []);
  files.isRotten = false;
  scene.clock.jump(60 * SECOND_MS);
  await scene.turn();
  assert.equal(scene.compactor.status().errors, 1);
  const [snapshot] = scene.listing.level(SNAPSHOT_LEVEL);
  assert.ok((snapshot?.sizeBytes ?? 0) > 5 * 1024 * 1024, `${snapshot?.sizeBytes} bytes`);
  await scene.assertRestores(160);
  assert.deepEqual(await files.list("/"), []);
});

Deno.test("Compactor turns when the wall clock passes an interval, within the gate, until its signal", async () => {
  const scene = new Scene();
  await scene.commit();
  const controller = new AbortController();
  const turns: number[] = [];
  const startMs = scene.clock.wallMs();
  const running = scene.compactor.run(controller.signal, (work) => {
    turns.push(scene.clock.wallMs() - startMs);
    return work();
  });
  await scene.clock.advance(10 * SECOND_MS);
  await scene.commit();
  await scene.clock.advance(60 * SECOND_MS);
  assert.deepEqual(turns, [0, 30 * SECOND_MS, 60 * SECOND_MS]);
  assert.deepEqual([scene.keys(9), scene.keys(1)], [["1-1"], ["2-2"]]);
  controller.abort();
  await running;
  assert.equal(scene.clock.sleeping, 0);
});

Deno.test("Compactor ends a turn at the deadline and goes on with it when the lease is renewed", async () => {
  const scene = new Scene();
  for (let commit = 0; commit < 6; commit++) await scene.commit();
  scene.window.renew(scene.clock.monotonicMs() + SECOND_MS);
  scene.store.inject({ operation: "get", nth: 3, delayMs: 5 * SECOND_MS });
  const turn = scene.compactor.turn(scene.signal);
  await scene.clock.advance(10 * SECOND_MS);
  await turn;
  const { requests } = scene;
  await scene.turn();
  assert.deepEqual([scene.requests, scene.keys(9), scene.compactor.status().errors], [requests, [], 0]);
  scene.window.renew(Infinity);
  await scene.turn();
  assert.deepEqual(scene.keys(9), ["1-6"]);
});

Deno.test("Compactor and SlotWriter work on one listing beside each other", async () => {
  const scene = new Scene();
  await using writer = new SlotWriter({
    store: scene.store,
    place: PLACE,
    token: TOKEN,
    base: { txid: 0, token: 0 },
    window: new SendWindow(scene.clock, scene.clock.monotonicMs() + 1e9),
    clock: scene.clock,
    random: randomOf(14),
    openLocal: scene.database.openLocal,
    listing: scene.listing,
  });
  writer.start();
  for (let step = 0; step < 60; step++) {
    const txid = scene.database.commit({ token: TOKEN, nowMs: scene.clock.wallMs() });
    writer.committed({ txid, sizeBytes: scene.database.size(txid) });
    await scene.turn(15 * SECOND_MS);
  }
  await writer.whenDurable(60);
  await scene.turn();
  await scene.assertListed();
  const got = await restored(scene.inner, PLACE, { kind: "newest" });
  assert.deepEqual([got.txid, got.digest], [60, scene.database.digests.get(60)]);
});
