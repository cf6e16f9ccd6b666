/** A tree with everything, lost to a careless program and brought back: scan, read, stage, swap. */

import assert from "node:assert/strict";
import { finishSwaps, swapIn } from "../../src/checkpoint/swap.ts";
import { findSwapPlace } from "../../src/checkpoint/swap_place.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { captureTree, filesRoot, stageCaptured } from "../support/tree_capture.ts";
import { hashTree, makeTree, scratchFolder } from "../support/tree_model.ts";

const FILES = Number(Deno.env.get("TREE_FILES") ?? "2000");
const SEED = Number(Deno.env.get("TREE_SEED") ?? "42");

Deno.test(`a tree of ${FILES} files comes back to the last attribute (seed ${SEED})`, async () => {
  await using folder = scratchFolder("life-");
  const live = `${folder.path}/live`;
  const journalPath = `${folder.path}/swap.json`;
  Deno.mkdirSync(live);
  makeTree(live, { seed: SEED, files: FILES, asRoot: isRoot() });
  const before = await hashTree(live);
  const root = filesRoot(live);
  const tree = captureTree(root);
  for (const { name } of [...Deno.readDirSync(live)].slice(0, 20)) {
    await Deno.remove(`${live}/${name}`, { recursive: true }).catch(() => {}); // names that are no text stay
  }
  Deno.writeTextFileSync(`${live}/intruder`, "not in the checkpoint");
  const place = await findSwapPlace(root, "01life");
  assert.deepEqual(await stageCaptured(tree, place.stage, SEED), []);
  await swapIn({ journalPath, id: "01life", roots: [{ root, place }] });
  await finishSwaps(journalPath, { keepOld: false });
  const after = await hashTree(live);
  assert.deepEqual(after.lines, before.lines);
  assert.deepEqual([...Deno.readDirSync(folder.path)].map(({ name }) => name), [
    "live",
  ]);
});
