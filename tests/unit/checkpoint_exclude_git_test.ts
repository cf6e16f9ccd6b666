/** What `exclude` means is what git says: random patterns over one tree, both asked. */

import assert from "node:assert/strict";
import { excluderOf } from "../../src/checkpoint/exclude.ts";
import { findTool } from "../support/find_tool.ts";
import { scratchFolder, seededRandom } from "../support/tree_model.ts";

const git = findTool("git");
const ROUNDS = 250;
const SEED = 20_261_125;

const FOLDERS = ["a", "b", "ab", "a/a", "a/b", "b/a", "a/b/c", "a/b/ab", "[a", "B"];
const FILES = [
  "a",
  "b",
  "ab",
  "abc",
  "c",
  "A",
  "a*",
  "-",
  "]",
  "[b]",
  "#a",
  "!b",
  "a ",
  "\\",
  "a.b",
  "a/",
  "1",
  "a-b",
];
const TOKENS = [
  ..."aabbc/*?/*".split(""),
  "ab",
  "**",
  "**/",
  "/**",
  "***",
  "[ab]",
  "[!a]",
  "[^b]",
  "[a-c]",
  "[]a]",
  "[!]a]",
  "[a-]",
  "[\\]a]",
  "[b/a]",
  "[[:alpha:]]",
  "[[:upper:]b]",
  "[[:x:]]",
  "[:a]",
  "[",
  "]",
  "\\",
  "\\*",
  "\\a",
  "\\/",
  "\\ ",
  " ",
  "-",
  ".",
  "!",
  "#",
];
/** Whole ones, since chance does not make them often enough. */
const PATTERNS = [
  "a\\ ",
  "a ",
  "*\\ ",
  "\\#a",
  "\\!b",
  "/a/**",
  "**/b",
  "a/**/ab",
  "a/*",
  "/**",
  "[[:alpha:]]b",
  "[[:digit:]]",
];

interface Entry {
  readonly path: string;
  readonly isFolder: boolean;
}

function makeEntries(root: string): Entry[] {
  const folders = FOLDERS.map((path) => ({ path, isFolder: true }));
  const files = ["", ...FOLDERS.map((path) => path + "/")].flatMap((folder) =>
    FILES.filter((name) => !name.endsWith("/")).map((name) => ({ path: folder + name, isFolder: false }))
  ).filter(({ path }) => !FOLDERS.includes(path));
  for (const { path } of folders) Deno.mkdirSync(`${root}/${path}`, { recursive: true });
  for (const { path } of files) Deno.writeTextFileSync(`${root}/${path}`, "");
  return [...folders, ...files];
}

async function runGit(root: string, args: readonly string[], input = ""): Promise<string> {
  const child = new Deno.Command(git ?? "git", {
    args: ["-c", "core.excludesFile=/dev/null", ...args],
    cwd: root,
    env: { GIT_CONFIG_NOSYSTEM: "1", HOME: root },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  assert.ok(code <= 1, new TextDecoder().decode(stderr)); // 1: nothing is ignored
  return new TextDecoder().decode(stdout);
}

/**
 * Git compares the letters at the beginning by themselves and then takes `**` for the beginning of a name, so that `a**\/b`
 * means `a` and `ab` too, which gitignore(5) denies. Ours follows the manual.
 */
const GIT_DIFFERS = /^!?[^*?[\\]*[^/*?[\\]\*\*/;

function randomPattern(random: () => number): string {
  if (random() < 0.2) return PATTERNS[Math.floor(random() * PATTERNS.length)] ?? "a";
  const length = 1 + Math.floor(random() * 5);
  const pick = () => TOKENS[Math.floor(random() * TOKENS.length)] ?? "a";
  const body = Array.from({ length }, pick).join("");
  const pattern = (random() < 0.2 ? "!" : "") + body + (random() < 0.15 ? "/" : "");
  return GIT_DIFFERS.test(pattern) ? randomPattern(random) : pattern;
}

Deno.test({
  name: "exclude leaves out what git ignores, whatever the patterns are [needs git]",
  ignore: git === null,
  async fn() {
    await using folder = scratchFolder("exclude-");
    const root = folder.path;
    const entries = makeEntries(root);
    await runGit(root, ["init", "-q"]);
    const random = seededRandom(SEED);
    const input = entries.map(({ path }) => path).join("\0");
    let ignored = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const patterns = Array.from({ length: 1 + Math.floor(random() * 4) }, () => randomPattern(random));
      Deno.writeTextFileSync(`${root}/.git/info/exclude`, patterns.join("\n") + "\n");
      const told = await runGit(root, ["check-ignore", "--no-index", "--stdin", "-z"], input);
      const excluded = excluderOf({ path: root, exclude: patterns, excludePaths: [] });
      const ours = entries.filter(({ path, isFolder }) => {
        const names = path.split("/");
        return names.some((_, i) =>
          excluded(names.slice(0, i + 1).join("/"), isFolder || i < names.length - 1)
        );
      }).map(({ path }) => path);
      const theirs = told.split("\0").filter((path) => path !== "");
      ignored += theirs.length;
      assert.deepEqual(
        ours.sort(),
        theirs.sort(),
        `round ${round}, seed ${SEED}: ${JSON.stringify(patterns)}`,
      );
    }
    assert.ok(ignored > 1000, `${ignored} ignored in all: the patterns match something`);
  },
});

Deno.test("exclude takes no longer for a pattern of many stars", () => {
  const excluded = excluderOf({ path: "/data", exclude: ["*a".repeat(100) + "b"], excludePaths: [] });
  assert.equal(excluded("a".repeat(255), false), false); // by tries one after the other this would never end
});
