/** Readers that began before a prune and read on after it deleted what it had moved: they look at the head again. */

import assert from "node:assert/strict";
import { listFolder, readFile } from "../../src/checkpoint/browse.ts";
import { diffCheckpoints } from "../../src/checkpoint/diff.ts";
import { planRestore } from "../../src/checkpoint/restore.ts";
import type { ObjectStore, StoredObject } from "../../src/storage/object_store.ts";
import { isError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { KEEP_NOTHING, PruneScene } from "../support/prune_scene.ts";
import { listFiles } from "../support/manifest_entries.ts";

isRoot(); // loads libc once, which older runtimes count as a leak of the test that does it

const HOUR_MS = 3_600_000;

/** The head as a reader knew it, its indexes in memory, and all packs of it deleted since. */
async function prunedUnderReader(scene: PruneScene) {
  for (let i = 0; i < 8; i++) scene.write(`a${i}`, 30_000);
  await scene.checkpoint();
  for (let i = 0; i < 6; i++) scene.remove(`a${i}`);
  await scene.checkpoint();
  scene.write("b", 30_000);
  await scene.checkpoint();
  const { indexes, checkpoints } = scene.head;
  const [, before, after] = checkpoints;
  assert.ok(before !== undefined && after !== undefined);
  // Copies of what the reader has read by now.
  const read = new Map<string, StoredObject>();
  for (const { key } of indexes) read.set(key, await scene.store.get(key));
  scene.keep = { ...KEEP_NOTHING, last: 2 };
  await scene.pruner().prune({ dryRun: false });
  scene.pass(HOUR_MS);
  const { deletedObjects } = await scene.pruner().prune({ dryRun: false });
  assert.ok(deletedObjects > 0, "the prune moved and deleted");
  const store: ObjectStore = {
    ...scene.store,
    get: (key, options) => {
      const known = read.get(key);
      if (known === undefined) return scene.store.get(key, options);
      return Promise.resolve(known);
    },
  };
  return { indexes, before, after, environment: { ...scene.environment(), cacheFolder: null, store } };
}

Deno.test("plans, listings, single files and differences outlive a prune that moves what they read", async () => {
  await using scene = new PruneScene(11, memoryStore());
  const { indexes, before, after, environment } = await prunedUnderReader(scene);
  const roots = [{ name: "data", into: scene.folder }];
  const plan = await planRestore({ record: after, indexes, roots, paths: 10 }, environment);
  assert.equal(plan.totals.bytes, 90_000);
  assert.equal((await listFiles({ record: after, indexes, name: "data" }, environment)).length, 4);
  const folder = { record: after, indexes, path: "data", recursive: true, skip: 0, limit: 10 };
  const { entries } = await listFolder(folder, environment);
  assert.deepEqual(entries.map(({ path }) => path), ["data/a6", "data/a7", "data/b"]);
  let bytes = 0;
  for await (const piece of readFile({ record: after, indexes, path: "data/a6" }, environment)) {
    bytes += piece.length;
  }
  assert.equal(bytes, 30_000);
  const diff = await diffCheckpoints({ before, after, indexes, skip: 0, limit: 10 }, environment);
  assert.deepEqual(diff.differences.map(({ path, change }) => [path, change]), [["", "metadata"], [
    "b",
    "added",
  ]]);
});

Deno.test("a plan of a checkpoint that a prune took meanwhile says so", async () => {
  await using scene = new PruneScene(12, memoryStore());
  scene.write("a", 30_000);
  const record = await scene.checkpoint();
  scene.remove("a");
  scene.write("b", 30_000);
  await scene.checkpoint();
  const { indexes } = scene.head;
  const root = await scene.store.get(record.root);
  const known = await Promise.all(indexes.map(async ({ key }) => [key, await scene.store.get(key)] as const));
  await scene.pruner().prune({ dryRun: false });
  scene.pass(HOUR_MS);
  await scene.pruner().prune({ dryRun: false });
  const kept = new Map([...known, [record.root, root] as const]);
  const store: ObjectStore = {
    ...scene.store,
    get: (key, options) => {
      const object = kept.get(key);
      return object === undefined ? scene.store.get(key, options) : Promise.resolve(object);
    },
  };
  const environment = { ...scene.environment(), cacheFolder: null, store };
  const plan = planRestore(
    { record, indexes, roots: [{ name: "data", into: scene.folder }], paths: 1 },
    environment,
  );
  await assert.rejects(plan, (error) => isError(error, "checkpoint-not-found"));
});
