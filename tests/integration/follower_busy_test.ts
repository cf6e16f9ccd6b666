/** Two programs write, checkpoint and roll back all the time, while the follower reads and checkpoints. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { FollowedDatabase } from "../support/followed_database.ts";
import { say } from "../support/say.ts";

const program = new URL("../support/busy_database.ts", import.meta.url).pathname;

async function startWriter(path: string, seed: number): Promise<() => Promise<void>> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--no-check", "--no-config", program, path, String(seed)],
    stdout: "piped",
  }).spawn();
  const output = child.stdout.getReader();
  assert.ok(!(await output.read()).done, "it writes");
  return async () => {
    child.kill("SIGKILL"); // in the middle of whatever it does
    await child.status;
    await output.cancel();
  };
}

/** What the files give is a whole database, at one commit. */
function check(path: string, bytes: Uint8Array): number {
  Deno.writeFileSync(path, bytes);
  const database = new DatabaseSync(path);
  try {
    assert.equal(database.prepare("PRAGMA integrity_check").get()?.["integrity_check"], "ok");
    const sql = "SELECT (SELECT count(*) FROM t) AS t, (SELECT count(*) FROM u) AS u";
    const row = database.prepare(sql).get();
    assert.equal(row?.["t"], row?.["u"], "one commit, whole");
    return Number(row?.["t"]);
  } finally {
    database.close();
  }
}

const FILES = 150;

Deno.test("follower's every file is one commit of programs that never pause, without all pages but once", async () => {
  await using scene = await FollowedDatabase.make({
    limits: {
      syncBytes: 500_000,
      checkpointPages: 100,
      barrierPages: 150,
      restPages: 50,
      jointPages: 50,
      walBytes: 600_000,
    },
  });
  await scene.program.open(
    "app",
    scene.path,
    "PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a INTEGER PRIMARY KEY, b)",
  );
  const follower = await scene.start();
  await follower.sync();
  const stops = await Promise.all([startWriter(scene.path, 1), startWriter(scene.path, 7)]);
  const kinds: Record<string, number> = {};
  let commits = 0;
  let counts = 0;
  try {
    // On a loaded machine it may lag behind all the time, and checkpoints only when it has read to the end.
    for (let files = 0; files < FILES || (follower.status.checkpoints === 0 && files < 10 * FILES);) {
      const result = await follower.sync();
      const kind = await follower.checkpointIfNeeded();
      kinds[kind ?? "none"] = (kinds[kind ?? "none"] ?? 0) + 1;
      if (!result.changed) continue;
      files++;
      commits += result.commits;
      await scene.pull();
      counts += check(`${scene.folder}/check.db`, scene.replica.bytes);
    }
  } finally {
    for (const stop of stops) await stop();
  }
  // Who is killed between its commit's way to the disk and into SQLite's index leaves a commit that nobody sees, but that
  // a copy of the files has: the next one is written over it.
  const last = "BEGIN IMMEDIATE; INSERT INTO t(b) VALUES(0); INSERT INTO u(b) VALUES(0); COMMIT";
  await scene.program.run("app", last);
  for (let more = true; more;) {
    const result = await follower.sync();
    more = result.changed && result.more;
  }
  await scene.assertSame();
  const { snapshots, checkpoints, walFileBytes } = follower.status;
  say(
    `${commits} commits, ${counts} rows seen, ${checkpoints} checkpoints ${
      JSON.stringify(kinds)
    }, log ${walFileBytes} bytes`,
  );
  assert.equal(snapshots, 1);
  assert.ok(commits > FILES && checkpoints > 0);
});
