/** Making a staged tree live, and moving local data aside. */

import assert from "node:assert/strict";
import { moveEntries } from "../../src/checkpoint/move_entries.ts";
import { disposeHolder, findLeftovers, isEmptyRoot } from "../../src/checkpoint/dispose.ts";
import { finishSwaps, moveAside, rollSwaps, swapIn } from "../../src/checkpoint/swap.ts";
import { checkLiveRoot, excludedIn, findSwapPlace } from "../../src/checkpoint/swap_place.ts";
import { type ErrorCode, isError } from "../../src/platform/errors.ts";
import { pathBytes } from "../../src/platform/libc_files.ts";
import { canMount, canMountOverlay, overlayLayers, tool } from "../support/mounts.ts";
import {
  NEW_FILES,
  OLD_FILES,
  readTree,
  RESTORE_ID,
  stagedScene,
  type SwapScene,
  writeTree,
} from "../support/swap_scene.ts";
import { filesRoot } from "../support/tree_capture.ts";
import { hashTree, scratchFolder } from "../support/tree_model.ts";

function swap({ root, place, journalPath }: SwapScene) {
  return swapIn({ journalPath, id: RESTORE_ID, roots: [{ root, place }] });
}

const hasCode = (code: ErrorCode) => (error: unknown) => isError(error, code);

Deno.test("swap of a plain folder exchanges it as a whole and keeps the old tree until it is finished", async () => {
  await using folder = scratchFolder("swap-");
  writeTree(`${folder.path}/live`, OLD_FILES);
  const scene = await stagedScene(folder.path);
  assert.equal(scene.place.mode, "exchange");
  assert.deepEqual((await swap(scene)).warnings, []);
  assert.deepEqual((await hashTree(scene.root.path)).lines, scene.wanted);
  assert.deepEqual(readTree(scene.place.old), OLD_FILES);
  await finishSwaps(scene.journalPath, { keepOld: false });
  assert.deepEqual((await hashTree(scene.root.path)).lines, scene.wanted);
  assert.deepEqual(
    [...Deno.readDirSync(folder.path)].map(({ name }) => name).sort(),
    ["live", "source"],
  );
});

Deno.test("swap makes a live folder, and its parents, where there is none", async () => {
  await using folder = scratchFolder("swap-");
  const scene = await stagedScene(folder.path, {
    live: `${folder.path}/srv/data/live`,
  });
  await swap(scene);
  await finishSwaps(scene.journalPath, { keepOld: false });
  assert.deepEqual((await hashTree(scene.root.path)).lines, scene.wanted);
});

Deno.test("swap follows a live root that is a symlink and keeps the link", async () => {
  await using folder = scratchFolder("swap-");
  writeTree(`${folder.path}/volume/data`, OLD_FILES);
  Deno.symlinkSync("volume/data", `${folder.path}/live`);
  const scene = await stagedScene(folder.path);
  await swap(scene);
  await finishSwaps(scene.journalPath, { keepOld: false });
  assert.equal(Deno.lstatSync(`${folder.path}/live`).isSymlink, true);
  assert.deepEqual(
    (await hashTree(`${folder.path}/volume/data`)).lines,
    scene.wanted,
  );
});

Deno.test("swap brings back what the patterns leave out, and the data moved aside earlier", async () => {
  await using folder = scratchFolder("swap-");
  const live = `${folder.path}/live`;
  writeTree(live, {
    ...OLD_FILES,
    "cache/big": "cached",
    "a/run.log": "log",
    "gone/deep/run.log": "log",
    "gone/deep/x": "old",
  });
  Deno.chmodSync(`${live}/gone/deep`, 0o750);
  Deno.utimeSync(`${live}/gone/deep`, 2000, 2000);
  writeTree(live, { ".sm-stale/then/f": "stale" });
  const scene = await stagedScene(folder.path, {
    exclude: ["/cache", "*.log"],
  });
  await swap(scene);
  assert.deepEqual(readTree(live), {
    ...NEW_FILES,
    "cache/big": "cached",
    "a/run.log": "log",
    // With its folders, which are not in the restored tree: what is left out of checkpoints is never deleted.
    "gone/deep/run.log": "log",
  });
  assert.equal(Deno.readTextFileSync(`${live}/.sm-stale/then/f`), "stale");
  const { mode, mtime } = Deno.statSync(`${live}/gone/deep`);
  assert.deepEqual([(mode ?? 0) & 0o777, mtime?.getTime()], [0o750, 2_000_000]);
  await finishSwaps(scene.journalPath, { keepOld: false });
  assert.equal(Deno.readTextFileSync(`${live}/gone/deep/run.log`), "log");
});

function swapPaths({ root, place, journalPath }: SwapScene, ...paths: string[]) {
  return swapIn({ journalPath, id: RESTORE_ID, roots: [{ root, place, paths }] });
}

Deno.test("swap of single paths replaces these and touches nothing beside them", async () => {
  await using folder = scratchFolder("swap-");
  const live = `${folder.path}/live`;
  writeTree(live, { ...OLD_FILES, "a/b/run.log": "log", "a/b/store/kept": "kept" });
  for (const path of ["a", ""]) Deno.utimeSync(`${live}/${path}`, 5000, 5000);
  Deno.chmodSync(live, 0o700);
  const beside = ["", "a", "a/x", "only-old", "a/b/store"];
  const seen = () =>
    beside.map((path) => {
      const { ino, mode, mtime } = Deno.lstatSync(`${live}/${path}`);
      return [path, ino, mode, mtime?.getTime()];
    });
  const before = seen();
  const scene = await stagedScene(folder.path, { exclude: ["*.log"], keep: [`${live}/a/b/store`] });
  assert.deepEqual((await swapPaths(scene, "a/b", "same", "d/e")).warnings, []);
  assert.deepEqual(seen(), before);
  const wanted = {
    "only-old": "old",
    "a/x": "old",
    "same": "new",
    "a/b/new": "new",
    "a/b/run.log": "log",
    "a/b/store/kept": "kept",
    "d/e/f": "new",
  };
  assert.deepEqual(readTree(live), wanted);
  await finishSwaps(scene.journalPath, { keepOld: false });
  assert.deepEqual(readTree(live), wanted);
  assert.deepEqual(seen(), before);
  assert.deepEqual(await findLeftovers(live), []);
});

Deno.test("swap of a path takes a database's old log away with the database, and no other's", async () => {
  await using folder = scratchFolder("swap-");
  const live = `${folder.path}/live`;
  const database = "SQLite format 3\0 and more";
  const logs = {
    "only-new-wal": "old",
    "only-new-shm": "old",
    "only-new-journal": "old",
    "same-wal": "other",
  };
  writeTree(live, { ...OLD_FILES, ...logs, "only-new": "old" });
  const scene = await stagedScene(folder.path);
  writeTree(scene.place.stage, { "only-new": database });
  await swapPaths(scene, "only-new", "same");
  await finishSwaps(scene.journalPath, { keepOld: false });
  assert.deepEqual(readTree(live), {
    ...OLD_FILES,
    "same": "new",
    "same-wal": "other",
    "only-new": database,
  });
});

Deno.test("swap of a path makes the folders that lead there as they were", async () => {
  await using folder = scratchFolder("swap-");
  const live = `${folder.path}/live`;
  writeTree(live, { "other": "1" });
  const scene = await stagedScene(folder.path);
  Deno.chmodSync(`${scene.place.stage}/d/e`, 0o751);
  await swapPaths(scene, "d/e/f");
  await finishSwaps(scene.journalPath, { keepOld: false });
  assert.deepEqual(readTree(live), { "other": "1", "d/e/f": "new" });
  assert.equal((Deno.statSync(`${live}/d/e`).mode ?? 0) & 0o777, 0o751);
});

Deno.test("swap never moves the data folder inside a live root", async () => {
  await using folder = scratchFolder("swap-");
  const live = `${folder.path}/live`;
  const dataDir = `${live}/a/b/data-dir`;
  writeTree(live, OLD_FILES);
  writeTree(dataDir, { "marker": "kept", "deep/er": "kept" });
  const inode = Deno.statSync(dataDir).ino;
  const scene = await stagedScene(folder.path, { keep: [dataDir] });
  assert.equal(scene.place.mode, "entries");
  assert.deepEqual((await swap(scene)).warnings, []);
  const kept = {
    "a/b/data-dir/marker": "kept",
    "a/b/data-dir/deep/er": "kept",
  };
  assert.deepEqual(readTree(live), { ...NEW_FILES, ...kept });
  assert.deepEqual(readTree(scene.place.old), OLD_FILES);
  assert.equal(Deno.statSync(dataDir).ino, inode);
  await finishSwaps(scene.journalPath, { keepOld: false });
  const lines = (await hashTree(live, { ignore: ["a/b/data-dir"] })).lines;
  assert.deepEqual(lines, scene.wanted);
});

Deno.test("swap warns where a kept folder is in the way of a restored file", async () => {
  await using folder = scratchFolder("swap-");
  const live = `${folder.path}/live`;
  writeTree(live, { "only-new/store/x": "kept" });
  const scene = await stagedScene(folder.path, {
    keep: [`${live}/only-new/store`],
  });
  const { warnings } = await swap(scene);
  assert.deepEqual(warnings.map((warning) => warning.path), ["only-new"]);
  assert.equal(readTree(live)["only-new/store/x"], "kept");
});

Deno.test(
  "swap into a mounted volume moves entry by entry, and leaves other mounts inside alone [needs mount]",
  { ignore: !canMount },
  async () => {
    await using folder = scratchFolder("swap-");
    const live = `${folder.path}/live`;
    Deno.mkdirSync(live);
    assert.ok(tool("mount", "-t", "tmpfs", "none", live));
    try {
      writeTree(live, OLD_FILES);
      Deno.mkdirSync(`${live}/lost+found`);
      Deno.mkdirSync(`${live}/a/nested`);
      tool("mount", "-t", "tmpfs", "none", `${live}/a/nested`);
      writeTree(`${live}/a/nested`, { "precious": "other volume" });
      const scene = await stagedScene(folder.path);
      assert.equal(scene.place.mode, "entries");
      await swap(scene);
      await finishSwaps(scene.journalPath, { keepOld: false });
      assert.equal(
        Deno.readTextFileSync(`${live}/a/nested/precious`),
        "other volume",
      );
      const lines = (await hashTree(live, { ignore: ["lost+found", "a/nested"] })).lines;
      assert.deepEqual(lines, scene.wanted);
      assert.deepEqual(await findLeftovers(live), []);
    } finally {
      tool("umount", `${live}/a/nested`);
      tool("umount", live);
    }
  },
);

Deno.test(
  "swap works where the live folder belongs to an image layer of an overlay [needs mount]",
  { ignore: !canMountOverlay },
  async () => {
    await using folder = scratchFolder("swap-");
    for (const name of ["lower/data", "upper", "work", "merged"]) {
      Deno.mkdirSync(`${folder.path}/${name}`, { recursive: true });
    }
    writeTree(`${folder.path}/lower/data`, OLD_FILES);
    const layers = overlayLayers(folder.path);
    assert.ok(tool("mount", "-t", "overlay", "-o", layers, "none", `${folder.path}/merged`));
    try {
      const live = `${folder.path}/merged/data`;
      const scene = await stagedScene(folder.path, { live });
      const { journal } = await swap(scene);
      assert.deepEqual([scene.place.mode, journal.roots[0]?.mode], [
        "exchange",
        "entries",
      ]);
      assert.deepEqual(readTree(scene.place.old), OLD_FILES);
      assert.deepEqual((await hashTree(live)).lines, scene.wanted);
      await finishSwaps(scene.journalPath, { keepOld: false });
      assert.deepEqual((await hashTree(live)).lines, scene.wanted);
    } finally {
      tool("umount", `${folder.path}/merged`);
    }
  },
);

Deno.test("swap refuses a second restore while one is unfinished, and a journal it cannot read", async () => {
  await using folder = scratchFolder("swap-");
  writeTree(`${folder.path}/live`, OLD_FILES);
  const scene = await stagedScene(folder.path);
  await swap(scene);
  await assert.rejects(swap(scene), hasCode("busy"));
  Deno.writeTextFileSync(scene.journalPath, '{"format":2}');
  await assert.rejects(rollSwaps(scene.journalPath), hasCode("data-damaged"));
});

Deno.test("rolling does nothing where there is no journal", async () => {
  await using folder = scratchFolder("swap-");
  assert.equal(await rollSwaps(`${folder.path}/swap.json`), null);
  await finishSwaps(`${folder.path}/swap.json`, { keepOld: false });
});

Deno.test("a root that must never be replaced is refused", async () => {
  for (const live of ["/", "", "relative", "/a/../etc", "/./a", "//"]) {
    assert.throws(() => checkLiveRoot(live), hasCode("invalid-request"), live);
  }
  assert.throws(
    () => checkLiveRoot("/data", ["/data"]),
    hasCode("invalid-request"),
  );
  assert.throws(
    () => checkLiveRoot("/data", ["/data/"]),
    hasCode("invalid-request"),
  );
  checkLiveRoot("/data", ["/data/sub", "/other"]);
  await assert.rejects(
    findSwapPlace(filesRoot("/"), "1"),
    hasCode("invalid-request"),
  );
});

Deno.test("an empty root is one that holds nothing of anybody's", async () => {
  await using folder = scratchFolder("swap-");
  const live = `${folder.path}/live`;
  assert.equal(isEmptyRoot(filesRoot(live)), true);
  writeTree(live, { ".sm-stale/x": "1", "lost+found/x": "1" });
  assert.equal(isEmptyRoot(filesRoot(live)), true);
  writeTree(live, { ".hidden": "1" });
  assert.equal(isEmptyRoot(filesRoot(live)), false);
  assert.equal(isEmptyRoot(filesRoot(`${live}/.hidden`)), false);
});

Deno.test("an empty root is one that holds nothing but a replicated database", async () => {
  await using folder = scratchFolder("swap-");
  const live = `${folder.path}/live`;
  writeTree(live, { "db/app.db": "1", "db/app.db-wal": "1" });
  const byPath = { ...filesRoot(live), excludePaths: [`${live}/db/app.db`, "/elsewhere"] };
  const byPattern = { ...filesRoot(live), exclude: ["/db/*.db", "/db/*.db-wal"] };
  assert.equal(isEmptyRoot(filesRoot(live)), false);
  assert.equal(isEmptyRoot(byPath), true);
  assert.equal(isEmptyRoot(byPattern), true);
  writeTree(live, { "db/other": "1" });
  assert.equal(isEmptyRoot(byPath), false);
  assert.equal(isEmptyRoot(byPattern), false);
});

Deno.test("a root with an empty folder in it is not empty", async () => {
  await using folder = scratchFolder("swap-");
  Deno.mkdirSync(`${folder.path}/live/sub`, { recursive: true });
  const root = filesRoot(`${folder.path}/live`);
  assert.equal(isEmptyRoot(root), false);
  assert.equal(
    isEmptyRoot({ ...root, excludePaths: [`${root.path}/sub/app.db`] }),
    true,
    "it waits for its database",
  );
  assert.equal(isEmptyRoot({ ...root, exclude: ["/sub/*.db"] }), true, "or for those of a pattern");
});

Deno.test("leftovers are found beside and inside their root only, and nothing else is ever deleted", async () => {
  await using folder = scratchFolder("swap-");
  const live = `${folder.path}/live`;
  writeTree(live, { ".sm-restore-1/new/f": "1", "keep": "1" });
  writeTree(folder.path, {
    ".sm-restore-2-live/new/f": "1",
    ".sm-restore-3-other/new/f": "1",
  });
  Deno.symlinkSync(live, `${folder.path}/.sm-restore-2-live/link`);
  Deno.chmodSync(`${folder.path}/.sm-restore-2-live/new`, 0o500);
  const found = await findLeftovers(live);
  assert.deepEqual(
    found.sort(),
    [`${folder.path}/.sm-restore-2-live`, `${live}/.sm-restore-1`].sort(),
  );
  for (const holder of found) await disposeHolder(holder);
  assert.deepEqual(await findLeftovers(live), []);
  assert.deepEqual(readTree(live), { keep: "1" });
  await assert.rejects(disposeHolder(live), hasCode("internal"));
  assert.equal(
    Deno.statSync(`${folder.path}/.sm-restore-3-other`).isDirectory,
    true,
  );
});

Deno.test("moving aside renames the whole folder where that works", async () => {
  await using folder = scratchFolder("swap-");
  const live = `${folder.path}/live`;
  writeTree(live, OLD_FILES);
  const aside = `${folder.path}/aside`;
  assert.equal(await moveAside({ live, aside, time: "then", keep: [] }), aside);
  assert.deepEqual(readTree(aside), OLD_FILES);
  assert.equal(isEmptyRoot(filesRoot(live)), true);
});

Deno.test("moving aside keeps to the same filesystem, and leaves the data folder and a stage in place", async () => {
  await using folder = scratchFolder("swap-");
  const live = `${folder.path}/live`;
  writeTree(live, OLD_FILES);
  writeTree(live, { "state/marker": "kept", ".sm-restore-9/new/f": "staged" });
  const bag = {
    live,
    aside: `${live}/state/stale`,
    time: "then",
    keep: [`${live}/state`],
  };
  assert.equal(await moveAside(bag), `${live}/.sm-stale/then`);
  assert.deepEqual(readTree(`${live}/.sm-stale/then`), OLD_FILES);
  assert.deepEqual(readTree(live), { "state/marker": "kept" });
  assert.equal(Deno.readTextFileSync(`${live}/.sm-restore-9/new/f`), "staged");
  const other = Deno.makeTempDirSync({ dir: "/dev/shm" });
  try {
    writeTree(`${folder.path}/plain`, OLD_FILES);
    const away = {
      live: `${folder.path}/plain`,
      aside: `${other}/aside`,
      time: "then",
      keep: [],
    };
    assert.equal(await moveAside(away), `${folder.path}/plain/.sm-stale/then`);
  } finally {
    Deno.removeSync(other, { recursive: true });
  }
});

Deno.test("moving, looking through and deleting a wide root gives the event loop its turns", async () => {
  await using folder = scratchFolder("swap-");
  const [from, to] = [`${folder.path}/from`, `${folder.path}/.sm-restore-wide`];
  for (const path of [from, to]) Deno.mkdirSync(path);
  for (let i = 0; i < 10_000; i++) Deno.writeTextFileSync(`${from}/${i}`, "");
  const work: Readonly<Record<string, () => Promise<unknown>>> = {
    "look through": () => excludedIn(filesRoot(from, { exclude: ["*.tmp"] })),
    "move": () => moveEntries(pathBytes(from), pathBytes(to), { keep: new Set(), displacedTo: null }),
    "delete": () => disposeHolder(to),
  };
  for (const [what, run] of Object.entries(work)) {
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    await run();
    clearInterval(timer);
    assert.ok(turns > 0, `${what}: other work had its turn`);
  }
  assert.deepEqual([...Deno.readDirSync(folder.path)].map(({ name }) => name), ["from"]);
});
