/** A restore that is stopped, then killed on the way, goes on with what it has staged. */

import assert from "node:assert/strict";
import { ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";
import { isRoot } from "../support/small_root.ts";
import { testOnStores, type TestStore } from "../support/test_stores.ts";
import { hashTree, makeTree } from "../support/tree_model.ts";

const MEBIBYTE = 1024 * 1024;
const FILE_BYTES = 4 * MEBIBYTE;
const FILES = 80;
const TOTAL_BYTES = FILES * FILE_BYTES;

/** So slow that it is caught on its way also by one who looks late. */
const SLOW = { STATE_MANAGER_CHECKPOINT_DOWNLOAD_LIMIT: "40MiB" };

function start(root: string, store: TestStore, env: Readonly<Record<string, string>> = {}): ManagerProcess {
  for (const folder of ["files", "data"]) Deno.mkdirSync(`${root}/${folder}`, { recursive: true });
  return new ManagerProcess({
    args: [
      ...["run", ...store.args, "--files", `app=${root}/files`, "--data-dir", `${root}/data`],
      ...["--checkpoint-interval", "1h"],
      // The last checkpoint is of hundreds of megabytes.
      ...["--shutdown-budget", "100s", "--", "sleep", "100000"],
    ],
    env: { ...store.env, ...env },
  });
}

/** Bytes on the disk in the folders that a restore has made beside the live one. */
function stagedBytes(root: string): number {
  const holders = [...Deno.readDirSync(root)].filter(({ name }) => name.startsWith(".sm-restore-"));
  const paths = holders.map(({ name }) => `${root}/${name}`);
  if (paths.length === 0) return 0;
  const { stdout } = new Deno.Command("du", { args: ["-sc", "--block-size=1", ...paths], stderr: "null" })
    .outputSync();
  return Number(/^(\d+)\ttotal$/m.exec(new TextDecoder().decode(stdout))?.[1] ?? 0);
}

async function staged(root: string, bytes: number): Promise<number> {
  return await waitFor(`${bytes} bytes staged`, () => {
    const now = stagedBytes(root);
    return now >= bytes ? now : null;
  }, 120_000);
}

function field(manager: ManagerProcess, name: string): number {
  const line = manager.stderr.split("\n").find((text) => text.includes('"bytesReused"')) ?? "";
  const value = new RegExp(`"${name}":(\\d+)`).exec(line)?.[1];
  assert.ok(value !== undefined, `${name} in the log\n${manager.tail()}`);
  return Number(value);
}

testOnStores("a restore that was stopped, then killed, goes on with what it has staged", async (store) => {
  using scratch = scratchFolder();
  const a = `${scratch.path}/a`;
  const block = new Uint8Array(65536);
  {
    Deno.mkdirSync(`${a}/files/model`, { recursive: true });
    makeTree(`${a}/files/model`, { seed: 5, files: 300, asRoot: isRoot });
    for (let i = 0; i < FILES; i++) {
      using file = Deno.openSync(`${a}/files/random-${i}`, { write: true, create: true });
      for (let at = 0; at < FILE_BYTES; at += block.length) file.writeSync(crypto.getRandomValues(block));
    }
    await using manager = start(a, store);
    await manager.state("running");
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(120_000), 143, manager.tail());
  }
  const b = `${scratch.path}/b`;
  let before = 0;
  {
    await using manager = start(b, store, SLOW);
    await staged(b, 0.15 * TOTAL_BYTES);
    const begin = performance.now();
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 143, manager.tail());
    const tookMs = performance.now() - begin;
    // At once, unless the disk is busy; the budget of 100 s is not used.
    assert.ok(tookMs < 30_000, `took ${tookMs} ms\n${manager.tail()}`);
    assert.deepEqual([...Deno.readDirSync(`${b}/files`)], [], "the restore was not finished");
    before = stagedBytes(b);
    assert.ok(before >= 0.15 * TOTAL_BYTES, `${before} bytes kept`);
  }
  {
    await using manager = start(b, store, SLOW);
    before = await staged(b, before + 0.15 * TOTAL_BYTES);
    await manager.killTree();
    assert.deepEqual([...Deno.readDirSync(`${b}/files`)], [], "the restore was not finished");
  }
  await using manager = start(b, store);
  await manager.state("running", 120_000);
  const [fetched, reused] = [field(manager, "bytesTransferred"), field(manager, "bytesReused")];
  assert.ok(reused >= 0.25 * TOTAL_BYTES, `${reused} of ${TOTAL_BYTES} bytes reused`);
  // A pack that is wanted for the greater part is read whole.
  assert.ok(fetched <= 0.85 * TOTAL_BYTES, `${fetched} of ${TOTAL_BYTES} bytes fetched`);
  assert.deepEqual((await hashTree(`${b}/files`)).lines, (await hashTree(`${a}/files`)).lines);
  assert.equal(stagedBytes(b), 0, "nothing is left of the stages");
});
