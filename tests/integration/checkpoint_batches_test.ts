/** Restores of trees that are larger than what is in memory of them at one time. */

import assert from "node:assert/strict";
import { planRestore, restoreTo, stageCheckpoint } from "../../src/checkpoint/restore.ts";
import { isError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { CheckpointRuns, watchedStore } from "../support/checkpoint_runs.ts";
import { tool } from "../support/mounts.ts";
import { hashTree, makeTree } from "../support/tree_model.ts";

const asRoot = isRoot();

/** Files of all kinds, the same content in places far apart, and hard links whose names lie in other batches. */
async function withTree(seed: number) {
  const watched = watchedStore();
  const runs = new CheckpointRuns(watched.store);
  makeTree(runs.files, { seed, files: 150, asRoot });
  const content = new Uint8Array(300_000).map((_, at) => (at * 7919) % 251);
  for (const name of ["0-first", "zz-last"]) await Deno.writeFile(`${runs.files}/${name}`, content);
  for (const name of ["0-link", "m-link", "zz-link"]) {
    await Deno.link(`${runs.files}/0-first`, `${runs.files}/${name}`);
  }
  const { record } = await runs.create();
  assert.ok(record !== null);
  return { ...watched, runs, record };
}

for (const batchEntries of [1, 7, 64]) {
  Deno.test(`restore in batches of ${batchEntries} equals the tree, links between batches and all`, async () => {
    const { runs, record } = await withTree(batchEntries);
    await using _ = runs;
    const { path, totals, warnings } = await runs.stage(record, "data", { batchEntries });
    assert.deepEqual(warnings, []);
    assert.equal(totals.entries, record.files.data?.entries);
    assert.equal(totals.bytes, record.files.data?.bytes);
    const [before, after] = [await hashTree(runs.files), await hashTree(path)];
    assert.deepEqual(after.lines, before.lines);
    const first = Deno.statSync(`${path}/0-first`);
    assert.equal(first.nlink, 4);
    assert.equal(Deno.statSync(`${path}/zz-link`).ino, first.ino);
  });
}

Deno.test("restore in batches goes on with what a stopped one has left, and takes from the live folder", async () => {
  const { runs, record } = await withTree(3);
  await using _ = runs;
  const batch = { record, indexes: runs.head.indexes, batchEntries: 10 };
  const holder = `${runs.folder}/.sm-restore-aa`;
  await Deno.mkdir(holder);
  const former = `${holder}/former-1`;
  await stageCheckpoint({ ...batch, roots: [{ name: "data", stage: former }] }, runs.environment());
  // As a crash leaves it: some files have not come, one holds other bytes.
  await Deno.remove(`${former}/zz-last`);
  const damaged = await Deno.open(`${former}/0-first`, { write: true });
  await damaged.write(Uint8Array.of(1, 2, 3));
  damaged.close();

  const live = `${runs.folder}/live`;
  assert.ok(tool("cp", "-a", runs.files, live));
  const stage = `${holder}/stage`;
  const roots = [{ name: "data", stage, former: [former], live }];
  const { totals, warnings } = await stageCheckpoint({ ...batch, roots }, runs.environment());
  assert.deepEqual(warnings, []);
  const [before, after] = [await hashTree(runs.files), await hashTree(stage)];
  assert.deepEqual(after.lines, before.lines);
  const { roots: [plan] } = await planRestore(
    { ...batch, roots: [{ name: "data", into: runs.folder }], paths: 0 },
    runs.environment(),
  );
  assert.ok(plan !== undefined);
  const { bytesReused } = totals;
  assert.ok(bytesReused > plan.neededBytes * 0.9, `${bytesReused} of ${plan.neededBytes} bytes reused`);
  await assert.rejects(Deno.stat(former), Deno.errors.NotFound);
});

Deno.test("restore of paths in batches has them alone, and says when one does not exist", async () => {
  const { runs, record } = await withTree(5);
  await using _ = runs;
  const request = { record, indexes: runs.head.indexes, roots: [], batchEntries: 5 };
  const stage = `${runs.folder}/out`;
  const roots = [{ name: "data", stage, paths: ["m-link", "zz-link"] }];
  const { totals } = await stageCheckpoint({ ...request, roots }, runs.environment());
  assert.equal(totals.entries, 3);
  assert.deepEqual([...Deno.readDirSync(stage)].map(({ name }) => name).sort(), ["m-link", "zz-link"]);
  assert.deepEqual(await Deno.readFile(`${stage}/m-link`), await Deno.readFile(`${runs.files}/0-first`));
  assert.equal(Deno.statSync(`${stage}/m-link`).nlink, 2);
  const lacking = [{ name: "data", stage: `${runs.folder}/none`, paths: ["zz-link", "zzz"] }];
  await assert.rejects(
    stageCheckpoint({ ...request, roots: lacking }, runs.environment()),
    (error) => isError(error, "not-found"),
  );
  await assert.rejects(Deno.stat(`${runs.folder}/none`), Deno.errors.NotFound);
});

Deno.test("restore in batches that is cut short leaves an error, not a tree", async () => {
  const { runs, record, watch } = await withTree(9);
  await using _ = runs;
  let gets = 0;
  watch.onGet = (object) => {
    if (++gets < 3 || object.body.length < 10_000) return object; // root and manifest are sound
    const body = object.body.slice();
    for (let at = 0; at < body.length; at += 97) body[at] = (body[at] ?? 0) ^ 0x55;
    return { ...object, body };
  };
  await assert.rejects(
    runs.stage(record, "data", { batchEntries: 20 }),
    (error) => isError(error, "data-damaged"),
  );
});

Deno.test("plan of a restore is the same whatever is in memory at one time", async () => {
  const { runs, record } = await withTree(11);
  await using _ = runs;
  const target = { name: "data", into: runs.folder, live: { ...LIVE, path: runs.files } };
  const plan = await planRestore(
    { record, indexes: runs.head.indexes, roots: [target], paths: 5 },
    runs.environment(),
  );
  assert.equal(plan.totals.entries, record.files.data?.entries);
  assert.equal(plan.roots[0]?.differences.unchanged.entries, record.files.data?.entries);
  const folder = `${runs.folder}/to`;
  await restoreTo({ record, indexes: runs.head.indexes, folder, names: null }, runs.environment());
  assert.deepEqual((await hashTree(`${folder}/data`)).lines, (await hashTree(runs.files)).lines);
});

const LIVE = { name: "data", excludePaths: [], exclude: [], includeDatabases: true };
