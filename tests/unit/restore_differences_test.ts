import assert from "node:assert/strict";
import { differencesOf } from "../../src/checkpoint/differences.ts";
import type { TreeEntry } from "../../src/checkpoint/types.ts";
import { pathBytes } from "../../src/platform/libc_files.ts";

function entry(path: string, more: Partial<TreeEntry> = {}): TreeEntry {
  const type = path === "" ? "directory" : "file";
  return { path: pathBytes(path), type, mode: 0o644, uid: 1, gid: 1, mtimeNs: 5n, size: 10, ...more };
}

Deno.test("differences name what a restore adds, changes and removes, and sum their sizes", () => {
  const target = pathBytes("to");
  const { paths, pathsTotal, ...sums } = differencesOf(
    [
      entry("", { mtimeNs: 1n }),
      entry("added"),
      entry("content", { size: 7 }),
      entry("link", { type: "symlink", target, mtimeNs: 9n }),
      entry("mode", { mode: 0o600 }),
      entry("same"),
      entry("z-last", { size: 3 }),
    ],
    [
      entry(""),
      entry("a-gone", { size: 100 }),
      entry("content"),
      entry("link", { type: "symlink", target }),
      entry("mode"),
      entry("same"),
    ],
    { paths: 3 },
  );
  assert.deepEqual(
    paths.map(({ change, path, bytes }) => [change, path, bytes]),
    [["removed", "a-gone", 100], ["added", "added", 10], ["changed", "content", 7]],
  );
  assert.equal(pathsTotal, 5);
  assert.deepEqual(sums, {
    added: { entries: 2, bytes: 13 },
    changed: { entries: 2, bytes: 17 },
    removed: { entries: 1, bytes: 100 },
    unchanged: { entries: 3, bytes: 30 },
  });
});

Deno.test("differences leave out what is outside of the restore's scope", () => {
  const scope = { paths: 10, isInScope: (path: Uint8Array) => path[0] === 0x61 };
  const { paths } = differencesOf(
    [entry(""), entry("a1")],
    [entry(""), entry("a2"), entry("b")],
    scope,
  );
  assert.deepEqual(paths.map(({ change, path }) => `${change} ${path}`), ["added a1", "removed a2"]);
});
