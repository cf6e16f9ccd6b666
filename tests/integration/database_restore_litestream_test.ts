/** Restores against the real Litestream: the same plans, and the same bytes from replicas that it wrote itself. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { DatabaseSync } from "node:sqlite";
import { drillDatabase } from "../../src/database/drill.ts";
import { ltxName } from "../../src/database/ltx/mod.ts";
import type { ReplicaPlace } from "../../src/database/replica_layout.ts";
import { restoreDatabaseTo } from "../../src/database/restore_database.ts";
import { type ListedPoint, listRestorePoints } from "../../src/database/restore_points.ts";
import { type PlannableFile, planRestore, type RestoreTarget } from "../../src/database/restore_plan.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { type ObjectStore, openStore } from "../../src/storage/mod.ts";
import { findLitestream, litestream } from "../support/litestream.ts";
import { type LitestreamConfig, litestreamConfig, startLitestream } from "../support/litestream_replicate.ts";
import { findMinio, minioStore, startMinio } from "../support/minio.ts";
import { randomReplica, timeOf } from "../support/replica_model.ts";
import { randomOf } from "../support/seeded_random.ts";
import { scratchFolder } from "../support/tree_model.ts";

/** It loads libc, which older runtimes count as a leak of the test that does it. */
isRoot();

const noLitestream = findLitestream() === null;
const clock = systemClock();
const random = systemRandom();
const PLAN_SEEDS = 25;
/** Long past what a replica needs to show its first snapshot and merges. */
const WAIT_LIMIT_MS = 60_000;

function targetFlags(target: RestoreTarget): string[] {
  switch (target.kind) {
    case "newest":
      return [];
    case "txid":
      return ["-txid", target.txid.toString(16).padStart(16, "0")];
    case "before":
      return ["-timestamp", new Date(target.beforeMs).toISOString()];
  }
}

/** Litestream's plan as level and name; null where it has none. */
async function litestreamPlan(replica: string, target: RestoreTarget): Promise<string[] | null> {
  const flags = ["-dry-run", "-json", "-o", `${replica}/none.db`, ...targetFlags(target)];
  const { code, text } = await litestream("restore", ...flags, `file://${replica}`);
  if (code !== 0) return null;
  const { files } = JSON.parse(text.slice(text.indexOf("{"), text.lastIndexOf("}") + 1));
  return files.map(({ level, name }: { level: number; name: string }) => `${level} ${name}`);
}

function ownPlan(files: readonly PlannableFile[], target: RestoreTarget): string[] | string {
  try {
    return planRestore(files, target).map(({ level, minTxid, maxTxid }) =>
      `${level} ${ltxName(minTxid, maxTxid)}`
    );
  } catch (error) {
    if (isError(error, "not-found", "data-damaged")) return error.code;
    throw error;
  }
}

Deno.test({
  name: "[needs litestream] restore plans are those of litestream restore -dry-run, for any retained subset",
  ignore: noLitestream,
  async fn() {
    let planned = 0;
    for (let seed = 1; seed <= PLAN_SEEDS; seed++) {
      await using folder = scratchFolder("plan-");
      const seeded = randomOf(seed);
      const files = randomReplica(seeded, 30);
      if (files.length === 0) continue;
      for (const { level, minTxid, maxTxid } of files) {
        Deno.mkdirSync(`${folder.path}/ltx/${level}`, { recursive: true });
        const path = `${folder.path}/ltx/${level}/${ltxName(minTxid, maxTxid)}`;
        Deno.writeFileSync(path, new Uint8Array(200));
        Deno.utimeSync(path, new Date(timeOf(maxTxid)), new Date(timeOf(maxTxid)));
      }
      const ends = files.map((file) => file.maxTxid);
      const someTxid = ends[Math.floor(seeded.float() * ends.length)] ?? 1;
      const targets: RestoreTarget[] = [
        { kind: "newest" },
        { kind: "txid", txid: someTxid },
        { kind: "txid", txid: 1 + Math.floor(seeded.float() * 30) },
        { kind: "before", beforeMs: timeOf(someTxid) }, // a commit at that very time is not part of it
      ];
      for (const target of targets) {
        const theirs = await litestreamPlan(folder.path, target);
        const ours = ownPlan(files, target);
        const text = `seed ${seed}, ${JSON.stringify(target)}`;
        // The one difference: where it stops before a hole without a word, we say so.
        if (target.kind === "before" && ours === "data-damaged") continue;
        if (typeof ours === "string") {
          assert.equal(theirs, null, `${text}: we refused (${ours}), it planned ${theirs}`);
        } else assert.deepEqual(ours, theirs, text);
        if (typeof ours !== "string") planned++;
      }
    }
    assert.ok(planned > PLAN_SEEDS, `only ${planned} plans to compare`);
  },
});

/** Writes until the replica has a snapshot, merged files and L0 files after them, then a little more. */
async function writeWhileReplicating(database: DatabaseSync, seen: () => Promise<readonly ListedPoint[]>) {
  database.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB); CREATE INDEX i ON t(body)");
  const end = performance.now() + WAIT_LIMIT_MS;
  for (let turn = 1;; turn++) {
    database.exec(`INSERT INTO t(body) VALUES(randomblob(${(turn * 397) % 9000}))`);
    if (turn % 9 === 0) database.exec("DELETE FROM t WHERE id % 3 = 0");
    if (turn % 40 === 0) database.exec("VACUUM");
    if (turn % 20 === 0) {
      const levels = new Set((await seen()).map(({ level }) => level));
      if ([0, 1, 9].every((level) => levels.has(level)) && turn >= 120) return;
      assert.ok(performance.now() < end, `no snapshot and merges within ${WAIT_LIMIT_MS} ms: ${[...levels]}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 25)); // lets it see single commits
  }
}

async function comparePoints(
  folder: string,
  config: LitestreamConfig,
  store: ObjectStore,
  place: ReplicaPlace,
): Promise<void> {
  const environment = { store, clock, signal: new AbortController().signal };
  const { points, total, newestTxid } = await listRestorePoints({ place, after: 0 }, environment);
  assert.equal(points.at(-1)?.txid, newestTxid);
  assert.ok(total >= 20, `${total} points`);
  const some = points.filter((_, index) => index % Math.ceil(total / 8) === 0);
  const targets: RestoreTarget[] = [
    { kind: "newest" },
    ...some.map(({ txid }) => ({ kind: "txid", txid }) as const),
    // Its own look at the times of a bucket goes by whole seconds: the last ones are out of its bounds there.
    ...some.slice(1, -2).map(({ timestampMs }) => ({ kind: "before", beforeMs: timestampMs + 1 }) as const),
  ];
  for (const [index, target] of targets.entries()) {
    const [ours, theirs] = [`${folder}/ours-${index}.db`, `${folder}/theirs-${index}.db`];
    const request = { place, target, file: ours, owner: null, mode: 0o600, check: "full" } as const;
    await restoreDatabaseTo(request, environment);
    const args = ["-config", config.path, ...targetFlags(target), "-o", theirs, config.database];
    const { code, text } = await litestream("restore", ...args);
    assert.equal(code, 0, `${JSON.stringify(target)}: ${text}`);
    const same = Buffer.compare(Deno.readFileSync(ours), Deno.readFileSync(theirs)) === 0;
    assert.ok(same, `${JSON.stringify(target)}: other bytes than litestream restore makes`);
  }
  const drill = await drillDatabase({ place, file: `${folder}/drill.db` }, environment);
  assert.equal(drill.outcome, "passed", drill.error?.message);
}

async function replicateAndCompare(
  folder: string,
  config: LitestreamConfig,
  store: ObjectStore,
  place: ReplicaPlace,
): Promise<void> {
  const environment = { store, signal: new AbortController().signal };
  const database = new DatabaseSync(config.database);
  try {
    database.exec("PRAGMA page_size=1024; PRAGMA journal_mode=WAL; PRAGMA busy_timeout=5000");
    await using running = startLitestream(config);
    const seen = async () => (await listRestorePoints({ place, after: 0 }, environment)).points;
    await writeWhileReplicating(database, seen);
    await running.stop();
  } finally {
    database.close();
  }
  await comparePoints(folder, config, store, place);
}

Deno.test({
  name:
    "[needs litestream] what litestream replicate wrote to a folder restores to the bytes of litestream restore",
  ignore: noLitestream,
  async fn() {
    await using folder = scratchFolder("litestream-file-");
    const directory = `${folder.path}/store`;
    const config = litestreamConfig({
      database: `${folder.path}/app.db`,
      folder: folder.path,
      replica: { folder: `${directory}/databases/app` },
    });
    const store = openStore({ kind: "directory", directory }, { clock, random });
    await replicateAndCompare(folder.path, config, store, { layout: "folder", name: "app" });
    await store.close();
  },
});

Deno.test({
  name:
    "[needs litestream] [needs minio] what litestream replicate wrote to a bucket restores to the same bytes",
  ignore: noLitestream || findMinio() === null,
  async fn() {
    const minio = await startMinio();
    assert.ok(minio !== null);
    try {
      await using folder = scratchFolder("litestream-s3-");
      const config = litestreamConfig({
        database: `${folder.path}/app.db`,
        folder: folder.path,
        replica: { minio, path: "prod/databases/app" },
      });
      const store = minioStore(minio, "prod");
      await replicateAndCompare(folder.path, config, store, { layout: "bucket", name: "app" });
      await store.close();
    } finally {
      await minio.stop();
    }
  },
});
