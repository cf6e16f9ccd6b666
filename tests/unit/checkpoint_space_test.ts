/** Whether trees fit on a disk that they share, before the first of them is written. */

import assert from "node:assert/strict";
import { requireSpaceForAll, type SpaceClaim, type SpaceNeed } from "../../src/checkpoint/space.ts";
import { isError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { scratchFolder } from "../support/tree_model.ts";

isRoot(); // loads libc once, which older runtimes count as a leak of the test that does it

const need = (bytes: number, files = 1): SpaceNeed => ({ bytes, files });

function claims(folder: string, needs: readonly (readonly [SpaceNeed, SpaceNeed])[]) {
  const asked: string[] = [];
  const all: SpaceClaim[] = needs.map(([atMost, exact], i) => ({
    name: `root${i}`,
    folder: `${folder}/not/there/yet${i}`,
    atMost,
    exact: () => {
      asked.push(`root${i}`);
      return Promise.resolve(exact);
    },
  }));
  return { all, asked };
}

Deno.test("trees that fit one by one and not together are refused before any is written", async () => {
  await using folder = scratchFolder("space-");
  const { all } = claims(folder.path, [[need(60), need(60)], [need(60), need(60)]]);
  const free = () => ({ bytes: 100, files: 10 });
  await assert.rejects(requireSpaceForAll(all, free), (error) => {
    assert.ok(isError(error, "disk-full"));
    assert.match(error.message, /"root0", "root1": 120 bytes are needed, 100 are free/);
    return true;
  });
  const inodes = () => ({ bytes: null, files: 1 });
  await assert.rejects(requireSpaceForAll(all, inodes), /2 inodes are needed, 1 are free/);
});

Deno.test("what trees truly need together is looked up only where their sizes with holes do not fit", async () => {
  await using folder = scratchFolder("space-");
  const sparse = claims(folder.path, [[need(90), need(10)], [need(90), need(10)]]);
  await requireSpaceForAll(sparse.all, () => ({ bytes: 100, files: null }));
  assert.deepEqual(sparse.asked, ["root0", "root1"]);
  const small = claims(folder.path, [[need(10), need(10)], [need(10), need(10)]]);
  await requireSpaceForAll(small.all, () => ({ bytes: 100, files: null }));
  assert.deepEqual(small.asked, []);
});

Deno.test("trees on disks of their own are not added up", async () => {
  await using folder = scratchFolder("space-");
  const [here] = claims(folder.path, [[need(60), need(60)]]).all;
  const [there] = claims("/proc", [[need(60), need(60)]]).all;
  assert.ok(here !== undefined && there !== undefined);
  await requireSpaceForAll([here, there], () => ({ bytes: 100, files: null }));
});
