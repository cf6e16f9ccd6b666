import assert from "node:assert/strict";
import { isBelow, parseInnerPath, selectPaths } from "../../src/checkpoint/path_filter.ts";
import type { ManifestEntry, TreeEntry } from "../../src/checkpoint/types.ts";
import { isError } from "../../src/platform/errors.ts";
import { pathBytes } from "../../src/platform/libc_files.ts";

const chunk = (id: string) => [{ kind: "chunk", id, length: 1 }] as const;

function line(
  path: string,
  type: TreeEntry["type"],
  more: Partial<TreeEntry> = {},
  id?: string,
): ManifestEntry {
  const entry = { path: pathBytes(path), type, mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n, size: 1, ...more };
  return { entry, parts: id === undefined ? [] : chunk(id) };
}

const TREE = [
  line("", "directory"),
  line("a", "directory"),
  line("a/first", "file", { linkGroup: 1 }, "shared"),
  line("a/x", "file", {}, "x"),
  line("ab", "directory"),
  line("ab/y", "file", {}, "y"),
  line("b", "directory"),
  line("b/c", "directory"),
  line("b/c/second", "file", { linkGroup: 1 }),
  line("b/c/third", "file", { linkGroup: 1 }),
  line("b/z", "file", {}, "z"),
];
const select = (...paths: string[]) =>
  [...selectPaths([TREE], paths, "data")].flat().map(({ entry, parts }) =>
    new TextDecoder().decode(entry.path) +
    parts.map((part) => part.kind === "chunk" ? `=${part.id}` : "").join("")
  );

Deno.test("paths select what is at and below them, with the folders that lead there", () => {
  assert.deepEqual(select("a"), ["", "a", "a/first=shared", "a/x=x"]);
  assert.deepEqual(select("b/z"), ["", "b", "b/z=z"]);
  assert.deepEqual(select("a/x", "ab"), ["", "a", "a/x=x", "ab", "ab/y=y"]);
});

Deno.test("of hard links the first that is selected carries the content", () => {
  assert.deepEqual(select("b/c"), ["", "b", "b/c", "b/c/second=shared", "b/c/third"]);
  assert.deepEqual(select("b/c/third"), ["", "b", "b/c", "b/c/third=shared"]);
});

Deno.test("a path that the tree does not have is not found, and one of several is enough to fail", () => {
  for (const paths of [["c"], ["a", "b/c/fourth"], ["a/x/under-a-file"]]) {
    assert.throws(() => select(...paths), (error) => isError(error, "not-found"), paths.join());
  }
});

Deno.test("paths from people are relative, and stay inside of the root", () => {
  assert.equal(parseInnerPath("./a/b/"), "a/b");
  assert.equal(parseInnerPath("ä"), "\u00c3\u00a4", "one character per byte");
  for (const text of ["", ".", "/", "/etc", "..", "a/../b", "a//b", "./", "a/."]) {
    assert.throws(() => parseInnerPath(text), (error) => isError(error, "invalid-request"), text);
  }
  assert.deepEqual([isBelow("a/b", ["a"]), isBelow("ab", ["a"]), isBelow("a", ["a/b"])], [
    true,
    false,
    false,
  ]);
});
