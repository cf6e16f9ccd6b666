/**
 * Databases of kept checkpoints on a real S3 service: while checkpoints come and are pruned, holders change and somebody
 * restores, the replica's own retention merges and deletes for 30 days; each TXID that a listed checkpoint names can be
 * restored to at the end, and is what the database was then. More rounds: STATE_MANAGER_PRUNE_ROUNDS=100.
 */

import assert from "node:assert/strict";
import { isError } from "../../src/platform/errors.ts";
import type { ObjectStore } from "../../src/storage/mod.ts";
import { findMinio, minioStore, startMinio } from "../support/minio.ts";
import { KEEP_NOTHING, PruneScene } from "../support/prune_scene.ts";
import {
  type Content,
  contentOf,
  DAY_MS,
  ReplicatedDatabase,
  sha256Of,
  takeDump,
} from "../support/replicated_database.ts";
import { say } from "../support/say.ts";
import { findSqliteShell, SqliteShell } from "../support/sqlite_shell.ts";
import { scratchFolder } from "../support/tree_model.ts";

const ROUNDS = Number(Deno.env.get("STATE_MANAGER_PRUNE_ROUNDS") ?? 5);
const DAYS_MS = 30 * DAY_MS;

Deno.test({
  name: "each kept checkpoint has its database after 30 days of prunes, merges and take-overs [needs minio]",
  ignore: findMinio() === null || findSqliteShell() === null,
  async fn() {
    const minio = await startMinio();
    assert.ok(minio !== null);
    const store = minioStore(minio, "prune");
    const seed = Number(Deno.env.get("STATE_MANAGER_TEST_SEED") ?? Date.now() % 1_000_000);
    say(`seed ${seed}`);
    try {
      await rounds(seed, store);
    } finally {
      await store.close();
      await minio.stop();
    }
  },
});

/** What a holder may hear when it is none any more, or when a checkpoint came first. */
function unlessFenced(work: Promise<unknown>): Promise<unknown> {
  return work.catch((error) => {
    if (!isError(error, "lease-lost", "cancelled", "busy")) throw error;
  });
}

async function rounds(seed: number, store: ObjectStore): Promise<void> {
  await using scratch = scratchFolder("sm-kept-databases-");
  const folder = scratch.path;
  const model = new Map<string, readonly string[]>();
  await using one = new PruneScene(seed, store, model);
  await using two = new PruneScene(seed + 1, store, model);
  for (const scene of [one, two]) scene.keep = { ...KEEP_NOTHING, last: 4, daily: 3, weekly: 2 };
  await using database = new ReplicatedDatabase({ folder, store, layout: "bucket" });
  await using shell = new SqliteShell();
  const below = (limit: number) => Math.floor(one.random.float() * limit);
  const wanted = new Map<string, { readonly txid: number; readonly content: Content }>();
  const open = () => shell.must(`.open '${database.path}'\n.timeout 5000`);
  const write = () =>
    shell.must(
      `INSERT INTO t(b) SELECT randomblob(${1 + below(3000)}) FROM t LIMIT ${1 + below(30)}; ` +
        `UPDATE t SET b=randomblob(500) WHERE a%${2 + below(7)}=0; DELETE FROM t WHERE a%50=${below(50)};`,
    );
  /** As the manager does it: what the head lists stays in the replica. */
  const pin = ({ head }: PruneScene) => {
    const txids = head.checkpoints.flatMap(({ databases }) => databases?.["app"]?.txid ?? []);
    database.pins.splice(0, Infinity, ...new Set(txids));
  };
  const checkpoint = async (scene: PruneScene) => {
    scene.write(`f${below(8)}`, 1000 + below(50_000));
    const txid = await database.barrier();
    const content = await contentOf(shell, database.path, folder);
    await open();
    // Before the commit: what it names may not go between the two.
    database.pins.push(txid);
    const position = { app: { txid } };
    const record = await scene.checkpoint({
      databases: position,
      ...(below(8) === 0 ? { pinned: true } : {}),
    });
    wanted.set(record.id, { txid, content });
    pin(scene);
  };
  const restores = async (scene: PruneScene, id: string) => {
    const kept = wanted.get(id);
    assert.ok(kept !== undefined && scene.head.checkpoints.some((each) => each.id === id));
    const { path } = await database.restore({ kind: "txid", txid: kept.txid });
    assert.equal(sha256Of(path), kept.content.bytes, `TXID ${kept.txid}`);
    // With integrity_check.
    assert.equal(await takeDump(shell, path), kept.content.dump, `TXID ${kept.txid}`);
    await open();
  };

  await open();
  await shell.must(
    "PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t(b) VALUES (1), (2), (3);",
  );
  await database.start();
  await one.takeOver();
  let [holder, other] = [one, two];
  for (let round = 0; round < ROUNDS; round++) {
    await write();
    await checkpoint(holder);
    await write();
    const [oldest] = holder.head.checkpoints;
    const pruning = unlessFenced(holder.pruner().prune({ dryRun: false }));
    if (oldest !== undefined && below(3) === 0) await restores(holder, oldest.id);
    if (below(2) === 0) await database.checkpoint();
    await other.takeOver(holder.token);
    await pruning;
    // The next holder's process: it follows the same file in a term of its own.
    await shell.must(".open :memory:");
    await database.finish();
    await database.drop();
    await database.start({ newTerm: true });
    await open();
    [holder, other] = [other, holder];
    pin(holder);
    await write();
    await checkpoint(holder);
    await holder.pruner().prune({ dryRun: false });
    pin(holder);
    for (const scene of [one, two]) scene.pass(DAYS_MS / ROUNDS);
    await database.pass(DAYS_MS / ROUNDS);
  }
  await database.pass(2 * DAY_MS);
  await holder.restoresAll();
  for (const { id } of holder.head.checkpoints) await restores(holder, id);
  say(`${ROUNDS} rounds, ${holder.head.checkpoints.length} of ${wanted.size} checkpoints kept, all restored`);
  say(JSON.stringify(database.counts));
  assert.ok(database.counts.deleted > 0, "retention deleted nothing: the test says nothing");
  await shell.must(".open :memory:");
  await database.finish();
}
