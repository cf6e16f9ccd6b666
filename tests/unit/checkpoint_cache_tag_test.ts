/** Folders with a CACHEDIR.TAG. */

import assert from "node:assert/strict";
import { byteText } from "../../src/checkpoint/byte_text.ts";
import { scanTree } from "../../src/checkpoint/scan.ts";
import { excludedIn } from "../../src/checkpoint/swap_place.ts";
import { filesRoot } from "../support/tree_capture.ts";
import { scratchFolder } from "../support/tree_model.ts";

const SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55";
const TREE: Readonly<Record<string, string | null>> = {
  "cache": null,
  "cache/CACHEDIR.TAG": `${SIGNATURE}\n# made by a test\n`,
  "cache/content": "1",
  "cache/sub": null,
  "cache/sub/content": "1",
  "almost": null,
  "almost/CACHEDIR.TAG": SIGNATURE.slice(0, -1),
  "almost/content": "1",
  "folder": null,
  "folder/CACHEDIR.TAG": null,
  "folder/content": "1",
  "CACHEDIR.TAG": SIGNATURE,
  "content": "1",
};

function makeTagged(root: string): void {
  for (const [path, text] of Object.entries(TREE)) {
    if (text === null) Deno.mkdirSync(`${root}/${path}`);
    else Deno.writeTextFileSync(`${root}/${path}`, text);
  }
}

function scannedPaths(root: string, excludeCaches: boolean): string[] {
  return [...scanTree(filesRoot(root, { excludeCaches }))].map(({ entry }) => byteText(entry.path));
}

Deno.test("scan keeps a tagged folder and its tag, not what is in it, where exclude_caches is set", async () => {
  await using folder = scratchFolder("cache-tag-");
  makeTagged(folder.path);
  const left = ["cache/content", "cache/sub", "cache/sub/content"];
  assert.deepEqual(
    scannedPaths(folder.path, true).sort(),
    ["", ...Object.keys(TREE)].filter((path) => !left.includes(path)).sort(),
    "the root itself is never taken for a cache",
  );
  assert.deepEqual(scannedPaths(folder.path, false).sort(), ["", ...Object.keys(TREE)].sort());
});

Deno.test("what is in a tagged folder is among what a restore keeps", async () => {
  await using folder = scratchFolder("cache-tag-");
  makeTagged(folder.path);
  const kept = await excludedIn(filesRoot(folder.path, { excludeCaches: true }));
  assert.deepEqual(kept.sort(), ["cache/content", "cache/sub"]);
  assert.deepEqual(await excludedIn(filesRoot(folder.path)), []);
});
