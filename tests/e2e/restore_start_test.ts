/** Restores that a start does: a chosen state once, roots that the configuration does not name, a stop on the way. */

import assert from "node:assert/strict";
import { unlessStalled } from "../support/machine_stall.ts";
import { ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";
import { S3Server } from "../support/s3_server.ts";
import { storeOnService, testOnStores, type TestStore } from "../support/test_stores.ts";

function start(root: string, store: TestStore, files: readonly string[], ...extra: string[]): ManagerProcess {
  for (const name of files) Deno.mkdirSync(`${root}/${name}`, { recursive: true });
  return new ManagerProcess({
    args: [
      "run",
      ...store.args,
      ...files.flatMap((name) => ["--files", `${name}=${root}/${name}`]),
      ...["--data-dir", `${root}/data`, "--checkpoint-interval", "1h"],
      ...extra,
      "--",
      ...["sleep", "100000"],
    ],
    env: store.env,
  });
}

async function stopWell(manager: ManagerProcess): Promise<void> {
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(), 143, manager.tail());
}

testOnStores(
  "restore.on_start brings a chosen state back once, as new history, then means the latest",
  async (store) => {
    using scratch = scratchFolder();
    const a = `${scratch.path}/a`;
    {
      await using manager = start(a, store, ["app"]);
      await manager.state("running");
      Deno.writeTextFileSync(`${a}/app/x`, "one");
      await manager.checkpoint("first");
      Deno.writeTextFileSync(`${a}/app/x`, "two");
      await stopWell(manager);
    }
    const b = `${scratch.path}/b`;
    {
      await using manager = start(b, store, ["app"], "--restore", "1");
      await manager.state("running");
      assert.equal(Deno.readTextFileSync(`${b}/app/x`), "one");
      const { checkpoints } = await manager.json("/checkpoints");
      const last = checkpoints.at(-1);
      assert.deepEqual([last.kind, last.restored_from], ["restore", checkpoints[0].id]);
      Deno.writeTextFileSync(`${b}/app/x`, "three");
      await stopWell(manager);
    }
    await using manager = start(b, store, ["app"], "--restore", "1");
    await manager.state("running");
    assert.equal(Deno.readTextFileSync(`${b}/app/x`), "three");
    assert.match(manager.stderr, /applied before/);
    // What was there before the restore is still to be had.
    await manager.json("/restore", { json: { checkpoint: "2" } });
    assert.equal(Deno.readTextFileSync(`${b}/app/x`), "two");
  },
);

testOnStores(
  "files roots in the bucket without a name here stop the start, or are carried on unseen",
  async (store) => {
    using scratch = scratchFolder();
    const a = `${scratch.path}/a`;
    {
      await using manager = start(a, store, ["app", "other"]);
      await manager.state("running");
      Deno.writeTextFileSync(`${a}/app/x`, "app");
      Deno.writeTextFileSync(`${a}/other/y`, "other");
      await stopWell(manager);
    }
    const b = `${scratch.path}/b`;
    {
      await using manager = start(b, store, ["app"]);
      assert.equal(await manager.exit(), 78, manager.tail());
      assert.match(manager.stderr, /other/);
    }
    {
      const keep: TestStore = { ...store, env: { ...store.env, STATE_MANAGER_RESTORE_ORPHANS: "keep" } };
      await using manager = start(b, keep, ["app"]);
      await manager.state("running");
      Deno.writeTextFileSync(`${b}/app/x`, "changed");
      await stopWell(manager);
    }
    const c = `${scratch.path}/c`;
    await using manager = start(c, store, ["app", "other"]);
    await manager.state("running");
    assert.equal(Deno.readTextFileSync(`${c}/app/x`), "changed");
    assert.equal(Deno.readTextFileSync(`${c}/other/y`), "other");
  },
);

Deno.test(
  "SIGTERM while restoring ends within 2 s, starts nothing, and the next start restores",
  () => unlessStalled(stopWhileRestoring),
);

async function stopWhileRestoring(root: string): Promise<void> {
  await using server = await S3Server.start({ bucket: "bucket" });
  const store = storeOnService(server);
  const a = `${root}/a`;
  {
    await using manager = start(a, store, ["app"]);
    await manager.state("running");
    Deno.writeTextFileSync(`${a}/app/x`, "one");
    await stopWell(manager);
  }
  const b = `${root}/b`;
  const slow = server.fail({ operation: "get", keyPrefix: "checkpoints/", delayMs: 20_000 });
  {
    await using manager = start(b, store, ["app"], "--shutdown-budget", "100s");
    await manager.state("restoring");
    const begin = performance.now();
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 143, manager.tail());
    const tookMs = performance.now() - begin;
    assert.ok(tookMs < 2000, `took ${tookMs} ms\n${manager.tail()}`);
    assert.deepEqual([...Deno.readDirSync(`${b}/app`)], []);
  }
  slow.end();
  await using manager = start(b, store, ["app"]);
  await manager.state("running");
  assert.equal(Deno.readTextFileSync(`${b}/app/x`), "one");
}

Deno.test("a manager whose store has not answered yet says which store it waits for, and is stopped all the same", async () => {
  using scratch = scratchFolder();
  await using server = await S3Server.start({ bucket: "bucket" });
  server.fail({ delayMs: 600_000 });
  const store = storeOnService(server, "some/where");
  await using manager = start(scratch.path, store, ["app"]);
  await waitFor("the store's name", async () => (await manager.json("/")).storage !== null);
  const { state, reason, storage, repo_id } = await manager.json("/");
  assert.equal(state, "waiting");
  assert.match(reason, /^store: /); // no answer yet, or none in time
  assert.match(storage.description, /bucket/);
  assert.deepEqual([storage.key_prefix, storage.encrypted, repo_id], ["some/where", false, null]);
  await stopWell(manager);
});
