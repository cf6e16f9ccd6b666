/**
 * Random replicas, each of their objects harmed in each way: verification names the object, and exactly those states that
 * a restore then does not bring back. STATE_MANAGER_MODEL_RUNS=200: more of them; STATE_MANAGER_TEST_SEED repeats one.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { parseReplicaKey, type ReplicaPlace } from "../../src/database/replica_layout.ts";
import { restoreDatabaseTo } from "../../src/database/restore_database.ts";
import { type PositionsLevel, verifyPositions } from "../../src/database/verify_positions.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import type { Random } from "../../src/platform/random.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { listAll, type ObjectStore } from "../../src/storage/object_store.ts";
import { type Damage, damagedObjects, storeOf } from "../support/kept_repository.ts";
import { ReplicaBuilder } from "../support/replica_builder.ts";
import { randomReplica } from "../support/replica_model.ts";
import { randomOf } from "../support/seeded_random.ts";
import { scratchFolder } from "../support/tree_model.ts";

isRoot(); // loads libc once, which older runtimes count as a leak of the test that does it

const RUNS = Number(Deno.env.get("STATE_MANAGER_MODEL_RUNS") ?? 2);
const place: ReplicaPlace = { layout: "bucket", name: "app" };
const clock = systemClock();
/** From which level on verification promises to find it. */
const CLAIMED: Readonly<Record<Damage, PositionsLevel>> = {
  deleted: 1,
  replaced: 2,
  truncated: 3,
  flipped: 3,
};

class Scene {
  readonly random: Random;
  readonly folder: string;
  readonly builder: ReplicaBuilder;
  readonly #store = memoryStore();
  pins: number[] = [];

  constructor(seed: number, folder: string) {
    this.random = randomOf(seed);
    this.folder = folder;
    this.builder = new ReplicaBuilder({ store: this.#store, place, folder, pageSize: 512 });
  }

  below(limit: number): number {
    return Math.floor(this.random.float() * limit);
  }

  /** What compactions and retention of random sizes leave of a random history; some of its states are wanted. */
  async objects(): Promise<ReadonlyMap<string, Uint8Array<ArrayBuffer>>> {
    const { builder } = this;
    await builder.commitRandom(() => this.random.float(), 5 + this.below(12));
    const { txid } = builder;
    for (let n = 1; n <= txid; n++) await builder.remove({ level: 0, minTxid: n, maxTxid: n });
    for (const file of randomReplica(this.random, txid)) await builder.put(file);
    // At least this state can be restored, and its snapshot is what that takes.
    const snapshot = 1 + this.below(txid);
    await builder.put({ level: 9, minTxid: 1, maxTxid: snapshot });
    const pins = new Set([snapshot, ...Array.from({ length: 3 }, () => 1 + this.below(txid))]);
    this.pins = [...pins].sort((a, b) => a - b);
    const objects = new Map<string, Uint8Array<ArrayBuffer>>();
    for await (const { key } of listAll(this.#store, "")) {
      objects.set(key, (await this.#store.get(key)).body.slice());
    }
    return objects;
  }

  async verify(store: ObjectStore, level: PositionsLevel) {
    const scratchFile = `${this.folder}/scratch/position.db`;
    const { signal } = new AbortController();
    const { findings } = await verifyPositions(
      { place, txids: this.pins, level, percent: 100, scratchFile },
      { store, clock, random: this.random, signal },
    );
    return findings;
  }

  /** The wanted states that do not come back as they were. */
  async lost(store: ObjectStore): Promise<readonly number[]> {
    const lost: number[] = [];
    for (const txid of this.pins) {
      const file = `${this.folder}/restored.db`;
      const request = { place, target: { kind: "txid", txid }, file, owner: null, mode: 0o600 } as const;
      try {
        await restoreDatabaseTo({ ...request, check: "none" }, {
          store,
          clock,
          signal: new AbortController().signal,
        });
        assert.equal(Buffer.compare(Deno.readFileSync(file), this.builder.bytesAt(txid)), 0, `TXID ${txid}`);
        Deno.removeSync(file);
      } catch (error) {
        if (!isError(error, "data-damaged", "object-not-found", "not-found")) throw error;
        lost.push(txid);
      }
    }
    return lost;
  }
}

async function checkOne(seed: number, counts: { harmed: number; hurt: number }): Promise<void> {
  await using folder = scratchFolder("positions-model-");
  const scene = new Scene(seed, folder.path);
  using _builder = scene.builder;
  const objects = await scene.objects();
  const whole = await storeOf(objects);
  const before = await scene.lost(whole);
  for (const level of [1, 2, 3, 4] as const) {
    const findings = await scene.verify(whole, level);
    assert.deepEqual(findings.flatMap(({ txids }) => txids), before, `seed ${seed}, whole, level ${level}`);
  }
  const keys = [...objects.keys()];
  for (const [index, key] of keys.entries()) {
    const others = [...objects.values()].toSpliced(index, 1);
    const by = others[scene.below(others.length)];
    const at = scene.below(objects.get(key)?.length ?? 0);
    for (const damage of ["deleted", "truncated", "flipped", "replaced"] as const) {
      if (damage === "replaced" && by === undefined) continue;
      const harmed = damagedObjects(objects, key, damage, { at, ...(by === undefined ? {} : { by }) });
      const store = await storeOf(harmed);
      const told = `seed ${seed}, ${key} ${damage} at ${at}`;
      const lost = await scene.lost(store);
      counts.harmed++;
      if (lost.length > before.length) counts.hurt++;
      for (const level of [1, 2, 3, 4].filter((each) => each >= CLAIMED[damage]) as PositionsLevel[]) {
        const findings = await scene.verify(store, level);
        const txids = [...new Set(findings.flatMap((finding) => finding.txids))].sort((a, b) => a - b);
        assert.deepEqual(txids, lost, `${told}, level ${level}: ${JSON.stringify(findings)}`);
        for (const { object, txids } of findings) {
          const isOld = txids.every((txid) => before.includes(txid));
          const isNamed = object === key || (damage === "deleted" && /TXID \d+$/.test(object));
          assert.ok(isOld || isNamed, `${told}, level ${level}: ${object} is named`);
        }
      }
    }
  }
  assert.ok(keys.every((key) => parseReplicaKey(place, key) !== null));
}

Deno.test("whatever is harmed of a replica is named, with the states that a restore does not bring back", async () => {
  const given = Deno.env.get("STATE_MANAGER_TEST_SEED");
  const counts = { harmed: 0, hurt: 0 };
  if (given !== undefined) return await checkOne(Number(given), counts);
  const first = Math.floor(Math.random() * 1_000_000);
  for (let run = 0; run < RUNS; run++) await checkOne(first + run, counts);
  assert.ok(counts.hurt > 0, JSON.stringify(counts));
});
