/** A log whose sums do not hold though SQLite's index counts its commits: what an old SQLite can write. */

import assert from "node:assert/strict";
import process from "node:process";
import { isError } from "../../src/platform/errors.ts";
import { assertSameBytes, assertSnapshot, FollowedDatabase, rows } from "../support/followed_database.ts";
import { findSqliteShell, SqliteShell } from "../support/sqlite_shell.ts";

const [, minor = 0] = (process.versions["sqlite"] ?? "").split(".").map(Number);
/** An older SQLite of ours cannot be asked what the index counts. */
const ignore = minor < 51;

/** Makes the last frame's sum another one. Opening and closing a log harms nobody. */
function breakLog(path: string): void {
  const { size } = Deno.statSync(`${path}-wal`);
  using log = Deno.openSync(`${path}-wal`, { read: true, write: true });
  const at = size - 4096 - 8;
  log.seekSync(at, Deno.SeekMode.Start);
  log.writeSync(new Uint8Array([1, 2, 3, 4]));
}

/** What the database's own file holds, by another process. */
async function fileOf(scene: FollowedDatabase): Promise<Uint8Array<ArrayBuffer>> {
  const copy = `${scene.folder}/file.db`;
  assert.ok((await new Deno.Command("cp", { args: [scene.path, copy] }).output()).success);
  return await Deno.readFile(copy);
}

Deno.test({
  name: "follower takes all pages when the log has commits whose sums do not hold",
  ignore,
  async fn() {
    await using scene = await FollowedDatabase.wal({}, "PRAGMA wal_autocheckpoint=0; ");
    const { program } = scene;
    await scene.start();
    await scene.synced();
    await program.run("app", rows(30));
    breakLog(scene.path);
    await program.run("app", rows(30));
    assertSnapshot(await scene.follower.sync(), "log-unreadable");
    await scene.pull();
    assertSameBytes(
      scene.replica.bytes,
      await fileOf(scene),
      "the whole log is in the database and in the replica",
    );
    assert.equal(Deno.statSync(`${scene.path}-wal`).size, 0, "no recovery can undo a part of it");
    await program.run("app", rows(5));
    assertSnapshot(await scene.synced("the log that follows"), null);
    assert.deepEqual(await program.run("app", "SELECT count(*) AS n FROM t"), [{ n: 65 }]);
  },
});

Deno.test({
  name: "follower takes all pages of such a log where its sync would be made with a checkpoint",
  ignore,
  async fn() {
    const limits = { checkpointPages: 10, barrierPages: 10, jointPages: 1e9 };
    await using scene = await FollowedDatabase.wal({ limits }, "PRAGMA wal_autocheckpoint=0; ");
    const { program } = scene;
    await scene.start();
    await scene.synced();
    await program.run("app", rows(30));
    await scene.synced("a log to go on in");
    await program.run("app", rows(30));
    await program.run("app", rows(3));
    breakLog(scene.path);
    await program.run("app", rows(3));
    assertSnapshot(await scene.follower.sync(), "log-unreadable");
    await scene.pull();
    assertSameBytes(scene.replica.bytes, await fileOf(scene), "replica");
    await program.run("app", rows(5));
    assertSnapshot(await scene.synced("the log that follows"), null);
  },
});

Deno.test({
  name: "follower says that it is behind while a reader withholds a log whose sums do not hold",
  ignore,
  async fn() {
    await using scene = await FollowedDatabase.wal({}, "PRAGMA wal_autocheckpoint=0; ");
    const { program } = scene;
    const follower = await scene.start();
    await scene.synced();
    await program.open("reader", scene.path);
    await program.run("reader", "BEGIN; SELECT * FROM t");
    await program.run("app", rows(30));
    breakLog(scene.path);
    for (let tries = 1; tries <= 2; tries++) {
      await assert.rejects(follower.sync(), (error) => isError(error, "busy") && /sums/.test(error.message));
      assert.equal(follower.status.txid, 1, "nothing is written that is not the database");
    }
    assert.equal(follower.status.failures, 2);
    await program.run("reader", "ROLLBACK");
    assertSnapshot(await follower.sync(), "log-unreadable");
    await scene.pull();
    assertSameBytes(scene.replica.bytes, await fileOf(scene), "replica");
  },
});

Deno.test({
  name: "follower that comes back to a log whose sums do not hold takes all pages",
  ignore,
  async fn() {
    await using scene = await FollowedDatabase.wal({}, "PRAGMA wal_autocheckpoint=0; ");
    await scene.start();
    await scene.synced();
    await scene.stop();
    await scene.program.run("app", rows(30));
    breakLog(scene.path);
    const follower = await scene.start();
    assertSnapshot(await follower.sync(), "log-unreadable");
    await scene.pull();
    assertSameBytes(scene.replica.bytes, await fileOf(scene), "replica");
  },
});

Deno.test({
  name: "follower has what the sqlite3 at hand commits after it went back to a savepoint [needs sqlite3]",
  ignore: ignore || findSqliteShell() === null,
  async fn() {
    const before = "PRAGMA page_size=1024; PRAGMA auto_vacuum=1; ";
    await using scene = await FollowedDatabase.wal({}, before);
    await scene.program.run("app", "CREATE INDEX i ON t(b)");
    await scene.start();
    await scene.synced();
    await using shell = new SqliteShell();
    await shell.must(`.open '${scene.path}'\nPRAGMA cache_size=10; PRAGMA wal_autocheckpoint=0;`);
    await shell.must(
      `SAVEPOINT a; ${rows(20)}; SAVEPOINT b; ${rows(300, 60)}; RELEASE b; ROLLBACK TO a; END; ${rows(5)};`,
    );
    const result = await scene.follower.sync();
    assert.ok(result.changed);
    await scene.assertSame("with a snapshot, where the log cannot be read");
    const [count] = await shell.must("SELECT count(*) FROM t;");
    assert.equal(count, "5");
  },
});
