/**
 * The property that all else is for: at every TXID the files so far, applied in order, are the database's committed
 * state, byte for byte. Random histories from a seed: transactions, VACUUM, checkpoints of all modes, spilled and
 * rolled-back transactions, closed connections, restarts of the follower, its own checkpoints.
 */

import assert from "node:assert/strict";
import type { FollowerLimits } from "../../src/database/follower_types.ts";
import { FollowedDatabase, rows, TABLE } from "../support/followed_database.ts";
import { say } from "../support/say.ts";
import { seededRandom } from "../support/tree_model.ts";

const SMALL: FollowerLimits = {
  syncBytes: 40_000, // far below what one step writes: most syncs are cut
  checkpointPages: 30,
  barrierPages: 60,
  restPages: 10,
  jointPages: -1,
  checkpointIntervalMs: 60_000,
  walBytes: 300_000,
};

/** Syncs that are not cut are made together with checkpoints. */
const JOINT: FollowerLimits = { ...SMALL, syncBytes: 4_000_000, restPages: 60, jointPages: 60 };

class History {
  readonly #scene: FollowedDatabase;
  readonly #random: () => number;
  readonly done: string[] = [];
  #second = false;
  snapshots = 0;
  restarts = 0;

  constructor(scene: FollowedDatabase, random: () => number) {
    this.#scene = scene;
    this.#random = random;
  }

  int(below: number): number {
    return Math.floor(this.#random() * below);
  }

  async #try(connection: string, sql: string): Promise<void> {
    this.done.push(`${connection}: ${sql}`);
    try {
      await this.#scene.program.run(connection, sql);
    } catch (error) {
      // A lock that another connection has, of the program or ours, is part of a program's life.
      assert.match(String(error), /locked|busy/, sql);
      this.done.push(`  ${error}`);
    }
  }

  async step(): Promise<void> {
    const connection = this.#second && this.#random() < 0.3 ? "second" : "app";
    const writes = [
      rows(1 + this.int(40), 1 + this.int(900)),
      `UPDATE t SET b=randomblob(${1 + this.int(300)}) WHERE a%${2 + this.int(9)}=0`,
      `DELETE FROM t WHERE a%${2 + this.int(4)}=1`,
      `BEGIN; ${rows(20, 200)}; DELETE FROM t WHERE a<${this.int(100)}; COMMIT`,
      "UPDATE t SET b=1 WHERE a=1",
      `PRAGMA user_version=${this.int(1000)}`,
      `BEGIN; ${rows(200, 700)}; ROLLBACK`, // spilled: the cache is small
      `BEGIN; ${rows(100, 500)}; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT`,
      "CREATE INDEX IF NOT EXISTS i ON t(b)",
      "DROP INDEX IF EXISTS i",
      "PRAGMA incremental_vacuum(7)",
    ];
    const others = [
      "PRAGMA wal_checkpoint(PASSIVE)",
      "PRAGMA wal_checkpoint(FULL)",
      "PRAGMA wal_checkpoint(RESTART)",
      "PRAGMA wal_checkpoint(TRUNCATE)",
      "VACUUM",
      "DELETE FROM t",
      `PRAGMA wal_autocheckpoint=${[0, 5, 20, 1000][this.int(4)]}`,
    ];
    const pool = this.#random() < 0.75 ? writes : others;
    await this.#try(connection, pool[this.int(pool.length)] ?? "");
    if (this.#random() < 0.05) await this.#toggleSecond();
  }

  async #toggleSecond(): Promise<void> {
    if (this.#second) await this.#scene.program.close("second");
    else await this.#scene.program.open("second", this.#scene.path, "PRAGMA busy_timeout=20");
    this.#second = !this.#second;
    this.done.push("second toggled");
  }

  /** Syncs; when all is read, the files must be what the database is. */
  async follow(): Promise<void> {
    const { follower } = this.#scene;
    for (let more = true; more;) {
      const result = await follower.sync();
      this.done.push(`sync ${JSON.stringify(result)}`);
      more = result.changed && result.more && this.#random() < 0.7;
      if (result.changed && result.snapshot !== null) this.snapshots++;
      if (!result.changed || !result.more) await this.#scene.assertSame(`TXID ${result.txid}`);
    }
    if (this.#random() < 0.7) this.done.push(`checkpoint ${await follower.checkpointIfNeeded()}`);
    if (this.#random() < 0.05) {
      const { txid } = follower.status;
      await this.#scene.pull();
      await follower.deleteUpTo(txid ?? 0);
      assert.equal(follower.localFiles().length, 1);
    }
  }

  async restart(): Promise<void> {
    const clean = this.#random() < 0.5;
    if (clean) await this.#scene.follower.close();
    this.done.push(clean ? "closed" : "killed");
    await this.#scene.pull();
    await this.#scene.stop();
    for (let i = this.int(3); i > 0; i--) await this.step();
    await this.#scene.start();
    this.restarts++;
  }
}

async function run(seed: number, steps: number): Promise<string> {
  const random = seededRandom(seed);
  const pageSize = [512, 1024, 4096, 4096, 8192, 65536][Math.floor(random() * 6)] ?? 4096;
  await using scene = await FollowedDatabase.make({ limits: seed % 2 === 0 ? JOINT : SMALL });
  await scene.program.open(
    "app",
    scene.path,
    `PRAGMA page_size=${pageSize}; PRAGMA auto_vacuum=${Math.floor(random() * 3)}; PRAGMA journal_mode=WAL;
     PRAGMA cache_size=10; PRAGMA busy_timeout=20; ${TABLE}`,
  );
  await scene.start();
  const history = new History(scene, random);
  try {
    for (let i = 0; i < steps; i++) {
      await history.step();
      if (random() < 0.6) await history.follow();
      if (random() < 0.04) await history.restart();
    }
    await history.follow();
  } catch (error) {
    say(`seed ${seed}, page size ${pageSize}\n${history.done.slice(-40).join("\n")}`);
    throw error;
  }
  const { txid, checkpoints } = scene.follower.status;
  return `seed ${seed}: page size ${pageSize}, ${txid} TXIDs, ${history.snapshots} snapshots, ` +
    `${history.restarts} restarts, ${checkpoints} checkpoints in the last run`;
}

const SEEDS = Deno.env.get("FOLLOWER_SEEDS")?.split(",").map(Number) ?? [1, 2, 3, 4, 5, 6];
const STEPS = Number(Deno.env.get("FOLLOWER_STEPS") ?? 60);

for (const seed of SEEDS) {
  Deno.test(`files of a random history are the database at every TXID, seed ${seed}`, async () => {
    say(await run(seed, STEPS));
  });
}
