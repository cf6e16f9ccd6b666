/** What a files root leaves out. */

import assert from "node:assert/strict";
import { excluderOf, isOwnName, relativeTo } from "../../src/checkpoint/exclude.ts";

function matches(
  patterns: string[],
  path: string,
  isDirectory = false,
): boolean {
  return excluderOf({ path: "/data", exclude: patterns, excludePaths: [] })(
    path,
    isDirectory,
  );
}

const CASES: readonly [
  pattern: string,
  path: string,
  isDirectory: boolean,
  excluded: boolean,
][] = [
  ["*.log", "a.log", false, true],
  ["*.log", "deep/er/a.log", false, true],
  ["*.log", "a.log.txt", false, false],
  ["/cache", "cache", true, true],
  ["/cache", "sub/cache", true, false],
  ["cache/", "sub/cache", true, true],
  ["cache/", "sub/cache", false, false],
  ["sub/cache", "sub/cache", true, true],
  ["sub/cache", "other/sub/cache", true, false],
  ["**/tmp", "a/b/tmp", true, true],
  ["**/tmp", "tmp", true, true],
  ["a/**/z", "a/z", false, true],
  ["a/**/z", "a/b/c/z", false, true],
  ["a/**", "a/b", false, true],
  ["a/**", "a", true, false],
  ["?.txt", "ä.txt", false, true],
  ["?.txt", "/.txt", false, false],
  ["[a-c].txt", "b.txt", false, true],
  ["[!a-c].txt", "b.txt", false, false],
  ["[!a-c].txt", "d.txt", false, true],
  ["\\*.txt", "*.txt", false, true],
  ["\\*.txt", "a.txt", false, false],
  ["a.b", "axb", false, false],
  ["a+(b)", "a+(b)", false, true],
  ["# no pattern", "# no pattern", false, false],
  ["", "", false, false],
];

Deno.test("exclude follows gitignore's simple form", () => {
  for (const [pattern, path, isDirectory, excluded] of CASES) {
    assert.equal(
      matches([pattern], path, isDirectory),
      excluded,
      `${pattern} on ${path}`,
    );
  }
});

Deno.test("exclude takes the last pattern that matches", () => {
  assert.equal(matches(["*.log", "!keep.log"], "keep.log"), false);
  assert.equal(matches(["*.log", "!keep.log"], "other.log"), true);
  assert.equal(matches(["!keep.log", "*.log"], "keep.log"), true);
});

Deno.test("exclude leaves out the paths that must stay, with the companions of a replicated database", () => {
  const excluded = excluderOf({
    path: "/data",
    exclude: [],
    excludePaths: ["/data/app.db", "/elsewhere", "/data/.sm"],
  });
  for (
    const path of [
      "app.db",
      "app.db-wal",
      "app.db-shm",
      "app.db-journal",
      ".sm",
    ]
  ) {
    assert.equal(excluded(path, false), true, path);
  }
  for (const path of ["app.dbx", "elsewhere", "sub/app.db", ""]) {
    assert.equal(excluded(path, false), false, path);
  }
});

Deno.test("only names that the program itself makes are its own", () => {
  for (const name of [".sm-restore-1", ".sm-stale", ".sm-swap-x"]) {
    assert.equal(isOwnName(name), true, name);
  }
  for (const name of [".sm", ".smx-restore-", "sm-restore-1", ".sm-other"]) {
    assert.equal(isOwnName(name), false, name);
  }
});

Deno.test("a path is inside a root by whole names only", () => {
  assert.equal(relativeTo("/data", "/data/a"), "a");
  assert.equal(relativeTo("/data/", "/data/a/"), "a");
  assert.equal(relativeTo("/data", "/database"), null);
  assert.equal(relativeTo("/data", "/data"), "");
});
