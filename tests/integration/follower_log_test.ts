/** Following a live database by its log, with the application in a process of its own. */

import assert from "node:assert/strict";
import { assertSnapshot, FollowedDatabase, rows } from "../support/followed_database.ts";

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
