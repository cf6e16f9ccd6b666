/** Swaps of real SQLite databases on real file systems, and the facts that decide about them. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { finishDatabaseSwaps, stagePathOf, swapDatabases } from "../../src/database/database_swap.ts";
import { ltxName } from "../../src/database/ltx/mod.ts";
import { realDatabasePath } from "../../src/database/real_path.ts";
import { readReplicaFacts } from "../../src/database/replica_facts.ts";
import { replicaKey, type ReplicaPlace } from "../../src/database/replica_layout.ts";
import { restoreDatabase } from "../../src/database/restore_database.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { canMount, tool } from "../support/mounts.ts";
import { ReplicaBuilder } from "../support/replica_builder.ts";
import { scratchFolder } from "../support/tree_model.ts";

const place: ReplicaPlace = { layout: "bucket", name: "app" };
const signal = new AbortController().signal;

/** A database whose last row is only in its WAL: a copy taken while it was open, as kill -9 leaves it. */
function makeKilled(path: string): void {
  const source = `${path}.source`;
  const database = new DatabaseSync(source);
  database.exec("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES('checkpointed')");
  database.exec("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES('only in the log')");
  for (const suffix of ["", "-wal", "-shm"]) Deno.copyFileSync(source + suffix, path + suffix);
  database.close();
  Deno.removeSync(source);
}

function rows(path: string): unknown[] {
  const database = new DatabaseSync(path);
  try {
    return database.prepare("SELECT a FROM t ORDER BY rowid").all().map((row) => row["a"]);
  } finally {
    database.close();
  }
}

/** Restores TXID 2 of a replica in place of what is at `live`; gives where that is now. */
async function restoreInPlace(folder: string, live: string, aside: string): Promise<string | undefined> {
  const store = memoryStore();
  using builder = new ReplicaBuilder({ store, place, folder });
  await builder.commit("CREATE TABLE t(a)");
  await builder.commit("INSERT INTO t VALUES('restored')");
  const stage = stagePathOf(live);
  const request = {
    place,
    target: { kind: "newest" },
    file: stage,
    owner: null,
    mode: 0o644,
    check: "full",
  } as const;
  await restoreDatabase(request, { store, clock: systemClock(), signal });
  const journalPath = `${folder}/swap.json`;
  const items = [{ name: "app", live, stage, aside }];
  const { movedAside } = await swapDatabases({ journalPath, id: "r", items });
  await finishDatabaseSwaps(journalPath);
  return movedAside["app"];
}

Deno.test("a swap puts the restored database in place of a killed one, whose log stays with it", async () => {
  await using folder = scratchFolder("database-swap-");
  const live = `${folder.path}/app.db`;
  makeKilled(live);
  const aside = await restoreInPlace(folder.path, live, `${folder.path}/stale/then/app`);
  assert.equal(aside, `${folder.path}/stale/then/app`);
  assert.deepEqual(
    [...Deno.readDirSync(folder.path)].map(({ name }) => name).filter((name) => /^app|sm-/.test(name)),
    [
      "app.db",
    ],
  );
  assert.deepEqual(rows(live), ["restored"]);
  assert.deepEqual(rows(`${aside}/app.db`), ["checkpointed", "only in the log"]);
});

Deno.test("a database whose name SQLite could take for a URL's parts is restored and checked all the same", async () => {
  await using folder = scratchFolder("database-swap-");
  const live = `${folder.path}/my app #1?mode=rw&%41 ü.db`;
  makeKilled(live);
  const aside = await restoreInPlace(folder.path, live, `${folder.path}/stale/then/app`);
  assert.deepEqual(rows(live), ["restored"]);
  assert.equal([...Deno.readDirSync(aside ?? "")].length, 3);
});

Deno.test("a swap follows a symlink to the real file and keeps the link", async () => {
  await using folder = scratchFolder("database-swap-");
  Deno.mkdirSync(`${folder.path}/volume/deep`, { recursive: true });
  Deno.symlinkSync("volume", `${folder.path}/mount`);
  Deno.symlinkSync("mount/deep/real.db", `${folder.path}/app.db`);
  const live = realDatabasePath(`${folder.path}/app.db`);
  assert.equal(live, `${folder.path}/volume/deep/real.db`, "also when the real file is not there yet");
  makeKilled(live);
  await restoreInPlace(folder.path, live, `${folder.path}/stale/then/app`);
  assert.ok(Deno.lstatSync(`${folder.path}/app.db`).isSymlink);
  assert.deepEqual(rows(`${folder.path}/app.db`), ["restored"]);

  Deno.symlinkSync("loop", `${folder.path}/loop`);
  assert.throws(() => realDatabasePath(`${folder.path}/loop`), { code: "local-io", message: /too many/ });
});

Deno.test({
  name:
    "[needs mount] a swap keeps the old database on its own file system when the data folder is on another",
  ignore: !canMount,
  async fn() {
    await using folder = scratchFolder("database-swap-");
    const data = `${folder.path}/data`;
    Deno.mkdirSync(data);
    assert.ok(tool("mount", "-t", "tmpfs", "none", data));
    try {
      const live = `${folder.path}/app.db`;
      makeKilled(live);
      const aside = await restoreInPlace(folder.path, live, `${data}/stale/then/app`);
      assert.equal(aside, `${folder.path}/.sm-stale/then/app`);
      assert.deepEqual(rows(live), ["restored"]);
      assert.deepEqual(rows(`${aside}/app.db`), ["checkpointed", "only in the log"]);
    } finally {
      assert.ok(tool("umount", data));
    }
  },
});

Deno.test({
  name: "[needs mount] a database file that is a mount of its own is refused with advice, and stays as it is",
  ignore: !canMount,
  async fn() {
    await using folder = scratchFolder("database-swap-");
    const [live, source] = [`${folder.path}/app.db`, `${folder.path}/mounted.db`];
    makeKilled(source);
    Deno.writeTextFileSync(live, "");
    assert.ok(tool("mount", "--bind", source, live));
    try {
      await assert.rejects(restoreInPlace(folder.path, live, `${folder.path}/stale/then/app`), {
        code: "local-io",
        hint: /mount its folder/,
      });
      assert.deepEqual(rows(live), ["checkpointed"]);
    } finally {
      assert.ok(tool("umount", live));
    }
  },
});

Deno.test({
  name: "[needs mount] a restore onto a disk that fills up fails clearly and leaves no file",
  ignore: !canMount,
  async fn() {
    await using folder = scratchFolder("database-swap-");
    const disk = `${folder.path}/disk`;
    Deno.mkdirSync(disk);
    assert.ok(tool("mount", "-t", "tmpfs", "-o", "size=16m", "none", disk));
    try {
      const store = memoryStore();
      using builder = new ReplicaBuilder({ store, place, folder: folder.path });
      await builder.commit("CREATE TABLE t(a); INSERT INTO t VALUES(randomblob(12000000))");
      await builder.commit("INSERT INTO t VALUES(1)");
      // The room that was checked is taken by another while the restore runs.
      const onProgress = () => Deno.writeFileSync(`${disk}/other`, new Uint8Array(7_000_000));
      const request = {
        place,
        target: { kind: "newest" },
        file: `${disk}/app.db`,
        owner: null,
        mode: 0o600,
      } as const;
      const attempt = restoreDatabase({ ...request, check: "quick" }, {
        store,
        clock: systemClock(),
        signal,
        onProgress,
      });
      await assert.rejects(attempt, { code: "disk-full" });
      assert.deepEqual([...Deno.readDirSync(disk)].map(({ name }) => name), ["other"]);
    } finally {
      assert.ok(tool("umount", disk));
    }
  },
});

Deno.test("the facts of a replica tell same, longer and other local histories apart", async () => {
  await using folder = scratchFolder("replica-facts-");
  const local = `${folder.path}/ltx/0`;
  const store = memoryStore();
  const read = () => readReplicaFacts(place, local, { store, signal });
  assert.deepEqual(await read(), { bucketTxid: null, localTxid: null, sameContent: null });
  using builder = new ReplicaBuilder({ store, place, folder: folder.path });
  for (let turn = 0; turn < 4; turn++) await builder.commit(`CREATE TABLE t${turn}(a)`);
  assert.deepEqual(await read(), { bucketTxid: 4, localTxid: null, sameContent: null });

  Deno.mkdirSync(local, { recursive: true });
  const keep = (txid: number, bytes = builder.encode({ level: 0, minTxid: txid, maxTxid: txid })) =>
    Deno.writeFileSync(`${local}/${ltxName(txid, txid)}`, bytes);
  keep(3);
  assert.deepEqual(await read(), { bucketTxid: 4, localTxid: 3, sameContent: null });
  keep(4);
  assert.deepEqual(await read(), { bucketTxid: 4, localTxid: 4, sameContent: true });
  keep(5, builder.encode({ level: 0, minTxid: 4, maxTxid: 4 }));
  Deno.writeTextFileSync(`${local}/${ltxName(9, 9)}.tmp`, "half");
  assert.deepEqual(await read(), { bucketTxid: 4, localTxid: 5, sameContent: true });

  const other = builder.encode({ level: 0, minTxid: 4, maxTxid: 4 });
  other[79] = 9; // another term's token
  keep(4, other);
  assert.equal((await read()).sameContent, false);
  keep(4);
  await store.delete(replicaKey(place, { level: 0, minTxid: 4, maxTxid: 4 }));
  await builder.put({ level: 1, minTxid: 1, maxTxid: 4 });
  assert.deepEqual(await read(), { bucketTxid: 4, localTxid: 5, sameContent: null });
});
