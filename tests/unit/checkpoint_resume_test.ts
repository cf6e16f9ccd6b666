/** Going on with what a stopped or crashed restore has staged: verified content counts, nothing else. */

import assert from "node:assert/strict";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { findLeftovers } from "../../src/checkpoint/dispose.ts";
import { FormerStage } from "../../src/checkpoint/former_stage.ts";
import { TreeStager } from "../../src/checkpoint/stage.ts";
import { findSwapPlace } from "../../src/checkpoint/swap_place.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { type CapturedTree, captureTree, deliver, filesRoot } from "../support/tree_capture.ts";
import { hashTree, makeTree, scratchFolder, seededRandom } from "../support/tree_model.ts";

/** Asked once, before any test: it loads libc, which older runtimes count as a leak of the test that does it. */
const asRoot = isRoot();

const bytesIn = (tree: CapturedTree, ids: Iterable<string>) =>
  [...ids].reduce((sum, id) => sum + (tree.chunks.get(id)?.length ?? 0), 0);

function deliverAll(stager: TreeStager, tree: CapturedTree, ids: readonly string[]): void {
  for (const id of ids) {
    const bytes = tree.chunks.get(id);
    assert.ok(bytes !== undefined);
    deliver(stager, id, bytes);
  }
}

/** Stages a part of the tree and stops, as a kill would. */
function stagePart(tree: CapturedTree, target: string, share: number, seed: number): void {
  const random = seededRandom(seed);
  using stager = new TreeStager({ root: "data", target });
  const wanted = stager.begin(tree.entries);
  deliverAll(stager, tree, [...wanted.keys()].filter(() => random() < share));
}

/** Builds the whole tree with what `formers` hold; returns the ids that had to come all the same, and bytes reused. */
async function stageRest(tree: CapturedTree, target: string, formers: readonly string[]) {
  using stager = new TreeStager({ root: "data", target });
  const wanted = stager.begin(tree.entries);
  let reused = 0;
  for (const path of formers) {
    using former = FormerStage.open(path, plainCipher);
    assert.ok(former !== null);
    for (const bytes of stager.resume(former)) reused += bytes;
  }
  const ids = [...wanted.keys()];
  deliverAll(stager, tree, ids);
  assert.deepEqual(await stager.finish(), []);
  return { ids, reused };
}

async function regularFiles(folder: string): Promise<string[]> {
  const find = new Deno.Command("find", { args: [folder, "-type", "f", "-size", "+0", "-print0"] });
  const { stdout } = await find.output();
  // Names that are no text cannot be opened by name here: the others are enough to damage.
  return new TextDecoder().decode(stdout).split("\0").filter((path) =>
    path !== "" && !path.includes("\ufffd")
  );
}

/** What crashes and power cuts do to files that were not synced, and what nobody should do. */
async function damage(folder: string, seed: number): Promise<number> {
  const random = seededRandom(seed);
  let count = 0;
  for (const path of await regularFiles(folder)) {
    const kind = random();
    if (kind > 0.3) continue;
    count++;
    const size = Deno.statSync(path).size;
    Deno.chmodSync(path, 0o600);
    if (kind < 0.05) Deno.truncateSync(path, Math.floor(size / 2));
    else if (kind < 0.1) Deno.truncateSync(path, size + 1);
    else if (kind < 0.2) {
      const file = Deno.openSync(path, { read: true, write: true });
      file.seekSync(Math.floor(random() * size), Deno.SeekMode.Start);
      file.writeSync(Uint8Array.of(0xa5, 0x5a));
      file.close();
      Deno.truncateSync(path, size);
    } else if (kind < 0.25) {
      Deno.writeFileSync(path, new Uint8Array(size));
    } else {
      Deno.removeSync(path);
      // A link is as long as its target.
      if (random() < 0.7) Deno.symlinkSync("/etc/passwd".padEnd(Math.min(size, 4000), "x"), path);
      else Deno.mkdirSync(path);
    }
  }
  return count;
}

Deno.test("a stage that goes on with damaged former ones is the tree, and fetches less", async () => {
  for (const seed of [1, 2, 3, 4]) {
    await using folder = scratchFolder("resume-");
    const live = `${folder.path}/live`;
    Deno.mkdirSync(live);
    makeTree(live, { seed, files: 300, asRoot });
    const big = new Uint8Array(1_500_000).map((_, at) => (at * 7919 + seed) % 251);
    Deno.writeFileSync(`${live}/big`, big);
    const tree = captureTree(filesRoot(live));
    const all = bytesIn(tree, tree.chunks.keys());
    const [first, second, third] = ["former-1", "former-2", "new"].map((name) => `${folder.path}/${name}`);
    assert.ok(first !== undefined && second !== undefined && third !== undefined);
    stagePart(tree, first, 0.6, seed);
    // A second start that was stopped while it took over what the first one had left.
    {
      using stager = new TreeStager({ root: "data", target: second });
      stager.begin(tree.entries);
      using former = FormerStage.open(first, plainCipher);
      assert.ok(former !== null);
      const steps = stager.resume(former);
      for (let i = 0; i < 100; i++) steps.next();
    }
    const damages = await damage(first, seed) + await damage(second, seed + 100);
    assert.ok(damages > 10, `seed ${seed}: ${damages} files damaged`);
    const { ids, reused } = await stageRest(tree, third, [second, first]);
    const [before, after] = [await hashTree(live), await hashTree(third)];
    assert.deepEqual(after.lines, before.lines, `seed ${seed}`);
    const fetched = bytesIn(tree, ids);
    assert.ok(fetched < all * 0.8, `seed ${seed}: ${fetched} of ${all} bytes fetched`);
    assert.ok(reused > all * 0.2, `seed ${seed}: ${reused} of ${all} bytes reused`);
    const zeros = Deno.statSync(`${third}/hole-all`).blocks;
    assert.equal(zeros, 0, "a hole takes no space");
  }
});

Deno.test("a file with something in its hole is not used", async () => {
  await using folder = scratchFolder("resume-");
  const live = `${folder.path}/live`;
  Deno.mkdirSync(live);
  const sparse = (path: string, at: readonly number[]) => {
    using file = Deno.openSync(path, { write: true, create: true });
    file.truncateSync(4_000_000);
    for (const offset of at) {
      file.seekSync(offset, Deno.SeekMode.Start);
      file.writeSync(new Uint8Array(4096).fill(7));
    }
  };
  sparse(`${live}/f`, [0, 2_000_000]);
  const tree = captureTree(filesRoot(live));
  const [former, stage] = [`${folder.path}/former`, `${folder.path}/new`];
  stagePart(tree, former, 1, 1);
  sparse(`${former}/f`, [1_000_000]);
  const { ids, reused } = await stageRest(tree, stage, [former]);
  assert.equal(ids.length, tree.chunks.size);
  assert.equal(reused, 0);
  assert.equal((await hashTree(stage)).hash, (await hashTree(live)).hash);
});

Deno.test({
  name: "a finished stage is used whole, hard links and folders without rights included [needs root]",
  ignore: !asRoot, // without rights others read what they staged no more, and fetch it again
  async fn() {
    await using folder = scratchFolder("resume-");
    const live = `${folder.path}/live`;
    Deno.mkdirSync(live);
    makeTree(live, { seed: 9, files: 200, asRoot });
    Deno.mkdirSync(`${live}/closed`);
    Deno.writeTextFileSync(`${live}/closed/f`, "content of a closed folder");
    Deno.chmodSync(`${live}/closed`, 0o500);
    const tree = captureTree(filesRoot(live));
    const [former, stage] = [`${folder.path}/former`, `${folder.path}/new`];
    await stageRest(tree, former, []);
    const { ids } = await stageRest(tree, stage, [former]);
    assert.deepEqual(ids, []);
    assert.equal((await hashTree(stage)).hash, (await hashTree(live)).hash);
  },
});

Deno.test("a holder that staging left is taken over by the same restore of the same root only", async () => {
  await using folder = scratchFolder("resume-");
  const root = filesRoot(`${folder.path}/live`);
  const write = (path: string) => {
    Deno.mkdirSync(path);
    Deno.writeTextFileSync(`${path}/f`, "x");
  };
  const first = await findSwapPlace(root, "01a");
  assert.deepEqual(first.former, []);
  write(first.stage);
  const second = await findSwapPlace(root, "01a");
  assert.deepEqual([second.stage, second.former], [first.stage, [`${first.holder}/former-1`]]);
  write(second.stage);
  const third = await findSwapPlace(root, "01a");
  assert.deepEqual(third.former, [`${first.holder}/former-2`, `${first.holder}/former-1`]);
  assert.equal(Deno.readTextFileSync(`${third.former[0]}/f`), "x");
  assert.deepEqual((await findSwapPlace(root, "01b")).former, []);
  assert.deepEqual((await findSwapPlace(filesRoot(`${folder.path}/other-live`), "01a")).former, []);

  assert.deepEqual(await findLeftovers(root.path, new Set(["01a"])), [`${folder.path}/.sm-restore-01b-live`]);
  assert.deepEqual(
    (await findLeftovers(root.path)).sort(),
    [first.holder, `${folder.path}/.sm-restore-01b-live`],
    "another root's holder, whose name ends alike, is none of it",
  );
});

Deno.test("a holder that is not as staging leaves it is deleted and made anew", async () => {
  const spoil: Readonly<Record<string, (holder: string) => void>> = {
    "open to others": (holder) => Deno.chmodSync(holder, 0o755),
    "old content in it": (holder) => Deno.mkdirSync(`${holder}/old`),
    "a symlink": (holder) => {
      Deno.renameSync(holder, `${holder}.away`);
      Deno.symlinkSync(`${holder}.away`, holder);
    },
  };
  for (const [what, change] of Object.entries(spoil)) {
    await using folder = scratchFolder("resume-");
    const root = filesRoot(`${folder.path}/live`);
    const { holder, stage } = await findSwapPlace(root, "01a");
    Deno.mkdirSync(stage);
    change(holder);
    const place = await findSwapPlace(root, "01a");
    assert.deepEqual(place.former, [], what);
    assert.deepEqual([...Deno.readDirSync(place.holder)], [], what);
    assert.equal(Deno.lstatSync(place.holder).isDirectory, true, what);
  }
});
