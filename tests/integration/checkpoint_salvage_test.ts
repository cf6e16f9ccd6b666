/** Salvages of trees that are larger than what is in memory of them at one time. */

import assert from "node:assert/strict";
import { FLAG_META, readPackEntries } from "../../src/checkpoint/pack.ts";
import { salvageTo } from "../../src/checkpoint/salvage.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { damagedObjects, keptRepository, storeOf } from "../support/kept_repository.ts";
import { assertSameLines } from "../support/prune_scene.ts";
import { listTree } from "../support/tree_listing.ts";
import { makeTree } from "../support/tree_model.ts";

const asRoot = isRoot();
const LONG = "x".repeat(100);

/** A tree of everything, hard links whose names lie far apart, and a manifest of several pieces. */
async function wideRepository() {
  const repository = await keptRepository(0);
  const { files } = repository.runs;
  await Deno.mkdir(`${files}/tree`);
  makeTree(`${files}/tree`, { seed: 5, files: 60, asRoot });
  await Deno.mkdir(`${files}/many`);
  for (let i = 0; i < 600; i++) await Deno.writeTextFile(`${files}/many/${LONG}-${i}`, `${i}`);
  for (const name of ["many/0-link", "zz-link"]) await Deno.link(`${files}/large`, `${files}/${name}`);
  const record = await repository.checkpoint();
  return { repository, record };
}

type Objects = ReadonlyMap<string, Uint8Array<ArrayBuffer>>;

/** The packs with pieces of manifests, or those with content of files, largest first. */
function packsOf(objects: Objects, kind: "manifest" | "content"): string[] {
  return [...objects]
    .filter(([key, body]) =>
      key.startsWith("checkpoints/packs/") &&
      [...readPackEntries(body, key)].some(({ flags }) => (flags & FLAG_META) !== 0) === (kind === "manifest")
    )
    .sort(([, a], [, b]) => b.length - a.length)
    .map(([key]) => key);
}

function hurt(
  objects: Objects,
  what: "nothing" | "a list" | "a file" | "both" | "an index and a file",
): Objects {
  const [list = ""] = packsOf(objects, "manifest");
  const [content = ""] = packsOf(objects, "content");
  const [index = ""] = [...objects.keys()].filter((key) => key.startsWith("checkpoints/index/"));
  switch (what) {
    case "nothing":
      return objects;
    case "a list":
      return damagedObjects(objects, list, "flipped", { at: 40 });
    case "a file":
      return damagedObjects(objects, content, "flipped", { at: 300_000 });
    case "both":
      return hurt(hurt(objects, "a list"), "a file");
    case "an index and a file":
      return hurt(damagedObjects(objects, index, "deleted"), "a file");
  }
}

Deno.test("salvage in batches loses and brings the same as at once, and names lists with lost parts", async () => {
  const { repository, record } = await wideRepository();
  await using _ = repository;
  const { runs, head: { head } } = repository;
  const objects = await repository.objects();
  let folders = 0;
  for (const what of ["nothing", "both", "an index and a file"] as const) {
    const store = await storeOf(new Map(hurt(objects, what)));
    const salvage = async (more: { readonly batchEntries?: number }) => {
      const folder = `${runs.folder}/salvage-${++folders}`;
      const request = { record, head, indexes: head.indexes, names: null, folder, ...more };
      const { lost, lostTotal, lostLists, totals, warnings } = await salvageTo(request, {
        ...runs.environment(),
        store,
      });
      const lines: string[] = [];
      for (const { name } of Deno.readDirSync(folder)) {
        for (const line of await listTree(`${folder}/${name}`)) lines.push(`${name}: ${line}`);
      }
      return {
        lines: lines.sort(),
        told: { lost, lostTotal, lostLists, warnings, entries: totals.entries, bytes: totals.bytes },
      };
    };
    const whole = await salvage({});
    const [list] = whole.told.lostLists;
    assert.equal(list?.root, what === "both" ? "data" : undefined, what);
    if (list !== undefined) assert.ok(list.known > 100 && list.known < list.entries, JSON.stringify(list));
    // All names of the file that lost a chunk, for it has but one content. A lost list may hide them.
    const expected = ["large", "many/0-link", "zz-link"];
    const names = whole.told.lost.map(({ path }) => path).filter((path) => expected.includes(path));
    if (what === "nothing") assert.equal(whole.told.lostTotal, 0);
    if (what === "an index and a file") assert.deepEqual(names, expected);
    for (const batchEntries of what === "both" ? [1, 50] : [7]) {
      const again = await salvage({ batchEntries });
      assert.deepEqual(again.told, whole.told, `${what}, ${batchEntries}`);
      assertSameLines(again.lines, whole.lines, `${what}, ${batchEntries}`);
    }
    if (what === "nothing") {
      assertSameLines(await listTree(`${runs.folder}/salvage-1/data`), await listTree(runs.files), what);
    }
  }
});
