/**
 * One prefix, two writers, one after the other: the real `litestream replicate` goes on with what we wrote, we go on
 * with what it wrote, and both restorers agree on the states of all terms.
 */

import assert from "node:assert/strict";
import { type ReplicaFile } from "../../src/database/replica_listing.ts";
import { listReplica } from "../../src/database/mod.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { type ObjectStore, openStore } from "../../src/storage/mod.ts";
import { fastFolder } from "../support/fast_folder.ts";
import { findLitestream, litestream } from "../support/litestream.ts";
import { type LitestreamConfig, litestreamConfig, startLitestream } from "../support/litestream_replicate.ts";
import { findMinio, type Minio, minioStore, startMinio } from "../support/minio.ts";
import {
  type Content,
  contentOf,
  ReplicatedDatabase,
  sha256Of,
  type StartOptions,
  takeDump,
} from "../support/replicated_database.ts";
import { say } from "../support/say.ts";
import { findSqliteShell, SqliteShell } from "../support/sqlite_shell.ts";
import { removeTree } from "../support/tree_model.ts";

const clock = systemClock();
const ignore = findLitestream() === null || findSqliteShell() === null;
/** Long past what Litestream needs to show its first merges and snapshot. */
const WAIT_LIMIT_MS = 60_000;
/** Of one prefix, besides the ends of the terms: each costs two restores. */
const POINTS_COMPARED = 10;
const LIMITS = { checkpointPages: 40, checkpointIntervalMs: 60_000 };

class Scene implements AsyncDisposable {
  readonly database: ReplicatedDatabase;
  readonly application = new SqliteShell();
  readonly #folder: string;
  readonly #store: ObjectStore;
  readonly #config: LitestreamConfig;
  readonly #observer = new SqliteShell();
  /** TXID → what the database held; whatever a term left. */
  readonly #kept = new Map<number, Content>();
  #turn = 0;

  private constructor(folder: string, store: ObjectStore, minio: Minio | null) {
    this.#folder = folder;
    this.#store = store;
    const layout = minio === null ? "folder" : "bucket";
    this.database = new ReplicatedDatabase({ folder, store, layout, limits: LIMITS });
    this.#config = litestreamConfig({
      database: this.database.path,
      folder,
      replica: minio === null
        ? { folder: `${folder}/store/databases/app` }
        : { minio, path: "prod/databases/app" },
    });
  }

  static async make(minio: Minio | null): Promise<Scene> {
    const folder = fastFolder("take-over-");
    const store = minio === null
      ? openStore({ kind: "directory", directory: `${folder}/store` }, { clock, random: systemRandom() })
      : minioStore(minio, "prod");
    const scene = new Scene(folder, store, minio);
    await scene.#opened();
    await scene.application.must(
      "PRAGMA page_size=1024; PRAGMA auto_vacuum=2; PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b, c);",
    );
    return scene;
  }

  async #opened(): Promise<void> {
    await this.application.must(
      `.open '${this.database.path}'\nPRAGMA busy_timeout=5000; PRAGMA synchronous=OFF; PRAGMA cache_size=10;`,
    );
  }

  /** A few transactions of the application. */
  async write(): Promise<void> {
    const rows = (count: number, size: number) =>
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<${count})` +
      ` INSERT INTO t(b,c) SELECT randomblob(${size}), 'turn ${this.#turn}' FROM n;`;
    const turn = ++this.#turn;
    const kinds = [
      rows(3, 300),
      `UPDATE t SET b=randomblob(40) WHERE a%5=${turn % 5};`,
      `BEGIN; ${rows(150, 700)} DELETE FROM t WHERE a%3=0; COMMIT;`,
      "DELETE FROM t WHERE a%2=1; PRAGMA incremental_vacuum(30);",
      `CREATE INDEX IF NOT EXISTS i ON t(c); ${rows(5, 90)}`,
      // Our reader lets it through at the next sync: no waiting.
      "PRAGMA busy_timeout=0; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA busy_timeout=5000;",
      `VACUUM; ${rows(1, 10)}`,
    ];
    await this.application.must(kinds[turn % kinds.length] ?? "");
    await this.application.must(rows(1, 20)); // each turn leaves a state of its own
  }

  async #keep(txid: number): Promise<void> {
    this.#kept.set(txid, await contentOf(this.#observer, this.database.path, this.#folder));
  }

  async #files(): Promise<readonly ReplicaFile[]> {
    return (await listReplica(this.#store, this.database.place)).files;
  }

  async #newest(): Promise<number> {
    return (await this.#files()).reduce((most, { maxTxid }) => Math.max(most, maxTxid), 0);
  }

  /** We replicate `turns` turns of the application, with merges and a snapshot, and end in order. */
  async ours(turns: number, options: StartOptions = {}): Promise<void> {
    await this.database.start({ newTerm: true, ...options });
    const former = await this.#newest();
    await this.database.seal(); // before the application starts
    await this.#opened();
    for (let turn = 0; turn < turns; turn++) {
      await this.write();
      const txid = await this.database.barrier();
      assert.ok(txid > former, `TXID ${txid} after ${former}`);
      await this.#keep(txid);
      if (turn % 3 === 0) this.database.pins.push(txid);
      if (turn % 4 === 3) await this.database.pass(31_000);
      await this.database.checkpoint();
    }
    await this.database.pass(7 * 60_000);
    await this.application.must(".open :memory:");
    const last = await this.database.finish();
    await this.database.drop();
    assert.equal(await this.#newest(), last);
  }

  /** What we have is a restore, as on another machine. */
  async restored(): Promise<StartOptions> {
    await this.database.loseState();
    await this.database.loseDatabase();
    const { txid } = await this.database.restore({ kind: "newest" }, this.database.path);
    return { baseline: txid };
  }

  /** Litestream replicates until the store has files of `levels` of its own term, and ends in order. */
  async theirs(levels: readonly number[]): Promise<void> {
    const before = new Set((await this.#files()).map(({ key }) => key));
    const former = await this.#newest();
    await this.#opened();
    const running = startLitestream(this.#config);
    try {
      const endMs = performance.now() + WAIT_LIMIT_MS;
      for (let more = true; more;) {
        await this.write();
        await new Promise((resolve) => setTimeout(resolve, 60)); // lets it see single commits
        const own = (await this.#files()).filter(({ key }) => !before.has(key));
        const seen = new Set(own.map(({ level }) => level));
        more = own.length < 6 || !levels.every((level) => seen.has(level));
        assert.ok(performance.now() < endMs, `levels ${[...seen]}:\n${running.log.slice(-20).join("\n")}`);
      }
      await running.stop();
    } finally {
      await running[Symbol.asyncDispose]();
    }
    const complaints = running.log.filter((line) => /level=(ERROR|WARN)/.test(line));
    assert.deepEqual(complaints, []);
    await this.application.must(".open :memory:");
    const newest = await this.#newest();
    assert.ok(newest > former, "it went on after our TXIDs");
    await this.#keep(newest);
  }

  /** Both restorers, at the kept points that are left and at some others. */
  async compare(): Promise<void> {
    const points = await this.database.points();
    assert.equal(points.at(-1), await this.#newest());
    const kept = [...this.#kept.keys()].filter((txid) => points.includes(txid));
    assert.ok(kept.includes(points.at(-1) ?? 0), "the newest TXID is one that is known");
    for (const pin of this.database.pins) {
      assert.ok(kept.includes(pin), `pinned TXID ${pin} is no restore point`);
    }
    const step = Math.ceil(points.length / POINTS_COMPARED);
    const some = points.filter((_, index) => index % step === 0);
    for (const txid of new Set([...kept, ...some])) {
      const theirs = `${this.#folder}/theirs.db`;
      const wanted = txid.toString(16).padStart(16, "0");
      const args = ["-config", this.#config.path, "-txid", wanted, "-o", theirs, this.#config.database];
      const { code, text } = await litestream("restore", ...args);
      assert.equal(code, 0, `TXID ${txid}: ${text}`);
      const { path } = await this.database.restore({ kind: "txid", txid });
      const bytes = sha256Of(path);
      assert.equal(bytes, sha256Of(theirs), `TXID ${txid}: the restorers make different bytes`);
      const content = this.#kept.get(txid);
      if (content !== undefined) assert.equal(bytes, content.bytes, `TXID ${txid}: the bytes of the source`);
      const dump = await takeDump(this.#observer, theirs);
      if (content !== undefined) assert.equal(dump, content.dump, `TXID ${txid}: .dump`);
      await Deno.remove(path);
    }
    say(
      `compared ${
        new Set([...kept, ...some]).size
      } of ${points.length} points, ${kept.length} with the source`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.database.drop();
    for (const shell of [this.application, this.#observer]) await shell.kill();
    await this.#store.close();
    await removeTree(this.#folder);
  }
}

function testTakeOver(name: string, body: (scene: Scene) => Promise<void>): void {
  Deno.test({
    name: `${name}, in a folder [needs litestream] [needs sqlite3]`,
    ignore,
    async fn() {
      await using scene = await Scene.make(null);
      await body(scene);
    },
  });
  Deno.test({
    name: `${name}, in a bucket [needs litestream] [needs sqlite3] [needs minio]`,
    ignore: ignore || findMinio() === null,
    async fn() {
      const minio = await startMinio();
      assert.ok(minio !== null);
      try {
        await using scene = await Scene.make(minio);
        await body(scene);
      } finally {
        await minio.stop();
      }
    },
  });
}

testTakeOver("litestream replicate goes on with our prefix after our clean stop", async (scene) => {
  await scene.ours(12);
  await scene.theirs([0]);
  await scene.compare();
});

testTakeOver(
  "we go on with a prefix of litestream replicate that has merges and snapshots",
  async (scene) => {
    await scene.theirs([0, 1, 2, 9]);
    await scene.compare();
    await scene.ours(6); // the file as it left it, which nobody can prove: all pages
    await scene.compare();
  },
);

testTakeOver(
  "we go on from a restore of what litestream replicate wrote without a snapshot",
  async (scene) => {
    await scene.theirs([0, 1]);
    await scene.ours(6, await scene.restored());
    assert.equal(scene.database.counts.snapshots, 0);
    await scene.compare();
  },
);

testTakeOver("a prefix goes from us to litestream replicate and back", async (scene) => {
  await scene.ours(6);
  await scene.theirs([0, 1]);
  await scene.ours(6, await scene.restored());
  await scene.theirs([0]);
  await scene.ours(3, await scene.restored());
  await scene.compare();
});
