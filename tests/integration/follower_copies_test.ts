/** Databases whose log cannot be followed: taken by copies, converted, and what happens when the mode changes. */

import assert from "node:assert/strict";
import { isError } from "../../src/platform/errors.ts";
import { assertSnapshot, FollowedDatabase, rows, TABLE } from "../support/followed_database.ts";
import { until } from "../support/supervised.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

async function rollback(journal: "follow" | "convert" | "snapshot" = "follow", before = "") {
  const scene = await FollowedDatabase.make({ journal, clock: new VirtualClock() });
  await scene.program.open("app", scene.path, `${before}${TABLE}; ${rows(50)}`);
  return scene;
}

/** Lets changes settle: they are seen by one sync and taken by one that comes later. */
async function settled(scene: FollowedDatabase, clock: VirtualClock) {
  await scene.follower.sync();
  await clock.advance(500);
  return await scene.synced();
}

for (const pageSize of [512, 4096, 65536]) {
  Deno.test(`follower copies a database without a log, pages of ${pageSize} bytes, and writes what differs`, async () => {
    const clock = new VirtualClock();
    await using scene = await rollback("follow", `PRAGMA page_size=${pageSize};`);
    const follower = await scene.start({ clock });
    assertSnapshot(await scene.synced(), "first-contact"); // it was there before us: at once
    assert.deepEqual(await follower.sync(), { changed: false, txid: 1 });
    assert.equal(follower.status.state, "copying");
    assert.equal(follower.status.journal, "rollback");
    assert.match(follower.status.warnings.join(), /set journal to "convert"/);
    for (
      const sql of [rows(300), "UPDATE t SET b=1 WHERE a=1", "DELETE FROM t WHERE a>5", "VACUUM", rows(3)]
    ) {
      await scene.program.run("app", sql);
      const result = await settled(scene, clock);
      assertSnapshot(result, null);
      if (sql.startsWith("UPDATE")) assert.ok(result.changed && result.sizeBytes < 4 * pageSize + 500, sql);
    }
    const copies = [...Deno.readDirSync(scene.stateFolder)].filter(({ name }) => name.startsWith("copy-"));
    assert.deepEqual(copies.map(({ name }) => name), ["copy-6.db"]);
  });
}

Deno.test("follower of copies goes on by what differs after its own end", async () => {
  const clock = new VirtualClock();
  await using scene = await rollback();
  await scene.start({ clock });
  await scene.synced();
  await scene.stop();
  const same = await scene.start({ clock });
  assert.deepEqual(await same.sync(), { changed: false, txid: 1 });
  await scene.stop();
  await scene.program.run("app", "UPDATE t SET b=1 WHERE a=1");
  await scene.start({ clock });
  assertSnapshot(await scene.synced(), null);
  await scene.stop();
  Deno.removeSync(`${scene.stateFolder}/copy-2.db`);
  await scene.start({ clock });
  assertSnapshot(await scene.synced(), "position-unknown");
});

Deno.test("follower of copies takes the last change without waiting when it closes", async () => {
  await using scene = await rollback();
  const follower = await scene.start();
  await follower.sync();
  await scene.program.run("app", rows(3));
  assert.equal(await follower.close(), 2);
  await scene.assertSame();
});

Deno.test("follower copies a database that changes all the time each five seconds, and says until then that it waits", async () => {
  const clock = new VirtualClock();
  await using scene = await rollback();
  const follower = await scene.start({ clock });
  await scene.synced();
  let files = 0;
  for (let look = 1; look <= 60; look++) {
    await scene.program.run("app", `UPDATE t SET b=${look} WHERE a=1`);
    await clock.advance(200);
    const result = await follower.sync();
    if (result.changed) files++;
    else assert.equal(result.unsettled, true, `look ${look}`);
  }
  assert.equal(files, 2, "in twelve seconds");
  await clock.advance(500);
  assert.ok((await follower.sync()).changed);
  assert.deepEqual(await follower.sync(), { changed: false, txid: 4 });
  await scene.assertSame();
});

Deno.test("follower that meets a program's lock looks again, and says so when it stays", async () => {
  const clock = new VirtualClock();
  await using scene = await rollback();
  const follower = await scene.start({ clock });
  await scene.synced();
  await scene.program.run("app", rows(3));
  await scene.program.run("app", "BEGIN EXCLUSIVE");
  await follower.sync();
  await clock.advance(500);
  for (let look = 0; look < 20; look++) {
    assert.deepEqual(await follower.sync(), { changed: false, txid: 1, unsettled: true });
  }
  await assert.rejects(follower.sync(), (error) => isError(error, "busy"));
  // Whoever waits for a copy gets it when the commit is over, unless that takes for seconds.
  const passing = async <T>(work: Promise<T>): Promise<T> => {
    let isOver = false;
    work.finally(() => isOver = true).catch(() => {});
    while (!isOver) await clock.advance(50);
    return await work;
  };
  const beganMs = clock.monotonicMs();
  await assert.rejects(passing(follower.sync({ now: true })), (error) => isError(error, "busy"));
  assert.ok(clock.monotonicMs() - beganMs > 1_000);
  const awaited = follower.sync({ now: true });
  await until(() => clock.sleeping > 0, "the first look");
  await scene.program.run("app", "COMMIT");
  assert.equal((await passing(awaited)).txid, 2);
  assert.equal((await scene.synced()).txid, 2);
});

Deno.test("follower takes no copy in the middle of a commit, nor of what is rolled back", async () => {
  const clock = new VirtualClock();
  await using scene = await rollback("follow", "PRAGMA cache_size=5; ");
  const follower = await scene.start({ clock });
  await scene.synced();
  await scene.program.run("app", `BEGIN; UPDATE t SET b=randomblob(600)`); // spilled into the database itself
  await scene.follower.sync();
  await clock.advance(500);
  const { changed } = await follower.sync().catch((error) => {
    assert.ok(isError(error, "busy"));
    return { changed: false };
  });
  assert.equal(changed, false);
  await scene.program.run("app", "ROLLBACK");
  assert.equal((await settled(scene, clock)).txid, 1);
});

Deno.test("follower waits until a new database is made before it locks it", async () => {
  const clock = new VirtualClock();
  await using scene = await FollowedDatabase.make({ clock });
  const follower = await scene.start();
  await follower.sync();
  await scene.program.open("app", scene.path, TABLE);
  assert.deepEqual(await follower.sync(), { changed: false, txid: null, unsettled: true });
  await scene.program.run("app", "PRAGMA journal_mode=WAL"); // would fail beside a reader
  await scene.program.run("app", rows(1));
  assertSnapshot(await scene.synced(), "mode-changed");
  assert.equal(follower.status.state, "following");
});

Deno.test("follower takes all pages when a database that it copied gets a log", async () => {
  await using scene = await rollback();
  await scene.start();
  await scene.synced();
  await scene.program.run("app", "PRAGMA journal_mode=WAL");
  await scene.program.run("app", rows(2));
  assertSnapshot(await scene.synced(), "mode-changed");
  await scene.program.run("app", rows(2));
  assertSnapshot(await scene.synced(), null);
});

Deno.test("follower converts a database as soon as nobody holds it", async () => {
  const clock = new VirtualClock();
  await using scene = await rollback("convert");
  await scene.program.run("app", "BEGIN");
  await scene.program.run("app", "SELECT count(*) FROM t");
  const follower = await scene.start({ clock });
  await follower.sync();
  assert.equal(follower.status.state, "copying");
  await scene.program.run("app", "COMMIT");
  assertSnapshot(await scene.synced(), "mode-changed");
  assert.equal(follower.status.state, "following");
  await scene.program.run("app", rows(2));
  assertSnapshot(await scene.synced(), null);
  assert.deepEqual(await scene.program.run("app", "PRAGMA journal_mode"), [{ journal_mode: "wal" }]);
});

Deno.test("follower copies a database in WAL mode by choice", async () => {
  const clock = new VirtualClock();
  await using scene = await rollback("snapshot");
  await scene.program.run("app", "PRAGMA journal_mode=WAL");
  const follower = await scene.start({ clock });
  assertSnapshot(await scene.synced(), "first-contact");
  for (
    const sql of [rows(30), "PRAGMA wal_checkpoint(TRUNCATE)", "DELETE FROM t WHERE a<9", "VACUUM", rows(2)]
  ) {
    await scene.program.run("app", sql);
    const result = await settled(scene, clock);
    if (!sql.startsWith("PRAGMA")) assertSnapshot(result, null);
  }
  assert.equal(follower.status.state, "copying");
  assert.deepEqual(follower.status.warnings.filter((text) => text.includes("convert")), []);
  const before = follower.status.txid ?? 0;
  const touched = await follower.touch();
  assert.equal(touched.txid, before + 1);
  await scene.assertSame();
});
