/** The slot writer over a store that fails as told: what is sent, what is durable, and when nothing is sent. */

import assert from "node:assert/strict";
import { replicaKey, type ReplicaPlace } from "../../src/database/replica_layout.ts";
import { HolderListing, listReplica } from "../../src/database/replica_listing.ts";
import { SendWindow } from "../../src/database/replica_window.ts";
import { SlotWriter, type SlotWriterOptions } from "../../src/database/slot_writer.ts";
import { isError } from "../../src/platform/errors.ts";
import { type FaultRule, faulty } from "../../src/storage/faulty_store.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { observed } from "../../src/storage/observed_store.ts";
import { ModelDatabase } from "../support/replica_files.ts";
import { randomOf } from "../support/seeded_random.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const PLACE: ReplicaPlace = { layout: "bucket", name: "app" };
const TOKEN = 7;
const slot = (txid: number) => replicaKey(PLACE, { level: 0, minTxid: txid, maxTxid: txid });

/** Everything around one writer. */
class Scene implements AsyncDisposable {
  readonly clock = new VirtualClock();
  readonly inner: ObjectStore;
  readonly store: ReturnType<typeof faulty>;
  readonly requests: string[] = [];
  readonly window: SendWindow;
  readonly database: ModelDatabase;
  readonly listing = HolderListing.of(PLACE, []);
  readonly writer: SlotWriter;

  constructor(options: Partial<SlotWriterOptions> & { readonly database?: ModelDatabase } = {}) {
    this.inner = options.store ?? memoryStore({ clock: this.clock });
    this.store = faulty(
      observed(
        this.inner,
        this.clock,
        ({ kind, key }) => this.requests.push(`${kind} ${key.slice(-20, -4)}`),
      ),
      { clock: this.clock },
    );
    this.window = new SendWindow(this.clock, this.clock.monotonicMs() + 60_000);
    this.database = options.database ?? new ModelDatabase({ random: randomOf(5) });
    this.writer = new SlotWriter({
      place: PLACE,
      token: TOKEN,
      base: { txid: 0, token: 0 },
      clock: this.clock,
      random: randomOf(6),
      openLocal: this.database.openLocal,
      listing: this.listing,
      window: this.window,
      ...options,
      store: this.store,
    });
    this.writer.start();
  }

  fault(rule: FaultRule): () => void {
    return this.store.inject(rule);
  }

  commit(token = TOKEN): number {
    const txid = this.database.commit({ token, nowMs: this.clock.wallMs() });
    this.writer.committed({ txid, sizeBytes: this.database.size(txid) });
    return txid;
  }

  async stored(txid: number): Promise<Uint8Array | null> {
    try {
      return (await this.inner.get(slot(txid))).body;
    } catch {
      return null;
    }
  }

  async assertStored(...txids: number[]): Promise<void> {
    for (const txid of txids) assert.deepEqual(await this.stored(txid), this.database.files.get(txid));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.writer[Symbol.asyncDispose]();
    await this.clock.advance(0);
    assert.equal(this.clock.sleeping, 0, "no timer is left");
  }
}

Deno.test("SlotWriter uploads commits in order, one request each, and tells the listing", async () => {
  await using scene = new Scene();
  for (let commit = 0; commit < 5; commit++) scene.commit();
  await scene.writer.whenDurable(5);
  await scene.assertStored(1, 2, 3, 4, 5);
  assert.equal(scene.requests.length, 5);
  assert.deepEqual(
    scene.listing.files.map(({ key, sizeBytes }) => [key, sizeBytes]),
    (await listReplica(scene.inner, PLACE)).files.map(({ key, sizeBytes }) => [key, sizeBytes]),
  );
  const { metadata } = await scene.inner.head(slot(5));
  assert.equal(
    metadata["litestream-timestamp"],
    new Date(scene.listing.newest(0)?.timestampMs ?? 0).toISOString(),
  );
  assert.equal(metadata["sm-token"], String(TOKEN));
  assert.equal(scene.writer.status().sealed, true);
  assert.equal(scene.writer.status().lagMs, 0);
});

Deno.test("SlotWriter has one upload under way, and a lag from the oldest commit that waits", async () => {
  await using scene = new Scene();
  scene.fault({ operation: "put", count: Infinity, delayMs: 700 });
  scene.commit();
  await scene.clock.advance(500);
  scene.commit();
  scene.commit();
  assert.equal(scene.writer.status().lagMs, 500);
  assert.equal(scene.clock.sleeping, 2, "one put and its deadline");
  await scene.clock.advance(400);
  assert.deepEqual(
    [scene.writer.status().durableTxid, scene.writer.status().lagMs, scene.writer.status().waitingFiles],
    [1, 400, 2],
  );
  await scene.clock.advance(2_000);
  assert.equal(scene.writer.status().durableTxid, 3);
});

for (const when of ["before", "after"] as const) {
  Deno.test(`SlotWriter reads back a put whose reply was lost ${when} it landed, and keeps to its bytes`, async () => {
    await using scene = new Scene();
    scene.fault({ operation: "put", nth: 1, error: "outcome-unknown", when });
    scene.commit();
    const durable = scene.writer.whenDurable(1);
    await scene.clock.advance(60_000);
    await durable;
    await scene.assertStored(1);
    const kinds = scene.requests.map((request) => request.split(" ")[0]);
    assert.deepEqual(kinds, when === "before" ? ["get", "put"] : ["put", "get"]);
  });
}

Deno.test("SlotWriter goes on alone after an outage, with the whole backlog", async () => {
  await using scene = new Scene();
  const end = scene.fault({ count: Infinity, error: "store-unreachable" });
  for (let commit = 0; commit < 20; commit++) scene.commit();
  scene.window.renew(scene.clock.monotonicMs() + 1e9);
  await scene.clock.advance(600_000);
  const { errors, lagMs, lastError, waitingFiles } = scene.writer.status();
  assert.ok(errors > 50 && errors < 200, `${errors} errors: pauses grow and have a limit`);
  assert.deepEqual([lagMs, waitingFiles, lastError?.error.code], [600_000, 20, "store-unreachable"]);
  end();
  await scene.clock.advance(10_000);
  assert.equal(scene.writer.status().durableTxid, 20);
});

Deno.test("SlotWriter sends nothing while the window is closed, and goes on when it opens", async () => {
  await using scene = new Scene();
  scene.window.renew(null);
  scene.commit();
  await scene.clock.advance(30_000);
  assert.deepEqual(scene.requests, []);
  assert.equal(scene.writer.status().held, true);
  scene.window.renew(scene.clock.monotonicMs() + 1_000);
  await scene.writer.whenDurable(1);
  await scene.clock.advance(1_000);
  scene.commit();
  await scene.clock.advance(5_000);
  assert.equal(scene.requests.length, 1);
  scene.window.renew(scene.clock.monotonicMs() + 1_000);
  await scene.writer.whenDurable(2);
});

Deno.test("SlotWriter ends a put at the deadline, unless a renewal moves it meanwhile", async () => {
  await using scene = new Scene();
  scene.window.renew(scene.clock.monotonicMs() + 1_000);
  scene.fault({ operation: "put", nth: 1, delayMs: 3_000 });
  scene.commit();
  await scene.clock.advance(900);
  scene.window.renew(scene.clock.monotonicMs() + 1_000);
  await scene.clock.advance(900);
  assert.equal(scene.writer.status().held, false);
  await scene.clock.advance(900);
  assert.equal(scene.writer.status().held, true);
  assert.deepEqual(scene.requests, [], "ended before it was sent");
  scene.window.renew(scene.clock.monotonicMs() + 60_000);
  await scene.writer.whenDurable(1);
});

/** An object in the slot `txid`, which a holder with `token` wrote. */
async function foreign(scene: Scene, txid: number, token: number): Promise<void> {
  const theirs = new ModelDatabase({ random: randomOf(99), from: scene.database });
  while (theirs.txid < txid) theirs.commit({ token, nowMs: 5 });
  await scene.inner.put(slot(txid), theirs.files.get(txid) ?? new Uint8Array());
}

Deno.test("SlotWriter ends absorbed on an older token in its first slot", async () => {
  await using scene = new Scene();
  await foreign(scene, 1, 3);
  scene.commit();
  const end = await scene.writer.whenEnded();
  assert.equal(end.kind, "absorbed");
  await assert.rejects(scene.writer.whenDurable(1), (error) => isError(error, "lease-lost"));
  await assert.rejects(scene.writer.whenSealed(), (error) => isError(error, "lease-lost"));
});

Deno.test("SlotWriter ends fenced on a larger token, and on anything foreign after its seal", async () => {
  for (const [token, reason] of [[9, "larger-token"], [3, "foreign-object"]] as const) {
    await using scene = new Scene();
    scene.commit();
    await scene.writer.whenSealed();
    await foreign(scene, 2, token);
    scene.commit();
    const before = await scene.stored(2);
    assert.deepEqual(await scene.writer.whenEnded(), { kind: "fenced", txid: 2, reason });
    assert.deepEqual(await scene.stored(2), before);
    const count = scene.requests.length;
    await scene.clock.advance(60_000);
    assert.equal(scene.requests.length, count, "nothing is sent any more");
  }
});

Deno.test("SlotWriter knows the bytes that an earlier life of it has sent", async () => {
  const database = new ModelDatabase({ random: randomOf(5) });
  const store = memoryStore();
  {
    await using scene = new Scene({ database, store });
    scene.commit();
    scene.commit();
    await scene.writer.whenDurable(2);
  }
  // Its base says that the second was not known to be there; its listing may show it or not.
  for (const listing of [HolderListing.of(PLACE, []), (await HolderListing.load(store, PLACE)).listing]) {
    await using scene = new Scene({ database, store, listing, base: { txid: 1, token: TOKEN } });
    const isListed = listing.get(slot(2)) !== null;
    scene.writer.committed({ txid: 2, sizeBytes: database.size(2) });
    await scene.writer.whenDurable(2);
    const kinds = scene.requests.map((request) => request.split(" ")[0]);
    assert.deepEqual(kinds, isListed ? ["get"] : ["put", "get"]);
    assert.deepEqual(await scene.stored(2), database.files.get(2));
  }
});

Deno.test("SlotWriter sends nothing of a local file that has changed since its first try", async () => {
  await using scene = new Scene();
  const end = scene.fault({ operation: "put", count: Infinity, error: "store-unreachable" });
  scene.commit();
  await scene.clock.advance(10);
  const bytes = scene.database.files.get(1) ?? new Uint8Array();
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  end();
  await scene.clock.advance(60_000 - 100);
  assert.equal(await scene.stored(1), null);
  assert.equal(scene.writer.status().lastError?.error.code, "data-damaged");
});

Deno.test("SlotWriter gives a file beyond 32 MiB to the large put, in pieces, with the condition", async () => {
  const database = new ModelDatabase({ random: randomOf(5), pageSize: 65536, mostPages: 4 });
  const asked: unknown[] = [];
  const sent: number[] = [];
  const memory = memoryStore();
  const store: ObjectStore = {
    ...memory,
    async putLarge(key, pieces, options) {
      asked.push([key, options.condition, options.sizeBytes]);
      let sum = 0;
      for await (const piece of pieces) sum += piece.length;
      sent.push(sum);
      return await memory.put(key, database.files.get(1) ?? new Uint8Array(), {
        condition: { absent: true },
      });
    },
  };
  // The reader says what a file of that size would; only its two ends are ever looked at.
  const sizeBytes = 40 * 1024 * 1024;
  const openLocal: SlotWriterOptions["openLocal"] = () => {
    const bytes = database.files.get(1) ?? new Uint8Array();
    return Promise.resolve({
      read: (start, end) => {
        if (start === 0 && end === 100) return Promise.resolve(bytes.slice(0, 100));
        return Promise.resolve(
          end === sizeBytes && end - start === 16 ? bytes.slice(-16) : new Uint8Array(end - start),
        );
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    });
  };
  await using scene = new Scene({ database, store, openLocal });
  const txid = database.commit({ token: TOKEN, nowMs: 1 });
  scene.writer.committed({ txid, sizeBytes });
  await scene.writer.whenDurable(1);
  assert.deepEqual(asked, [[slot(1), { absent: true }, sizeBytes]]);
  assert.deepEqual(sent, [sizeBytes]);
});

Deno.test("SlotWriter rejects a wait that its signal ends, and all waits when it stops", async () => {
  const scene = new Scene();
  scene.window.renew(null);
  scene.commit();
  const controller = new AbortController();
  const reason = new Error("enough");
  const ended = assert.rejects(scene.writer.whenDurable(1, { signal: controller.signal }), reason);
  controller.abort(reason);
  await ended;
  const stopped = assert.rejects(scene.writer.whenDurable(1), (error) => isError(error, "cancelled"));
  await scene[Symbol.asyncDispose]();
  await stopped;
});
