/** Restores that are large enough for Workers, and what they take from this machine instead of the store. */

import assert from "node:assert/strict";
import { restoreTo, stageCheckpoint } from "../../src/checkpoint/restore.ts";
import { emptyHead } from "../../src/checkpoint/head_rules.ts";
import { HEAD_KEY, indexKey, packKey, packName, sha256Hex } from "../../src/checkpoint/ids.ts";
import { encodeIndexes } from "../../src/checkpoint/index_format.ts";
import { loadCodec } from "../../src/checkpoint/codec.ts";
import { parseInnerPath } from "../../src/checkpoint/path_filter.ts";
import { loadIndexes } from "../../src/checkpoint/index_store.ts";
import { encodeJson } from "../../src/checkpoint/records.ts";
import { isError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { memoryOf } from "../../src/platform/shared_memory.ts";
import { ulid } from "../../src/platform/random.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { DATA_CHUNKS } from "../../src/checkpoint/chunker.ts";
import { CheckpointRuns, watchedStore } from "../support/checkpoint_runs.ts";
import { entryList } from "../support/entry_list.ts";
import { canMount, tool } from "../support/mounts.ts";
import { randomOf } from "../support/seeded_random.ts";
import { hashTree, makeTree } from "../support/tree_model.ts";

const asRoot = isRoot();

/** Small files of all kinds, and a few large ones that many jobs write into. */
async function withLargeTree(seed = 7) {
  const watched = watchedStore();
  const runs = new CheckpointRuns(watched.store);
  makeTree(runs.files, { seed, files: 120, asRoot });
  const big = new Uint8Array(5_000_000);
  for (let at = 0; at < big.length; at += 65536) crypto.getRandomValues(big.subarray(at, at + 65536));
  await Deno.writeFile(`${runs.files}/big`, big);
  await Deno.writeFile(`${runs.files}/big-twice`, new Uint8Array([...big, ...big]));
  const { record } = await runs.create();
  assert.ok(record !== null);
  const stage = (path: string, live?: string) =>
    stageCheckpoint({
      record,
      indexes: runs.head.indexes,
      roots: [{ name: "data", stage: path, ...(live === undefined ? {} : { live }) }],
    }, runs.environment());
  return { ...watched, runs, record, stage, big };
}

Deno.test("restore by Workers equals the tree, small files, large ones, links and all", async () => {
  const { runs } = await withLargeTree();
  await using _ = runs;
  const { path, totals, warnings } = await runs.stage();
  assert.deepEqual(warnings, []);
  assert.equal(totals.bytesReused, 0);
  const [before, after] = [await hashTree(runs.files), await hashTree(path)];
  assert.deepEqual(after.lines, before.lines);
});

Deno.test("restore into memory that threads share equals the tree, with requests that fail after they had some", async () => {
  const base = watchedStore().store;
  const places = new Set<bigint>();
  let asked = 0;
  const store: ObjectStore = {
    ...base,
    async get(key, { memory, ...options } = {}) {
      const object = await base.get(key, options);
      if (memory === undefined) return object;
      // What is asked for again, as by a store that tries anew, is not the memory of the try that failed.
      const tries = ++asked % 2 === 0 ? 3 : 1;
      const given = Array.from({ length: tries }, () => memory(object.body.length));
      for (const block of given.map(memoryOf)) if (block !== null) places.add(block.address);
      const target = given.at(-1)?.subarray(0, object.body.length) ?? object.body;
      target.set(object.body);
      return { ...object, body: target };
    },
  };
  await using runs = new CheckpointRuns(store);
  const random = randomOf(11);
  for (let n = 0; n < 3; n++) await Deno.writeFile(`${runs.files}/large-${n}`, random.bytes(30_000_000));
  for (let n = 0; n < 1200; n++) await Deno.writeFile(`${runs.files}/small-${n}`, random.bytes(2000 + n));
  await runs.create();
  for (let round = 0; round < 2; round++) {
    const { path, warnings } = await runs.stage();
    assert.deepEqual(warnings, []);
    assert.deepEqual((await hashTree(path)).lines, (await hashTree(runs.files)).lines);
  }
  assert.ok(asked > 40, `${asked} ranges`);
  // At most 20 of each restore, some of which are used by both.
  assert.ok(places.size > 0 && places.size <= 40, `${places.size} blocks of memory`);
});

Deno.test("restore of very many small files equals the tree: ranges go to several jobs, and batches overlap", async () => {
  await using runs = new CheckpointRuns(watchedStore().store);
  for (let n = 0; n < 1400; n++) {
    if (n % 200 === 0) await Deno.mkdir(`${runs.files}/${n}`);
    // Each content comes twice, far apart, so that a later batch wants what an earlier one has got or still waits for.
    await Deno.writeTextFile(`${runs.files}/${n - n % 200}/${n}`, `${n % 700} `.repeat(20 + n % 70));
  }
  await runs.create();
  const { path, totals, warnings } = await runs.stage();
  assert.deepEqual(warnings, []);
  assert.equal(totals.entries, 1408);
  assert.deepEqual((await hashTree(path)).lines, (await hashTree(runs.files)).lines);
});

Deno.test("restore takes from the live folder what is right there and fetches the rest", async () => {
  const { runs, stage, big } = await withLargeTree();
  await using _ = runs;
  const before = await hashTree(runs.files);
  const live = `${runs.folder}/live`;
  assert.ok(tool("cp", "-a", runs.files, live));
  // Same size, same times, other bytes: nothing but reading it tells.
  const damaged = big.slice();
  damaged[2_000_000] = (damaged[2_000_000] ?? 0) ^ 1;
  const { mtime } = await Deno.stat(`${live}/big`);
  await Deno.writeFile(`${live}/big`, damaged);
  await Deno.utime(`${live}/big`, mtime ?? 0, mtime ?? 0);
  await Deno.remove(`${live}/big-twice`);
  await Deno.symlink(`${runs.files}/big-twice`, `${live}/big-twice`);
  const liveBefore = await hashTree(live);

  const { totals, warnings } = await stage(`${runs.folder}/stage`, live);
  assert.deepEqual(warnings, []);
  assert.deepEqual((await hashTree(`${runs.folder}/stage`)).lines, before.lines);
  assert.equal((await hashTree(live)).hash, liveBefore.hash, "the live folder is only read");
  // All three times but for the chunk with the other byte.
  const least = 3 * (big.length - DATA_CHUNKS.max);
  assert.ok(totals.bytesReused >= least, `${totals.bytesReused} of ${totals.bytes} bytes reused`);
  assert.ok(
    totals.bytesTransferred < 4 * DATA_CHUNKS.max, // that chunk, and those where the copies meet and end
    `${totals.bytesTransferred} bytes fetched`,
  );
  const [from, to] = [await Deno.stat(`${live}/big`), await Deno.stat(`${runs.folder}/stage/big`)];
  assert.notEqual(from.ino, to.ino, "copied, not linked");
});

Deno.test("restore of a folder that has nothing of it fetches everything", async () => {
  const { runs, stage } = await withLargeTree();
  await using _ = runs;
  await Deno.mkdir(`${runs.folder}/empty`);
  const { totals } = await stage(`${runs.folder}/stage`, `${runs.folder}/empty`);
  assert.equal(totals.bytesReused, 0);
  assert.deepEqual((await hashTree(`${runs.folder}/stage`)).lines, (await hashTree(runs.files)).lines);
});

/** What a repack does: all chunks into packs of other names, a new index, the head swapped, the old ones deleted. */
async function repack(runs: CheckpointRuns): Promise<void> {
  const codec = await loadCodec();
  const { store } = runs;
  const { signal } = new AbortController();
  const { table } = await loadIndexes(store, runs.head.indexes, { codec, cacheFolder: null, signal });
  const moved = [];
  for (const pack of table.packs) {
    const name = packName(2, ulid(runs.clock.wallMs(), runs.random));
    await store.put(packKey(name), (await store.get(packKey(pack.name))).body);
    const entries = entryList([...table.all()].filter((chunk) => chunk.pack.name === pack.name));
    moved.push({ pack: { ...pack, name }, entries });
  }
  const indexes = [];
  for (const bytes of encodeIndexes(codec, moved)) {
    const key = indexKey(2, ulid(runs.clock.wallMs(), runs.random));
    await store.put(key, new Uint8Array(bytes));
    indexes.push({ key, sha256: sha256Hex(bytes) });
  }
  const { current, repo_id } = runs.head;
  assert.ok(current !== null);
  const head = { ...emptyHead(repo_id), epoch: 2, current: current.id, checkpoints: [current], indexes };
  await store.put(HEAD_KEY, encodeJson(head));
  for (const pack of table.packs) await store.delete(packKey(pack.name));
  for (const ref of runs.head.indexes) await store.delete(ref.key);
}

Deno.test("restore that meets a garbage collection looks up where the chunks are now", async () => {
  for (const after of [0, 1, 3]) {
    const { runs, record } = await withLargeTree();
    await using _ = runs;
    await Deno.remove(`${runs.folder}/cache`, { recursive: true });
    let gets = 0;
    let repacked = Promise.resolve();
    const store: ObjectStore = {
      ...runs.store,
      async get(key, options) {
        if (/packs|index/.test(key) && gets++ === after) repacked = repack(runs);
        await repacked;
        return await runs.store.get(key, options);
      },
    };
    const path = `${runs.folder}/stage`;
    const request = { record, indexes: runs.head.indexes, roots: [{ name: "data", stage: path }] };
    await stageCheckpoint(request, { ...runs.environment(), store });
    assert.ok(gets > after, `${gets} reads`);
    assert.deepEqual(
      (await hashTree(path)).lines,
      (await hashTree(runs.files)).lines,
      `after ${after} reads`,
    );
  }
});

Deno.test("restore of a checkpoint that was deleted meanwhile says so", async () => {
  const { runs, stage } = await withLargeTree();
  await using _ = runs;
  await Deno.remove(`${runs.folder}/cache`, { recursive: true });
  await repack(runs);
  await runs.store.put(HEAD_KEY, encodeJson({ ...emptyHead(runs.head.repo_id), epoch: 3 }));
  await assert.rejects(stage(`${runs.folder}/stage`), (error) => isError(error, "checkpoint-not-found"));
});

Deno.test("restore of one folder brings that folder and nothing else", async () => {
  const { runs, record } = await withLargeTree();
  await using _ = runs;
  await Deno.mkdir(`${runs.files}/photos/2026`, { recursive: true });
  await Deno.writeTextFile(`${runs.files}/photos/2026/one`, "1");
  await Deno.writeTextFile(`${runs.files}/photos/other`, "2");
  const { record: second } = await runs.create();
  assert.ok(second !== null && record !== null);
  const folder = `${runs.folder}/to`;
  const { totals } = await restoreTo({
    record: second,
    indexes: runs.head.indexes,
    folder,
    names: ["data"],
    paths: [parseInnerPath("photos/2026")],
  }, { ...runs.environment(), cacheFolder: null });
  assert.deepEqual(
    (await hashTree(`${folder}/data/photos/2026`)).lines,
    (await hashTree(`${runs.files}/photos/2026`)).lines,
  );
  assert.deepEqual([...Deno.readDirSync(`${folder}/data`)].map(({ name }) => name), ["photos"]);
  assert.deepEqual([...Deno.readDirSync(`${folder}/data/photos`)].map(({ name }) => name), ["2026"]);
  assert.equal(totals.bytes, 1);
  assert.equal(totals.entries, 4);
});

Deno.test(
  "restore refuses at once what does not fit on the disk [needs mount]",
  { ignore: !canMount },
  async () => {
    const { runs, stage } = await withLargeTree();
    await using _ = runs;
    const small = `${runs.folder}/small`;
    await Deno.mkdir(small);
    assert.ok(tool("mount", "-t", "tmpfs", "-o", "size=2m", "none", small));
    try {
      await assert.rejects(
        stage(`${small}/stage`),
        (error) => isError(error, "disk-full") && /\d+ bytes are needed, \d+ are free/.test(error.message),
      );
      assert.deepEqual([...Deno.readDirSync(small)], [], "nothing was begun");
    } finally {
      tool("umount", small);
    }
  },
);
