/** Following a live database by its log, with the application in a process of its own. */

import assert from "node:assert/strict";
import { systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { assertSnapshot, FollowedDatabase, rows, TABLE } from "../support/followed_database.ts";

/** Opened once: it holds libc open for good, which a test's own check would take for a leak. */
const machine = systemClock();
const NO_AUTOCHECKPOINT = "PRAGMA wal_autocheckpoint=0; ";

Deno.test("follower takes all pages at first contact and increments after it", async () => {
  await using scene = await FollowedDatabase.wal();
  const { program } = scene;
  const follower = await scene.start();
  const first = await scene.synced();
  assertSnapshot(first, "first-contact");
  assert.equal(first.txid, 1);
  assert.deepEqual(await follower.sync(), { changed: false, txid: 1 });
  await program.run("app", rows(300));
  await program.run("app", "UPDATE t SET b=randomblob(10) WHERE a%3=0");
  const second = await scene.synced();
  assertSnapshot(second, null);
  assert.ok(second.changed && second.commits === 2 && second.txid === 2);
  assert.deepEqual(await follower.sync(), { changed: false, txid: 2 });
  await program.run("app", "DELETE FROM t WHERE a>10");
  assertSnapshot(await scene.synced(), null);
  assert.equal(await follower.close(), 3);
});

for (const pageSize of [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]) {
  Deno.test(`follower reads a database with pages of ${pageSize} bytes that grows, shrinks and is vacuumed`, async () => {
    await using scene = await FollowedDatabase.wal(
      {},
      `PRAGMA page_size=${pageSize}; PRAGMA auto_vacuum=2;`,
    );
    const { program } = scene;
    await scene.start();
    await scene.synced();
    for (
      const sql of [
        rows(500),
        "DELETE FROM t WHERE a%5<>0",
        "PRAGMA incremental_vacuum(20)",
        "VACUUM",
        rows(50),
        "DELETE FROM t",
        "VACUUM",
        rows(200),
      ]
    ) {
      await program.run("app", sql);
      assertSnapshot(await scene.synced(sql), null);
    }
    assert.equal(scene.follower.status.pageSize, pageSize);
  });
}

Deno.test("follower never takes what was spilled to the log and not committed", async () => {
  await using scene = await FollowedDatabase.wal({}, "PRAGMA cache_size=5; ");
  const { program } = scene;
  const follower = await scene.start();
  await follower.sync();
  await program.run("app", `BEGIN; ${rows(800)}`);
  assert.ok(Deno.statSync(`${scene.path}-wal`).size > 100_000, "it has spilled");
  assert.deepEqual(await follower.sync(), { changed: false, txid: 1 });
  await program.run("app", "ROLLBACK");
  assert.deepEqual(await follower.sync(), { changed: false, txid: 1 });
  await program.run("app", rows(1));
  assertSnapshot(await scene.synced("after a roll-back"), null);
  await program.run("app", `BEGIN; ${rows(800)}`);
  await follower.sync();
  await program.run("app", "UPDATE t SET b=0; COMMIT");
  assertSnapshot(await scene.synced("after a commit"), null);
});

Deno.test("follower cuts a long log at commits, and takes a larger transaction whole", async () => {
  await using scene = await FollowedDatabase.wal({ limits: { syncBytes: 20_000 } }, NO_AUTOCHECKPOINT);
  const { program } = scene;
  const follower = await scene.start();
  await follower.sync();
  await program.run("app", rows(1000));
  await program.run("app", rows(1));
  const large = await follower.sync();
  assert.ok(large.changed && large.commits === 1 && large.more);
  for (let i = 0; i < 20; i++) await program.run("app", rows(2));
  let files = 0;
  for (let more = true; more; files++) {
    const result = await follower.sync();
    assert.ok(result.changed && result.commits < 21);
    more = result.more;
  }
  assert.ok(files > 2, `${files} files`);
  await scene.assertSame();
  assert.deepEqual(await follower.sync(), { changed: false, txid: files + 2 });
});

for (const mode of ["PASSIVE", "FULL", "RESTART", "TRUNCATE"]) {
  Deno.test(`follower goes on by increments when the application checkpoints ${mode}`, async () => {
    // It waits for us as for any reader, for as long as it likes: here not long.
    await using scene = await FollowedDatabase.wal({}, "PRAGMA busy_timeout=50; ");
    const { program } = scene;
    await scene.start();
    await scene.synced();
    for (let i = 0; i < 6; i++) {
      await program.run("app", rows(30));
      if (i % 2 === 0) assertSnapshot(await scene.synced(`before ${i}`), null);
      await program.run("app", `PRAGMA wal_checkpoint(${mode})`);
      if (i % 3 === 0) await scene.follower.checkpointIfNeeded();
      await program.run("app", "UPDATE t SET b=randomblob(9) WHERE a=1");
      assertSnapshot(await scene.synced(`after ${i}`), null);
    }
  });
}

Deno.test("follower lets the log begin anew under an application that checkpoints by itself", async () => {
  await using scene = await FollowedDatabase.wal(
    { limits: { checkpointPages: 40 } },
    "PRAGMA wal_autocheckpoint=10; ",
  );
  const { program } = scene;
  await scene.start();
  await scene.synced();
  for (let i = 0; i < 60; i++) {
    await program.run("app", rows(10));
    assertSnapshot(await scene.synced(`${i}`), null);
    await scene.follower.checkpointIfNeeded();
  }
  assert.ok(scene.follower.status.checkpoints > 2);
  assert.ok(Deno.statSync(`${scene.path}-wal`).size < 100 * 4120, "the log's room was used again");
});

Deno.test("follower holds writers off only when a large log cannot be taken in without", async () => {
  let nowMs = 1_000; // it stands still, whatever the machine does
  await using scene = await FollowedDatabase.wal(
    {
      limits: { checkpointPages: 10, barrierPages: 20, restPages: 5, jointPages: -1, walBytes: 30_000 },
      clock: { ...machine, monotonicMs: () => nowMs },
    },
    NO_AUTOCHECKPOINT,
  );
  const { program } = scene;
  const follower = await scene.start();
  await follower.sync();
  await program.open("reader", scene.path);
  await program.run("reader", "BEGIN; SELECT count(*) FROM t");
  await program.run("app", rows(400));
  await follower.sync();
  assert.equal(await follower.checkpointIfNeeded(), "rest");
  assert.ok(follower.status.walOverLimit);
  assert.match(follower.status.warnings.join(), /over its limit/);
  assert.equal(await follower.checkpointIfNeeded(), null, "not at once again");
  await program.run("reader", "COMMIT");
  nowMs += 60_000;
  assert.notEqual(await follower.checkpointIfNeeded(), null);
  assert.equal(follower.status.walOverLimit, false);
  assert.equal(await follower.checkpointIfNeeded(), "cut");
  assert.equal(Deno.statSync(`${scene.path}-wal`).size, 0);
  await program.run("app", rows(3));
  assertSnapshot(await scene.synced(), null);
});

Deno.test("follower cuts no log that has anything unread", async () => {
  await using scene = await FollowedDatabase.wal(
    { limits: { checkpointPages: 10, walBytes: 1 } },
    NO_AUTOCHECKPOINT,
  );
  const { program } = scene;
  const follower = await scene.start();
  await program.run("app", rows(100));
  await follower.sync();
  assert.equal(await follower.checkpointIfNeeded(), "reader"); // all is in the database now
  await program.run("app", rows(1)); // and this is not, and not read
  assert.equal(await follower.checkpointIfNeeded(), "cut");
  assert.ok(Deno.statSync(`${scene.path}-wal`).size > 0);
  assertSnapshot(await scene.synced(), null);
});

/** Byte where SQLite's shared lock on a database begins. Source: https://sqlite.org/src (PENDING_BYTE + 2) */
const SHARED_LOCK = 0x40000000 + 2;

/** True when this process has SQLite's lock on the file. */
function isLocked(path: string): boolean {
  const { ino } = Deno.statSync(path);
  const lines = Deno.readTextFileSync("/proc/locks").split("\n");
  return lines.some((line) => line.includes(` ${Deno.pid} `) && line.includes(`:${ino} ${SHARED_LOCK} `));
}

Deno.test("follower never loses its lock on the database, as any descriptor that its process closes would do", async () => {
  await using scene = await FollowedDatabase.wal({ limits: { checkpointPages: 1 } }, NO_AUTOCHECKPOINT);
  const follower = await scene.start();
  const calls = [
    () => follower.sync(),
    () => follower.touch(),
    () => follower.checkpointIfNeeded(),
    () => follower.sync(),
    () => follower.deleteUpTo(1),
  ];
  for (const call of [...calls, ...calls]) {
    await scene.program.run("app", rows(5));
    await call();
    assert.ok(follower.status.error === null && isLocked(scene.path), String(call));
  }
  await follower.close();
  assert.ok(!isLocked(scene.path));
});

Deno.test("follower keeps the log when the application's last connection closes", async () => {
  await using scene = await FollowedDatabase.wal({}, NO_AUTOCHECKPOINT);
  const { program } = scene;
  await scene.start();
  await scene.synced();
  for (let i = 0; i < 3; i++) {
    await program.run("app", rows(30));
    await program.close("app");
    assert.ok(Deno.statSync(`${scene.path}-wal`).size > 0);
    assertSnapshot(await scene.synced(), null);
    assert.ok(scene.follower.status.error === null);
    await program.open("app", scene.path, NO_AUTOCHECKPOINT);
    await program.run("app", "UPDATE t SET b=randomblob(9)");
    assertSnapshot(await scene.synced(), null);
  }
});

Deno.test("follower commits nothing as a transaction of its own", async () => {
  await using scene = await FollowedDatabase.wal();
  const { program } = scene;
  const follower = await scene.start();
  await program.run("app", "PRAGMA user_version=41");
  await follower.sync();
  const result = await follower.touch();
  assert.ok(result.changed && result.txid === 2 && result.commits === 1 && result.sizeBytes < 5_000);
  await scene.assertSame();
  assert.deepEqual(await program.run("app", "PRAGMA user_version"), [{ user_version: 41 }]);
});

Deno.test("follower waits for a database that is not there yet", async () => {
  await using scene = await FollowedDatabase.make();
  const follower = await scene.start();
  assert.deepEqual(await follower.sync(), { changed: false, txid: null });
  assert.equal(follower.status.state, "absent");
  Deno.writeFileSync(scene.path, new Uint8Array(0));
  assert.deepEqual(await follower.sync(), { changed: false, txid: null });
  await scene.program.open("app", scene.path, `PRAGMA journal_mode=WAL; ${TABLE}`);
  assertSnapshot(await scene.synced(), "first-contact");
  assert.equal(follower.status.state, "following");
});

Deno.test("follower says busy, with a hint, while a program has the database for itself, and goes on later", async () => {
  await using scene = await FollowedDatabase.wal({}, "PRAGMA locking_mode=EXCLUSIVE; ");
  const { program } = scene;
  const follower = await scene.start();
  for (const failures of [1, 2]) {
    await assert.rejects(
      follower.sync(),
      (error) => isError(error, "busy") && /locking_mode/.test(error.hint ?? ""),
    );
    assert.equal(follower.status.failures, failures);
    assert.equal(follower.status.error?.code, "busy");
  }
  await program.close("app");
  await program.open("app", scene.path);
  await program.run("app", rows(1));
  assertSnapshot(await scene.synced(), "first-contact");
  assert.equal(follower.status.error, null);
});

Deno.test("follower takes all pages of a database that another was renamed over", async () => {
  await using scene = await FollowedDatabase.wal();
  const { program } = scene;
  await scene.start();
  await program.run("app", rows(100));
  await scene.synced();
  await program.open(
    "other",
    `${scene.path}.new`,
    `PRAGMA page_size=1024; PRAGMA journal_mode=WAL; ${TABLE}; ${rows(9)}`,
  );
  await program.close("other");
  await program.close("app");
  for (const suffix of ["-wal", "-shm"]) Deno.removeSync(scene.path + suffix);
  Deno.renameSync(`${scene.path}.new`, scene.path);
  assertSnapshot(await scene.synced(), "database-replaced");
  await program.open("app", scene.path);
  await program.run("app", rows(9));
  assertSnapshot(await scene.synced(), null);
});

Deno.test("follower takes all pages when the log's file was removed under it", async () => {
  await using scene = await FollowedDatabase.wal();
  const { program } = scene;
  const follower = await scene.start();
  await program.run("app", rows(10));
  await scene.synced();
  Deno.removeSync(`${scene.path}-wal`);
  await assert.rejects(follower.sync(), (error) => isError(error, "local-io")); // SQLite cannot read it either
  await program.close("app"); // takes in the log that it has open
  assertSnapshot(await scene.synced(), "log-replaced");
  await program.open("app", scene.path);
  await program.run("app", rows(10));
  assertSnapshot(await scene.synced(), null);
});

Deno.test("follower says data-damaged for what is no database", async () => {
  await using scene = await FollowedDatabase.make();
  const follower = await scene.start();
  Deno.writeTextFileSync(scene.path, "x".repeat(5000));
  await assert.rejects(follower.sync(), (error) => isError(error, "data-damaged"));
});

Deno.test("follower's times never go back, and its files bear the token", async () => {
  let wallMs = 1_900_000_000_000;
  const clock = { wallMs: () => wallMs, monotonicMs: () => 0, sleep: () => Promise.resolve() };
  await using scene = await FollowedDatabase.wal({ clock, token: 99 });
  const { readHeader } = await import("../../src/database/ltx/mod.ts");
  const follower = await scene.start();
  for (let i = 0; i < 3; i++) {
    await scene.program.run("app", rows(1));
    await follower.sync();
    wallMs -= 60_000;
  }
  const headers = follower.localFiles().map(({ path }) => readHeader(Deno.readFileSync(path)));
  assert.deepEqual(headers.map(({ timestampMs }) => timestampMs - 1_900_000_000_000), [0, 1, 2]);
  assert.deepEqual(headers.map(({ nodeId }) => nodeId), [99, 99, 99]);
  assert.ok(headers.every(({ walOffset }) => walOffset >= 32), "as a Litestream that takes over wants it");
  follower.requestSnapshot(9, 1_900_000_500_000);
  assertSnapshot(await follower.sync(), "requested");
  const newest = follower.localFiles().at(-1);
  assert.ok(newest !== undefined);
  const { timestampMs } = readHeader(Deno.readFileSync(newest.path));
  assert.equal(timestampMs, 1_900_000_500_001, "what others have is before it, too");
});

Deno.test("follower leaves out the TXIDs that others have taken", async () => {
  await using scene = await FollowedDatabase.wal();
  const follower = await scene.start();
  await follower.sync();
  follower.requestSnapshot(5);
  const result = await follower.sync();
  assertSnapshot(result, "requested");
  assert.equal(result.txid, 6);
  assert.deepEqual(await follower.sync(), { changed: false, txid: 6 });
});
