/** A follower that comes back goes on where it was, where it can prove that it missed nothing, and else takes all pages. */

import assert from "node:assert/strict";
import { assertSnapshot, FollowedDatabase, rows } from "../support/followed_database.ts";

const NO_AUTOCHECKPOINT = "PRAGMA wal_autocheckpoint=0; ";

/** Followed, with something in the log, and stopped without a word. */
async function left(before = NO_AUTOCHECKPOINT): Promise<FollowedDatabase> {
  const scene = await FollowedDatabase.wal({}, before);
  await scene.start();
  await scene.program.run("app", rows(100));
  await scene.synced();
  await scene.program.run("app", rows(20));
  await scene.synced();
  await scene.stop();
  return scene;
}

async function back(scene: FollowedDatabase, reason: string | null): Promise<void> {
  await scene.start();
  assertSnapshot(await scene.synced(), reason);
  await scene.program.open("later", scene.path);
  await scene.program.run("later", rows(1));
  assertSnapshot(await scene.synced("later"), null);
}

Deno.test("follower goes on in the same log after its own end", async () => {
  await using scene = await left();
  await scene.program.run("app", rows(5));
  await back(scene, null);
});

Deno.test("follower goes on after its own end when nothing happened", async () => {
  await using scene = await left();
  const follower = await scene.start();
  assert.deepEqual(await follower.sync(), { changed: false, txid: 2 });
});

Deno.test("follower goes on after the application checkpointed without a new log", async () => {
  await using scene = await left();
  await scene.program.run("app", rows(5));
  await scene.program.run("app", "PRAGMA wal_checkpoint(PASSIVE)");
  await back(scene, null);
});

Deno.test("follower takes all pages when commits may have gone with a log that began anew", async () => {
  await using scene = await left();
  await scene.program.run("app", rows(5)); // never read
  await scene.program.run("app", "PRAGMA wal_checkpoint(RESTART)");
  await scene.program.run("app", "UPDATE t SET b=randomblob(9) WHERE a=1");
  await back(scene, "log-restarted");
});

Deno.test("follower takes all pages when the log was cut meanwhile", async () => {
  await using scene = await left();
  await scene.program.run("app", "PRAGMA wal_checkpoint(TRUNCATE)");
  await back(scene, "log-gone");
});

Deno.test("follower takes all pages when the log was cut and begun meanwhile", async () => {
  await using scene = await left();
  await scene.program.run("app", "PRAGMA wal_checkpoint(TRUNCATE)");
  await scene.program.run("app", rows(2));
  await back(scene, "log-restarted");
});

Deno.test("follower takes all pages when the last connection took the log with it", async () => {
  await using scene = await left();
  await scene.program.close("app");
  await back(scene, "log-gone");
});

/** The log is longer than what of it is in use: at its end are frames of an earlier time. */
async function leftInSecondLog(): Promise<FollowedDatabase> {
  const scene = await FollowedDatabase.wal({ limits: { checkpointPages: 10 } }, NO_AUTOCHECKPOINT);
  const { program } = scene;
  const follower = await scene.start();
  await program.run("app", rows(300));
  await follower.sync();
  assert.equal(await follower.checkpointIfNeeded(), "reader");
  await program.run("app", rows(60));
  await scene.synced();
  assert.ok(follower.status.walBytes * 2 < Deno.statSync(`${scene.path}-wal`).size);
  await scene.stop();
  return scene;
}

Deno.test("follower goes on in a new log when the end of the one before is still there, and was read", async () => {
  await using scene = await leftInSecondLog();
  await scene.program.run("app", "PRAGMA wal_checkpoint(PASSIVE)");
  await scene.program.run("app", "UPDATE t SET b=randomblob(9) WHERE a=1");
  await back(scene, null);
});

Deno.test("follower takes all pages when the log before went on after what was read", async () => {
  await using scene = await leftInSecondLog();
  await scene.program.run("app", "UPDATE t SET b=2 WHERE a=2");
  await scene.program.run("app", "PRAGMA wal_checkpoint(PASSIVE)");
  await scene.program.run("app", "UPDATE t SET b=randomblob(9) WHERE a=1");
  await back(scene, "log-restarted");
});

Deno.test("follower takes all pages when the log began anew twice", async () => {
  await using scene = await leftInSecondLog();
  for (let i = 0; i < 2; i++) {
    await scene.program.run("app", "PRAGMA wal_checkpoint(PASSIVE)");
    await scene.program.run("app", "UPDATE t SET b=randomblob(9) WHERE a=1");
  }
  await back(scene, "log-restarted");
});

Deno.test("follower that closed goes on when nobody wrote past the log since", async () => {
  await using scene = await left();
  await scene.program.close("app");
  await scene.start();
  await scene.follower.sync(); // all pages, see above
  assert.equal(await scene.follower.close(), 3);
  await scene.pull();
  assert.throws(() => Deno.statSync(`${scene.path}-wal`), Deno.errors.NotFound);
  const follower = await scene.start();
  assert.deepEqual(await follower.sync(), { changed: false, txid: 3 });
  await scene.program.open("app", scene.path);
  await scene.program.run("app", rows(2));
  assertSnapshot(await scene.synced(), null);
});

Deno.test("follower that closed goes on from the first frame of a log that began since", async () => {
  await using scene = await left();
  await scene.program.close("app");
  await scene.start();
  await scene.follower.close();
  await scene.pull();
  await scene.program.open("app", scene.path, NO_AUTOCHECKPOINT);
  await scene.program.run("app", rows(2));
  await back(scene, null);
});

Deno.test("follower that closed beside an application goes on in its log", async () => {
  await using scene = await left();
  await scene.start();
  await scene.follower.close();
  await scene.pull();
  await scene.program.run("app", rows(2));
  await scene.program.run("app", rows(2));
  await back(scene, null);
});

Deno.test("follower that closed takes all pages when the database was written since", async () => {
  await using scene = await left();
  await scene.program.close("app");
  await scene.start();
  await scene.follower.close();
  await scene.pull();
  await scene.program.open("app", scene.path);
  await scene.program.run("app", "UPDATE t SET b=3 WHERE a=1"); // the file's size stays
  await scene.program.close("app");
  await back(scene, "log-gone");
});

Deno.test("follower takes all pages of another file by the same name", async () => {
  await using scene = await left();
  await scene.program.close("app");
  await new Deno.Command("cp", { args: [scene.path, `${scene.path}.copy`] }).output();
  Deno.renameSync(`${scene.path}.copy`, scene.path);
  await back(scene, "database-replaced");
});

Deno.test("follower takes all pages without its note, and with a torn one", async () => {
  await using scene = await left();
  Deno.removeSync(`${scene.stateFolder}/position.json`);
  await back(scene, "position-unknown");
  await scene.stop();
  const text = Deno.readTextFileSync(`${scene.stateFolder}/position.json`);
  Deno.writeTextFileSync(`${scene.stateFolder}/position.json`, text.slice(0, text.length - 5));
  await scene.start();
  assertSnapshot(await scene.synced(), "position-unknown");
});

Deno.test("follower sets a damaged newest file aside and takes all pages under its TXID", async () => {
  await using scene = await left();
  await scene.start();
  const newest = scene.follower.localFiles().at(-1);
  assert.ok(newest !== undefined);
  await scene.stop();
  const bytes = Deno.readFileSync(newest.path);
  bytes.set([1, 2, 3], bytes.length >> 1);
  Deno.writeFileSync(newest.path, bytes);
  const follower = await scene.start();
  assert.deepEqual(follower.localFiles().map(({ txid }) => txid), [1]);
  const result = await follower.sync();
  assertSnapshot(result, "local-damaged");
  assert.equal(result.txid, 2);
  assert.ok(Deno.statSync(`${newest.path}.damaged`).isFile);
});

Deno.test("follower of a restored database goes on from its TXID, and drops what is older", async () => {
  await using scene = await left();
  await scene.program.close("app"); // what a restore leaves: no log
  const follower = await scene.start({ baseline: 40 });
  assert.deepEqual(follower.localFiles(), []);
  assert.deepEqual(await follower.sync(), { changed: false, txid: 40 });
  scene.replica.bytes = await Deno.readFile(scene.path).catch(() => new Uint8Array(0));
  scene.replica.txid = 40;
  await scene.program.open("app", scene.path);
  await scene.program.run("app", rows(3));
  const result = await scene.synced();
  assertSnapshot(result, null);
  assert.equal(result.txid, 41);
  await scene.start({ baseline: 40 }); // its child was started again in the same run
  await scene.program.run("app", rows(3));
  assertSnapshot(await scene.synced(), null);
});

/** A restored database at TXID 40 that was followed, with nothing written yet. */
async function leftAtBaseline(): Promise<FollowedDatabase> {
  const scene = await left();
  await scene.program.close("app");
  await scene.start({ baseline: 40 });
  await scene.follower.sync();
  await scene.stop();
  scene.replica.bytes = await Deno.readFile(scene.path);
  scene.replica.txid = 40;
  await scene.program.open("app", scene.path, NO_AUTOCHECKPOINT);
  return scene;
}

Deno.test("follower of a restored database goes on after a kill before its first file, from the log's start", async () => {
  await using scene = await leftAtBaseline();
  await scene.program.run("app", rows(3));
  await scene.start({ baseline: 40 });
  const result = await scene.synced();
  assertSnapshot(result, null);
  assert.equal(result.txid, 41);
});

Deno.test("follower of a restored database takes all pages when the log was taken in before its first file", async () => {
  await using scene = await leftAtBaseline();
  await scene.program.run("app", rows(3));
  await scene.program.run("app", "PRAGMA wal_checkpoint(TRUNCATE)");
  await scene.start({ baseline: 40 });
  const result = await scene.synced();
  assertSnapshot(result, "log-gone");
  assert.equal(result.txid, 41);
});

Deno.test("follower takes all pages of a restored database that somebody wrote to before", async () => {
  await using scene = await left();
  await scene.start({ baseline: 40 });
  const result = await scene.follower.sync();
  assertSnapshot(result, "log-before-baseline");
  assert.equal(result.txid, 41);
});
