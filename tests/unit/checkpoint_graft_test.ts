/** The tree of a restore of single paths, in manifests. What a swap makes of a live folder is compared in the model test. */

import assert from "node:assert/strict";
import { graftPaths } from "../../src/checkpoint/graft.ts";
import { ManifestCheck } from "../../src/checkpoint/manifest_check.ts";
import type { ManifestEntry, TreeEntry } from "../../src/checkpoint/types.ts";
import { isError } from "../../src/platform/errors.ts";
import type { BatchedTree } from "../../src/checkpoint/wanted_tree.ts";
import { pathBytes } from "../../src/platform/libc_files.ts";

function tree(...lines: readonly (readonly [string, string, Partial<TreeEntry>?])[]): ManifestEntry[] {
  return lines.map(([path, content, more = {}]) => {
    const type = content === "/" ? "directory" : "file";
    const hasParts = type === "file" && content !== "";
    const entry = { path: pathBytes(path), type, mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n, size: 0 } as const;
    const sized = { ...entry, size: type === "file" ? 1 : 0, ...more };
    return { entry: sized, parts: hasParts ? [{ kind: "chunk", id: content, length: 1 }] : [] };
  });
}

function inPairs(entries: readonly ManifestEntry[]): BatchedTree {
  return {
    *batches() {
      for (let at = 0; at < entries.length; at += 2) yield entries.slice(at, at + 2);
    },
  };
}

function graft(current: readonly ManifestEntry[], source: readonly ManifestEntry[], ...paths: string[]) {
  const grafted = [...graftPaths(inPairs(current), inPairs(source), paths, "data")];
  new ManifestCheck("data").check(grafted);
  return grafted.map(({ entry, parts }) => {
    const path = new TextDecoder().decode(entry.path);
    const [part] = parts;
    const content = part?.kind === "chunk" ? part.id : entry.type === "directory" ? "/" : "-";
    return `${path}=${content}${entry.linkGroup === undefined ? "" : ` group ${entry.linkGroup}`}`;
  });
}

const NOW = tree(["", "/"], ["a", "/"], ["a/x", "now"], ["a/y", "now"], ["b", "now"], ["c", "/"], [
  "c/new",
  "now",
]);
const THEN = tree(["", "/"], ["a", "/"], ["a/x", "then"], ["b", "then"], ["d", "/"], ["d/e", "/"], [
  "d/e/f",
  "then",
]);

Deno.test("paths come from the older tree, with all below them, and all else stays", () => {
  assert.deepEqual(graft(NOW, THEN, "a"), ["=/", "a=/", "a/x=then", "b=now", "c=/", "c/new=now"]);
  assert.deepEqual(graft(NOW, THEN, "a/x", "b"), [
    ...["=/", "a=/", "a/x=then", "a/y=now", "b=then", "c=/", "c/new=now"],
  ]);
  assert.deepEqual(graft(NOW, THEN, "d/e/f"), [
    ...["=/", "a=/", "a/x=now", "a/y=now", "b=now", "c=/", "c/new=now", "d=/", "d/e=/", "d/e/f=then"],
  ]);
});

Deno.test("a path that the older tree does not have is not found, and something in the way of a folder is refused", () => {
  assert.throws(() => graft(NOW, THEN, "c"), (error) => isError(error, "not-found"));
  const inTheWay = tree(["", "/"], ["d", "now"]);
  assert.throws(() => graft(inTheWay, THEN, "d/e/f"), (error) => isError(error, "invalid-request"));
  assert.deepEqual(graft(inTheWay, THEN, "d"), ["=/", "d=/", "d/e=/", "d/e/f=then"]);
});

Deno.test("of hard links that are torn apart each side keeps its content", () => {
  const now = tree(
    ["", "/"],
    ["a", "now", { linkGroup: 1 }],
    ["b", "", { linkGroup: 1 }],
    ["c", "", { linkGroup: 1 }],
    ["outside", "lone", { linkGroup: 2 }],
  );
  const then = tree(
    ["", "/"],
    ["a", "then", { linkGroup: 1 }],
    ["c", "", { linkGroup: 1 }],
    ["e", "", { linkGroup: 1 }],
  );
  assert.deepEqual(graft(now, then, "a"), [
    ...["=/", "a=then", "b=now group 1", "c=- group 1", "outside=lone group 2"],
  ]);
  assert.deepEqual(graft(now, then, "c", "e"), [
    ...["=/", "a=now group 1", "b=- group 1", "c=then group 4", "e=- group 4", "outside=lone group 2"],
  ]);
  assert.deepEqual(graft(now, then, "a", "c"), [
    ...["=/", "a=then group 4", "b=now", "c=- group 4", "outside=lone group 2"],
  ]);
  // The number of a group that is gone means nothing for the older tree's.
  const lone = tree(["", "/"], ["a", "now", { linkGroup: 3 }], ["b", "now", { linkGroup: 1 }]);
  assert.deepEqual(graft(lone, then, "a"), ["=/", "a=then", "b=now group 1"]);
});

Deno.test("a database that comes back takes the place of its log, too", () => {
  const logs = tree(["", "/"], ["x", "now"], ["x-journal", "now"], ["x-wal", "now"], ["x-walk", "now"]);
  const database = tree(["", "/"], ["x", "then", { sqlite: true }]);
  assert.deepEqual(graft(logs, database, "x"), ["=/", "x=then", "x-walk=now"]);
  const plain = tree(["", "/"], ["x", "then"]);
  assert.deepEqual(graft(logs, plain, "x"), ["=/", "x=then", "x-journal=now", "x-wal=now", "x-walk=now"]);
});
