/**
 * A swap killed at each of its system calls, by strace, and rolled forward by the next process, which is killed too.
 * Three roots in one journal: one exchanged as a whole, one moved entry by entry around a folder that must stay, one of
 * which only some paths are replaced.
 */

import assert from "node:assert/strict";
import {
  NEW_FILES,
  OLD_FILES,
  readTree,
  stagedScene,
  type SwapScene,
  writeTree,
} from "../support/swap_scene.ts";
import { hashTree, scratchFolder } from "../support/tree_model.ts";

/** The calls that change names, attributes or durability; each is killed at its first, second … use by a thread. */
const CALLS = [
  "renameat2",
  "mkdirat",
  "unlinkat",
  "utimensat",
  "syncfs",
  "rename",
  "fsync",
];
/** Renames are what a swap is made of: each of them. Of the others, every fourth. */
const STEPS: Readonly<Record<string, number>> = { renameat2: 1 };
const OTHER_STEP = 4;

const child = new URL("../support/swap_child.ts", import.meta.url).pathname;
const config = new URL("../deno.json", import.meta.url).pathname;
const haveStrace = new Deno.Command("sh", {
  args: ["-c", "strace -o /dev/null true"],
  stderr: "null",
})
  .outputSync().success;

const PATHS = ["a/b", "same", "d/e"];
const AFTER_PATHS = { "only-old": "old", "a/x": "old", "same": "new", "a/b/new": "new", "d/e/f": "new" };

const sorted = (files: Record<string, string>) => JSON.stringify(Object.entries(files).sort());

interface Kill {
  readonly call: string;
  readonly at: number;
}

/** True when it ended by itself. */
async function run(
  command: string,
  scenes: readonly SwapScene[],
  kill: Kill | null,
): Promise<boolean> {
  const program = [
    Deno.execPath(),
    "run",
    "-A",
    "-q",
    "--no-check",
    "--config",
    config,
    child,
    command,
  ];
  const inject = kill === null ? [] : ["-e", `inject=${kill.call}:signal=KILL:when=${kill.at}`];
  const trace = [
    "-f",
    "-o",
    "/dev/null",
    "-e",
    `trace=${kill?.call ?? "none"}`,
  ];
  const output = await new Deno.Command("strace", {
    args: [...trace, ...inject, ...program, JSON.stringify(scenes)],
    stderr: "piped",
  }).output();
  if (!output.success && kill === null) {
    throw new Error(new TextDecoder().decode(output.stderr));
  }
  return output.success;
}

async function prepare(folder: string): Promise<SwapScene[]> {
  const scenes: SwapScene[] = [];
  for (const name of ["whole", "parts", "paths"]) {
    const live = `${folder}/${name}/live`;
    writeTree(live, OLD_FILES);
    if (name === "parts") writeTree(`${live}/a/b/store`, { kept: "kept" });
    const keep = name === "parts" ? [`${live}/a/b/store`] : [];
    const scene = await stagedScene(`${folder}/${name}`, { live, keep });
    scenes.push({
      ...scene,
      ...(name === "paths" ? { paths: PATHS } : {}),
      root: { ...scene.root, name },
      journalPath: `${folder}/swap.json`,
    });
  }
  return scenes;
}

async function assertRestored(
  scenes: readonly SwapScene[],
  seed: string,
): Promise<void> {
  for (const { root, wanted, journalPath, paths } of scenes) {
    if (paths !== undefined) {
      assert.equal(sorted(readTree(root.path)), sorted(AFTER_PATHS), `${root.name} ${seed}`);
      continue;
    }
    const ignore = root.name === "parts" ? ["a/b/store"] : [];
    const { lines } = await hashTree(root.path, { ignore });
    // A folder that is merged with a kept one gets its own time only in an uninterrupted run.
    const comparable = (list: readonly string[]) =>
      list.map((line) => /^a(\/b)? d /.test(line) ? line.split(" ").toSpliced(5, 1).join(" ") : line);
    assert.deepEqual(
      comparable(lines),
      comparable(wanted),
      `${root.name} ${seed}`,
    );
    assert.equal(
      Deno.readTextFileSync(`${scenes[1]?.root.path}/a/b/store/kept`),
      "kept",
      seed,
    );
    await assert.rejects(Deno.stat(journalPath), Deno.errors.NotFound);
  }
}

Deno.test(
  "a swap killed at any of its calls is rolled forward to the whole new tree [needs strace]",
  {
    ignore: !haveStrace,
  },
  async () => {
    let killed = 0;
    for (const call of CALLS) {
      for (
        let at = 1;
        await killedAt({ call, at });
        at += STEPS[call] ?? OTHER_STEP
      ) killed++;
    }
    assert.ok(killed >= 25, `only ${killed} kills: strace did not inject`);
  },
);

/** One life: begin, killed; the next boot, killed as well; the one after that. False when the first kill never came. */
async function killedAt(kill: Kill): Promise<boolean> {
  const what = `${kill.call} ${kill.at}`;
  await using folder = scratchFolder("crash-");
  const scenes = await prepare(folder.path);
  if (await run("begin", scenes, kill)) {
    await assertRestored(scenes, what);
    return false;
  }
  if (
    await Deno.stat(`${folder.path}/swap.json`).then(() => false, () => true)
  ) {
    // Before the journal nothing live has changed; or all was over but the last sync.
    const now = sorted(readTree(scenes[0]?.root.path ?? ""));
    assert.ok(
      [OLD_FILES, NEW_FILES].some((files) => sorted(files) === now),
      `${what}: ${now}`,
    );
    return true;
  }
  await run("roll", scenes, { call: "renameat2", at: 1 + (kill.at * 3) % 8 });
  await run("roll", scenes, null);
  await assertRestored(scenes, what);
  return true;
}
