/** One followed database with parts that do as they are told: what its barriers wait for. */

import assert from "node:assert/strict";
import { FollowFleet } from "../../src/database/follow_fleet.ts";
import { Places } from "../../src/database/follow_places.ts";
import type { Captor, Replica } from "../../src/database/follow_ports.ts";
import type { FollowedDatabase } from "../../src/database/follow_protocol.ts";
import { FollowUnit, type UnitEnvironment } from "../../src/database/follow_unit.ts";
import type { FollowerStatus, LocalFile, SyncResult } from "../../src/database/follower_types.ts";
import type { SlotEnd } from "../../src/database/slot_rules.ts";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import { scratchFolder } from "../support/tree_model.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const DATABASE: FollowedDatabase = {
  name: "a",
  path: new URL(import.meta.url).pathname, // a file that is there
  journal: "follow",
  syncIntervalMs: 1000,
  snapshotIntervalMs: 1000,
  retentionMs: 1000,
  baseline: null,
  pins: [],
};

/** Each touch, and each sync that is due, makes one file. */
class FakeCaptor implements Captor {
  txid = 1;
  files: LocalFile[] = [{ txid: 1, path: "1", sizeBytes: 10 }];
  changes = 0;
  failure: StateManagerError | null = null;
  isUnsettled = false;

  get status(): FollowerStatus {
    return {
      state: "following",
      txid: this.txid,
      error: null,
      failures: 0,
      warnings: [],
      journal: "wal",
      pageSize: 4096,
      databasePages: 1,
      walBytes: 0,
      walFileBytes: 0,
      walOverLimit: false,
      lastSnapshot: null,
      localBytes: 0,
      localFiles: this.files.length,
      checkpoints: 0,
      snapshots: 0,
    };
  }

  sync(): Promise<SyncResult> {
    if (this.failure !== null) return Promise.reject(this.failure);
    if (this.isUnsettled) return Promise.resolve({ changed: false, txid: this.txid, unsettled: true });
    if (this.changes === 0) return Promise.resolve({ changed: false, txid: this.txid });
    this.changes--;
    return this.touch();
  }

  touch(): Promise<SyncResult> {
    const txid = ++this.txid;
    this.files.push({ txid, path: String(txid), sizeBytes: 10 });
    return Promise.resolve({ changed: true, txid, commits: 1, sizeBytes: 10, snapshot: null, more: false });
  }

  requestSnapshot(): void {
    this.changes++;
  }

  checkpointIfNeeded = () => Promise.resolve(null);
  localFiles = () => this.files;
  deleteUpTo = () => Promise.resolve();
  close = () => Promise.resolve(this.txid);
  [Symbol.asyncDispose] = () => Promise.resolve();
}

class FakeReplica implements Replica {
  readonly committed: number[] = [];
  durableTxid: number;
  readonly #waiters: { readonly txid: number; readonly resolve: () => void }[] = [];
  readonly ended = Promise.withResolvers<SlotEnd>();

  constructor(readonly baseTxid: number, readonly firstTxid: number) {
    this.durableTxid = baseTxid;
  }

  readonly slots: Replica["slots"] = {
    committed: ({ txid }) => void this.committed.push(txid),
    whenDurable: (txid) => {
      if (txid <= this.durableTxid) return Promise.resolve();
      return new Promise((resolve) => this.#waiters.push({ txid, resolve }));
    },
    whenEnded: () => this.ended.promise,
    status: () => ({
      durableTxid: this.durableTxid,
      localTxid: this.committed.at(-1) ?? 0,
      sealed: true,
      end: null,
      held: false,
      behindSinceMs: null,
      lagMs: 0,
      waitingFiles: 0,
      waitingBytes: 0,
      sentBytes: 0,
      requests: 0,
      errors: 0,
      lastError: null,
      lastDurableMs: null,
    }),
  };

  readonly compactor: Replica["compactor"] = {
    status: () => ({
      merges: 0,
      snapshots: 0,
      deletedFiles: 0,
      readBytes: 0,
      sentBytes: 0,
      requests: 0,
      errors: 0,
      lastError: null,
      lastSnapshot: null,
      defects: [],
      unreachablePins: [],
    }),
  };

  unneededUpTo = () => 0;

  arrive(txid: number): void {
    this.durableTxid = txid;
    for (const waiter of this.#waiters) if (waiter.txid <= txid) waiter.resolve();
  }

  [Symbol.asyncDispose] = () => Promise.resolve();
}

class Scene implements AsyncDisposable {
  readonly clock = new VirtualClock();
  readonly captor = new FakeCaptor();
  readonly fenced: StateManagerError[] = [];
  readonly unit: FollowUnit;
  pins: () => readonly number[] = () => [];

  constructor(readonly replica: FakeReplica) {
    const environment: UnitEnvironment = {
      clock: this.clock,
      places: new Places(1),
      backlogBytes: () => 0,
      onChange: () => {},
      onDurable: () => {},
      onEvent: () => {},
      onFenced: (error) => this.fenced.push(error),
      parts: {
        openCaptor: () => Promise.resolve(this.captor),
        dropAfter: () => Promise.resolve(),
        openReplica: (_database, _captor, pins) => {
          this.pins = pins;
          if (replica.firstTxid > 0) this.captor.requestSnapshot(); // as the real one does
          return Promise.resolve(replica);
        },
      },
    };
    this.unit = new FollowUnit(DATABASE, null, environment);
    this.unit.start();
  }

  /** Lets everything run as far as it can. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 5; turn++) await this.clock.advance(1);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.unit.stop();
    assert.equal(this.clock.sleeping, 0);
  }
}

Deno.test("barrier waits until what it captured is in the store", async () => {
  await using scene = new Scene(new FakeReplica(1, 0));
  await scene.settle();
  scene.captor.changes = 1;
  let reached: number | null = null;
  const barrier = scene.unit.barrier().then((txid) => reached = txid);
  await scene.settle();
  assert.deepEqual(scene.replica.committed, [2]);
  assert.equal(reached, null);
  assert.ok(scene.unit.status().behindSinceBootMs !== null);
  scene.replica.arrive(2);
  await barrier;
  assert.equal(reached, 2);
  assert.equal(scene.unit.status().behindSinceBootMs, null);
});

Deno.test("barrier gives the later TXID where the store has another file under the captured one", async () => {
  await using scene = new Scene(new FakeReplica(1, 2));
  let reached: number | null = null;
  const barrier = scene.unit.barrier().then((txid) => reached = txid);
  await scene.settle();
  assert.equal(reached, null, "TXID 1 in the store is not what was captured as TXID 1");
  assert.ok(scene.unit.status().behindSinceBootMs !== null);
  assert.deepEqual(scene.replica.committed, [2]);
  scene.replica.arrive(2);
  await barrier;
  assert.equal(reached, 2);
});

Deno.test("a position is pinned from before it is durable", async () => {
  await using scene = new Scene(new FakeReplica(1, 0));
  await scene.settle();
  scene.captor.changes = 1;
  const position = scene.unit.position();
  await scene.settle();
  assert.deepEqual(scene.pins(), [2]);
  scene.replica.arrive(2);
  assert.equal(await position, 2);
  scene.unit.pin([2]);
  assert.deepEqual(scene.pins(), [2]);
});

Deno.test("a capture that fails again and again is told to who waits, and tried on", async () => {
  await using scene = new Scene(new FakeReplica(1, 0));
  await scene.settle();
  scene.captor.failure = new StateManagerError("disk-full", "no room");
  const barrier = scene.unit.barrier();
  const rejected = assert.rejects(barrier, (error) => isError(error, "disk-full"));
  await scene.clock.advance(5_000);
  await rejected;
  assert.equal(scene.unit.status().state, "failing");
  scene.captor.failure = null;
  await scene.clock.advance(60_000);
  assert.equal(scene.unit.status().state, "following");
  assert.equal(await scene.unit.barrier(), 1);
});

Deno.test("changes of a copied database count as lag until they have settled and are taken", async () => {
  const replica = new FakeReplica(1, 0);
  await using scene = new Scene(replica);
  scene.captor.isUnsettled = true;
  await scene.settle();
  assert.ok(scene.unit.status().behindSinceBootMs !== null);
  scene.captor.isUnsettled = false;
  scene.captor.changes = 1;
  scene.unit.tick(scene.clock.monotonicMs()); // nothing looks changed: it is looked at all the same
  await scene.settle();
  assert.deepEqual(replica.committed, [2]);
  replica.arrive(2);
  await scene.settle();
  assert.equal(scene.unit.status().behindSinceBootMs, null);
});

Deno.test("a larger token in the store fences, whatever is asked then", async () => {
  await using scene = new Scene(new FakeReplica(1, 0));
  await scene.settle();
  scene.replica.ended.resolve({ kind: "fenced", txid: 2, reason: "larger-token" });
  await scene.settle();
  assert.equal(scene.fenced.length, 1);
  await assert.rejects(scene.unit.barrier(), (error) => isError(error, "lease-lost"));
  await assert.rejects(scene.unit.seal(), (error) => isError(error, "lease-lost"));
});

Deno.test("a former holder's commit in the store ends the following, and is what the seal says", async () => {
  await using scene = new Scene(new FakeReplica(1, 0));
  await scene.settle();
  scene.replica.ended.resolve({ kind: "absorbed", txid: 2, token: 1, sizeBytes: 10 });
  await scene.settle();
  assert.deepEqual(await scene.unit.seal(), { kind: "absorbed", txid: 2 });
  await assert.rejects(scene.unit.barrier(), (error) => isError(error, "wrong-state"));
  assert.equal(scene.unit.status().state, "absorbed");
  assert.equal(scene.fenced.length, 0);
});

Deno.test("the lag that is told under steady writes is never longer than an interval and the way to the store", async () => {
  await using folder = scratchFolder("lag-");
  const path = `${folder.path}/app.db`;
  Deno.writeTextFileSync(path, "");
  const clock = new VirtualClock();
  const captor = new FakeCaptor();
  const replica = new FakeReplica(1, 0);
  const slots: Replica["slots"] = {
    ...replica.slots,
    committed: ({ txid }) => void clock.sleep(30).then(() => replica.arrive(txid)),
  };
  let behindSinceMs: number | null | undefined;
  const fleet = new FollowFleet({
    parts: {
      openCaptor: () => Promise.resolve(captor),
      dropAfter: () => Promise.resolve(),
      openReplica: () =>
        Promise.resolve({
          slots,
          baseTxid: 1,
          firstTxid: 0,
          compactor: replica.compactor,
          unneededUpTo: () => 0,
          [Symbol.asyncDispose]: () => Promise.resolve(),
        }),
    },
    clock,
    uploads: new Places(1),
    folders: [],
    removed: [],
    behind: {},
    send: (reply) => {
      if (reply.type === "status") behindSinceMs = reply.databases[0]?.behindSinceBootMs;
    },
  });
  fleet.add({ ...DATABASE, path });
  const running = fleet.run();
  const write = () => {
    Deno.writeTextFileSync(path, "x", { append: true });
    captor.changes = 1;
  };
  const told: number[] = [];
  for (let step = 0; step < 140; step++) {
    write();
    await clock.advance(50);
    if (step >= 60 && behindSinceMs !== null) told.push(clock.monotonicMs() - (behindSinceMs ?? 0));
  }
  assert.ok(captor.txid >= 6 && told.length === 80, `${captor.txid} files, ${told.length} tellings`);
  assert.ok(Math.max(...told) <= 1_150, `${Math.max(...told)} ms`);
  await clock.advance(3_000);
  assert.equal(behindSinceMs, null, "nothing is written any more");
  await fleet.stop();
  await running;
});
