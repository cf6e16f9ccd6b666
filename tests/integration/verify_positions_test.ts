/** Positions of replicated databases that checkpoints name: what leads to them is looked at, and what is harmed is named. */

import assert from "node:assert/strict";
import type { CheckpointRecord } from "../../src/checkpoint/types.ts";
import { replicaKey, type ReplicaName, type ReplicaPlace } from "../../src/database/replica_layout.ts";
import { verifyPositions } from "../../src/database/verify_positions.ts";
import { withDatabases } from "../../src/manager/verify_databases.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { listAll, type ObjectStore } from "../../src/storage/object_store.ts";
import { checkpointRecord, verifyResult } from "../support/fake_control.ts";
import { withFlippedPage } from "../support/damage.ts";
import { storeOf } from "../support/kept_repository.ts";
import { ReplicaBuilder } from "../support/replica_builder.ts";
import { scratchFolder, seededRandom } from "../support/tree_model.ts";

isRoot(); // loads libc once, which older runtimes count as a leak of the test that does it

const place: ReplicaPlace = { layout: "bucket", name: "app" };
const [clock, random] = [systemClock(), systemRandom()];

const SNAPSHOT: ReplicaName = { level: 9, minTxid: 1, maxTxid: 6 };
const MERGED: ReplicaName = { level: 1, minTxid: 7, maxTxid: 9 };
const LAST: ReplicaName = { level: 0, minTxid: 10, maxTxid: 10 };

/** A snapshot at 6, a merged file from 7 to 9, and the commits from 10 to 12 one by one. */
async function replica(folder: string): Promise<ObjectStore> {
  const store = memoryStore();
  using builder = new ReplicaBuilder({ store, place, folder });
  await builder.commitRandom(seededRandom(3), 11);
  for (const name of [SNAPSHOT, MERGED]) await builder.put(name);
  for (let txid = 1; txid <= 9; txid++) await builder.remove({ level: 0, minTxid: txid, maxTxid: txid });
  return store;
}

type Level = 1 | 2 | 3 | 4;

async function verify(folder: string, store: ObjectStore, level: Level, txids = [6, 9, 10], percent = 100) {
  return await verifyPositions(
    { place, txids, level, percent, scratchFile: `${folder}/scratch/position.db` },
    { store, clock, random, signal: new AbortController().signal },
  );
}

Deno.test("positions that can be restored pass at each level, and deeper ones read and restore them", async () => {
  await using folder = scratchFolder("positions-");
  const store = await replica(folder.path);
  const seen: unknown[] = [];
  for (const level of [1, 2, 3, 4] as const) {
    const { findings, filesRead, bytesRead, restored } = await verify(folder.path, store, level);
    assert.deepEqual(findings, [], `level ${level}`);
    seen.push([level, filesRead, bytesRead > 0, restored]);
  }
  assert.deepEqual(seen, [[1, 0, false, 0], [2, 0, false, 0], [3, 3, true, 0], [4, 3, true, 3]]);
  assert.equal((await verify(folder.path, store, 3, [6, 9, 10], 0)).filesRead, 0);
  assert.deepEqual([...Deno.readDirSync(`${folder.path}/scratch`)], [], "nothing is left");
});

Deno.test("every file that leads to a position is named when it is missing, cut or changed, with the positions that need it", async () => {
  await using folder = scratchFolder("positions-");
  const store = await replica(folder.path);
  const objects = new Map<string, Uint8Array<ArrayBuffer>>();
  for await (const { key } of listAll(store, "")) objects.set(key, (await store.get(key)).body.slice());
  const users: readonly (readonly [ReplicaName, readonly number[]])[] = [
    [SNAPSHOT, [6, 9, 10]],
    [MERGED, [9, 10]],
    [LAST, [10]],
  ];
  for (const [name, txids] of users) {
    const key = replicaKey(place, name);
    const body = objects.get(key) ?? new Uint8Array();
    const harms: readonly (readonly [string, Uint8Array<ArrayBuffer> | null, Level])[] = [
      ["missing", null, 1],
      ["cut to nothing", body.slice(0, 50), 1],
      ["cut in its header's reach", body.slice(0, 140), 3],
      ["cut at its end", body.slice(0, body.length - 1), 3],
      ["changed", withFlippedPage(body), 3],
      ["another one", objects.get(replicaKey(place, { level: 0, minTxid: 12, maxTxid: 12 })) ?? null, 2],
    ];
    for (const [what, bytes, from] of harms) {
      const harmed = new Map(objects);
      if (bytes === null) harmed.delete(key);
      else harmed.set(key, bytes);
      for (const level of [1, 2, 3, 4].filter((level) => level >= from) as Level[]) {
        const { findings } = await verify(folder.path, await storeOf(harmed), level);
        const told = `${key} ${what}, level ${level}: ${JSON.stringify(findings)}`;
        assert.ok(findings.length > 0, told);
        assert.deepEqual(
          [...new Set(findings.flatMap((each) => each.txids))].sort((a, b) => a - b),
          txids,
          told,
        );
        if (from > 1) assert.deepEqual(findings.map(({ object }) => object), [key], told);
        else assert.ok(findings.every(({ object }) => object === key || / ?TXID \d+$/.test(object)), told);
      }
    }
  }
  // A file that no position needs is nobody's.
  const other = new Map(objects);
  other.delete(replicaKey(place, { level: 0, minTxid: 12, maxTxid: 12 }));
  assert.deepEqual((await verify(folder.path, await storeOf(other), 4)).findings, []);
});

Deno.test("a state that merged files step over is missing, though nothing is damaged", async () => {
  await using folder = scratchFolder("positions-");
  const { findings } = await verify(folder.path, await replica(folder.path), 1, [8, 9]);
  assert.deepEqual(findings.map(({ object, problem, txids }) => [object, problem, txids]), [
    ["databases/app/TXID 8", "missing", [8]],
  ]);
});

Deno.test("a compaction meanwhile is no damage, and a store that is out of reach is not either", async () => {
  await using folder = scratchFolder("positions-");
  const store = await replica(folder.path);
  const key = replicaKey(place, LAST);
  let compacted = false;
  const moving: ObjectStore = {
    ...store,
    get: async (asked, options) => {
      if (asked === key && !compacted) {
        compacted = true;
        // The same content in a file of a higher level, and the lower one gone.
        const { body } = await store.get(key);
        await store.put(replicaKey(place, { ...LAST, level: 1 }), body);
        await store.delete(key);
      }
      return await store.get(asked, options);
    },
  };
  assert.deepEqual((await verify(folder.path, moving, 3)).findings, []);
  assert.ok(compacted);
  const dead: ObjectStore = {
    ...store,
    get: () => Promise.reject(new StateManagerError("store-unreachable", "down")),
  };
  await assert.rejects(verify(folder.path, dead, 2), (error) => isError(error, "store-unreachable"));
});

Deno.test("findings name the checkpoints that stand at the position, as long as they are listed", async () => {
  const at = (n: number, databases: CheckpointRecord["databases"]): CheckpointRecord => ({
    ...checkpointRecord(n),
    ...(databases === undefined ? {} : { databases }),
  });
  const records = [
    at(1, { app: { txid: 6 } }),
    at(2, { app: { txid: 9 } }),
    at(3, { app: { txid: 9 } }),
    at(4, undefined),
  ];
  const asked: unknown[] = [];
  const found = (txids: readonly number[]) => ({
    findings: [{ object: "databases/app/x", problem: "damaged", detail: "", txids } as const],
    filesRead: 1,
    bytesRead: 5,
    restored: 0,
  });
  const options = {
    depth: { level: 3, percent: 100 } as const,
    records,
    listed: () => Promise.resolve(new Set(records.slice(1).map(({ id }) => id))),
  };
  const result = await withDatabases(verifyResult(), {
    ...options,
    verify: (request) => {
      asked.push(request);
      return Promise.resolve(found([6, 9]));
    },
  });
  assert.deepEqual(asked, [{ level: 3, percent: 100, name: "app", txids: [6, 9] }]);
  assert.deepEqual([result.positionsChecked, result.findingsTotal, result.bytesRead], [2, 1, 5]);
  assert.deepEqual(result.findings[0]?.checkpoints.map(({ n }) => n), [2, 3]);
  const gone = await withDatabases(verifyResult(), {
    ...options,
    verify: () => Promise.resolve(found([6])),
  });
  assert.equal(gone.findingsTotal, 0, "only a checkpoint that was deleted meanwhile needed it");
});
