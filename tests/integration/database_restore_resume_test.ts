/** A restore that was interrupted goes on with what it had fetched, and with nothing else, whatever lies there. */

import assert from "node:assert/strict";
import type { ReplicaPlace } from "../../src/database/replica_layout.ts";
import { removeInterrupted, restoreDatabase } from "../../src/database/restore_database.ts";
import { stagePathOf } from "../../src/database/database_swap.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { ReplicaBuilder } from "../support/replica_builder.ts";
import { scratchFolder } from "../support/tree_model.ts";

const PLACE: ReplicaPlace = { layout: "bucket", name: "app" };
const MIB = 1024 * 1024;
const clock = systemClock();
/** It loads libc, which older runtimes count as a leak of the test that does it. */
isRoot();

/** A database of 20 MiB that nothing makes smaller: one object of three pieces. */
async function replica(folder: string): Promise<{ store: ObjectStore; builder: ReplicaBuilder }> {
  const store = memoryStore();
  Deno.mkdirSync(folder);
  const builder = new ReplicaBuilder({ store, place: PLACE, folder, pageSize: 65536 });
  await builder.commit(`CREATE TABLE t(body); INSERT INTO t VALUES(randomblob(${20 * MIB}))`);
  await builder.commit("INSERT INTO t VALUES('small')");
  return { store, builder };
}

class Scene {
  readonly file: string;
  /** Bytes that came from the store. */
  fetched = 0;
  readonly #store: ObjectStore;

  constructor(folder: string, store: ObjectStore) {
    this.file = stagePathOf(`${folder}/app.db`);
    const get: ObjectStore["get"] = async (key, options) => {
      const object = await store.get(key, options);
      this.fetched += object.body.length;
      return object;
    };
    this.#store = new Proxy(store, {
      get: (target, name) => name === "get" ? get : Reflect.get(target, name),
    });
  }

  get pieces(): string[] {
    try {
      return [...Deno.readDirSync(`${this.file}.pieces`)].map(({ name }) => name).sort();
    } catch {
      return [];
    }
  }

  pathOf(piece: string): string {
    return `${this.file}.pieces/${piece}`;
  }

  async restore(resumable = true, signal = new AbortController().signal, onBytes = (_bytes: number) => {}) {
    this.fetched = 0;
    const request = { place: PLACE, target: { kind: "newest" }, file: this.file, owner: null } as const;
    return await restoreDatabase({ ...request, mode: 0o600, check: "none", resumable }, {
      store: this.#store,
      clock,
      signal,
      onProgress: ({ bytes }) => onBytes(bytes),
    });
  }

  /** Ends a restore when 16 MiB are applied; what is left is the pieces. */
  async interrupt(): Promise<void> {
    const stop = new AbortController();
    const reason = new StateManagerError("cancelled", "stopped");
    const restored = this.restore(true, stop.signal, (bytes) => bytes >= 16 * MIB && stop.abort(reason));
    await assert.rejects(restored, (error) => isError(error, "cancelled"));
    assert.ok(this.pieces.length >= 2, this.pieces.join());
    assert.throws(() => Deno.statSync(this.file), Deno.errors.NotFound);
  }

  assertRestored(builder: ReplicaBuilder): void {
    const [bytes, wanted] = [Deno.readFileSync(this.file), builder.bytesAt(builder.txid)];
    assert.ok(
      bytes.length === wanted.length && bytes.every((byte, at) => byte === wanted[at]),
      "byte by byte",
    );
    assert.deepEqual(this.pieces, [], "nothing is left when it is done");
  }
}

async function interrupted(folder: string): Promise<{ builder: ReplicaBuilder; scene: Scene }> {
  const { store, builder } = await replica(`${folder}/a`);
  const scene = new Scene(folder, store);
  await scene.interrupt();
  return { builder, scene };
}

/** An object that is whole and right in itself, of this size, with other content. Nearly each mask gives one. */
function sameSize(builder: ReplicaBuilder, sizeBytes: number): Uint8Array {
  for (let mask = 255; mask > 0; mask--) {
    const bytes = builder.encode(
      { level: 0, minTxid: 1, maxTxid: 1 },
      (pgno, page) => pgno === 1 ? page : page.map((byte) => byte ^ mask),
    );
    if (bytes.length === sizeBytes) return bytes;
  }
  assert.fail("no mask gives the same size");
}

Deno.test("a restore that was interrupted fetches only what it had not", async () => {
  await using folder = scratchFolder("resume-");
  const { builder, scene } = await interrupted(folder.path);
  using _builder = builder;
  const kept = scene.pieces.length * 8 * MIB;
  const result = await scene.restore();
  assert.equal(result.reusedBytes, kept);
  assert.ok(scene.fetched < result.fetchBytes - kept + 1000, `${scene.fetched} bytes were fetched`);
  scene.assertRestored(builder);
});

Deno.test("pieces of another database, all of them and under the very names of this one's, are never taken for its own", async () => {
  await using folder = scratchFolder("resume-");
  const { builder, scene } = await interrupted(folder.path);
  using _builder = builder;
  const [first = ""] = scene.pieces;
  const other = sameSize(builder, Number(first.split("-").at(-2)));
  for (let start = 0; start < other.length; start += 8 * MIB) {
    const piece = scene.pathOf(first.replace(/[0-9]+$/, String(start)));
    Deno.writeFileSync(piece, other.subarray(start, start + 8 * MIB));
  }
  await scene.restore();
  scene.assertRestored(builder);
});

Deno.test("pieces that a power cut left damaged or short are fetched anew", async () => {
  await using folder = scratchFolder("resume-");
  const { builder, scene } = await interrupted(folder.path);
  using _builder = builder;
  const [first = ""] = scene.pieces;
  Deno.truncateSync(scene.pathOf(first), MIB);
  const { reusedBytes } = await scene.restore();
  assert.ok(reusedBytes > 0, "the others are as they were");
  scene.assertRestored(builder);
  await scene.interrupt();
  const [damaged = ""] = scene.pieces;
  const bytes = Deno.readFileSync(scene.pathOf(damaged));
  bytes.fill(0, 5 * MIB);
  Deno.writeFileSync(scene.pathOf(damaged), bytes);
  await scene.restore();
  scene.assertRestored(builder);
});

Deno.test("pieces are kept for a restore that may go on, and for no other", async () => {
  await using folder = scratchFolder("resume-");
  const { builder, scene } = await interrupted(folder.path);
  using _builder = builder;
  const { reusedBytes } = await scene.restore(false);
  assert.equal(reusedBytes, 0);
  scene.assertRestored(builder);

  await scene.interrupt();
  await builder.put({ level: 0, minTxid: 2, maxTxid: 2 }, new Uint8Array(200));
  await assert.rejects(scene.restore(), (error) => isError(error, "data-damaged"));
  assert.deepEqual(scene.pieces, [], "it cannot go on");

  await builder.put({ level: 0, minTxid: 2, maxTxid: 2 });
  await scene.interrupt();
  await removeInterrupted(`${folder.path}/app.db`);
  assert.deepEqual(scene.pieces, [], "a start that needs no restore");
});
