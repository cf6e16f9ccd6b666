/** The follower's own disk fails: nothing is lost, and it goes on when the disk does. */

import assert from "node:assert/strict";
import { isError } from "../../src/platform/errors.ts";
import { faultyFiles } from "../../src/platform/faulty_files.ts";
import { systemFiles } from "../../src/platform/local_files.ts";
import { assertSnapshot, FollowedDatabase, rows } from "../support/followed_database.ts";
import { say } from "../support/say.ts";

Deno.test("follower says disk-full, keeps what it has, and goes on with nothing lost", async () => {
  const files = faultyFiles(systemFiles);
  await using scene = await FollowedDatabase.wal({ files });
  const follower = await scene.start();
  await scene.synced();
  await scene.program.run("app", rows(100));
  const full = files.inject({ operation: "write", errno: "ENOSPC", takes: 700, count: Infinity });
  for (let i = 0; i < 3; i++) {
    await assert.rejects(follower.sync(), (error) => isError(error, "disk-full"));
    await scene.program.run("app", rows(10));
  }
  assert.equal(follower.status.failures, 3);
  assert.deepEqual(follower.localFiles().map(({ txid }) => txid), [1]);
  full.end();
  assertSnapshot(await scene.synced(), null);
  assert.equal(follower.status.failures, 0);
});

Deno.test("follower that is told to stop leaves no part of a file, and the next one takes it whole", async () => {
  const controller = new AbortController();
  await using scene = await FollowedDatabase.wal({
    signal: controller.signal,
    onStep: (step) => step === "scanned" && controller.abort(),
  });
  await scene.program.run("app", rows(9000)); // more than is written at once
  const follower = await scene.start();
  await assert.rejects(follower.sync(), (error) => isError(error, "cancelled"));
  await assert.rejects(follower.sync(), (error) => isError(error, "cancelled"));
  assert.deepEqual([...Deno.readDirSync(`${scene.stateFolder}/ltx/0`)], []);
  await scene.start({ signal: new AbortController().signal, onStep: () => {} });
  assertSnapshot(await scene.synced(), "first-contact");
});

Deno.test("follower makes its calls one at a time", async () => {
  await using scene = await FollowedDatabase.wal({ limits: { checkpointPages: 1 } });
  const follower = await scene.start();
  await scene.program.run("app", rows(100));
  const results = await Promise.all([
    follower.sync(),
    follower.touch(),
    follower.checkpointIfNeeded(),
    follower.sync(),
    follower.deleteUpTo(1),
    follower.touch(),
  ]);
  assert.deepEqual(follower.localFiles().map(({ txid }) => txid), [2, 3], JSON.stringify(results));
  assert.equal(await follower.close(), 3);
  assert.equal(await follower.close(), 3);
  await assert.rejects(follower.sync(), (error) => isError(error, "wrong-state"));
});

for (const when of ["before", "after"] as const) {
  for (const mode of ["wal", "rollback"]) {
    Deno.test(`follower in ${mode} mode loses nothing when any one operation on its disk fails ${when} it happens`, async () => {
      let nth = 1;
      for (;; nth++) {
        const files = faultyFiles(systemFiles);
        await using scene = await FollowedDatabase.wal({ files, limits: { checkpointPages: 1 } });
        if (mode === "rollback") await scene.program.run("app", "PRAGMA journal_mode=DELETE");
        await scene.start();
        await scene.synced();
        await scene.program.run("app", rows(30));
        const fault = files.inject({ nth, errno: "EIO", when });
        let failed = 0;
        const attempt = async (call: () => Promise<unknown>) => {
          try {
            await call();
          } catch {
            failed++;
          }
        };
        await attempt(() => scene.follower.touch());
        await attempt(() => scene.follower.checkpointIfNeeded());
        await scene.program.run("app", rows(3));
        await attempt(() => scene.follower.close());
        fault.end();
        await scene.start();
        await scene.follower.sync();
        await scene.assertSame(`the ${nth}th operation`);
        if (failed === 0 && fault.hits === 0) break;
      }
      say(`${nth - 1} operations, ${mode}, ${when}`);
      assert.ok(nth > 10);
    });
  }
}
