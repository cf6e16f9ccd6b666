import assert from "node:assert/strict";
import { composeRestoreRoot } from "../../src/checkpoint/compose.ts";
import { planRestore, restoreTo } from "../../src/checkpoint/restore.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { ulid } from "../../src/platform/random.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import type { ObjectStore, StoredObject } from "../../src/storage/object_store.ts";
import { CheckpointRuns, filesRoot, watchedStore } from "../support/checkpoint_runs.ts";
import { listTree } from "../support/tree_listing.ts";
import { listFiles } from "../support/manifest_entries.ts";

/** A repository with one checkpoint of some text files and one of 3 MB. */
async function withCheckpoint() {
  const watched = watchedStore();
  const runs = new CheckpointRuns(watched.store);
  const big = new Uint8Array(3_000_000);
  for (let at = 0; at < big.length; at += 65536) {
    crypto.getRandomValues(big.subarray(at, Math.min(big.length, at + 65536)));
  }
  await Deno.writeFile(`${runs.files}/big`, big);
  for (let i = 0; i < 50; i++) {
    await Deno.writeTextFile(
      `${runs.files}/text-${i}`,
      `line ${i}\n`.repeat(500),
    );
  }
  const { record } = await runs.create();
  assert.ok(record !== null);
  return { ...watched, runs, record };
}

/** Replaces the bytes of objects whose key matches, as a store that lost or mixed up bits would. */
function damage(
  pattern: RegExp,
  change: (body: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>,
) {
  return (object: StoredObject): StoredObject =>
    pattern.test(object.key) ? { ...object, body: change(object.body.slice()) } : object;
}

const flip = (at: number) => (body: Uint8Array<ArrayBuffer>) => {
  body[at < 0 ? body.length + at : at] = (body.at(at) ?? 0) ^ 1;
  return body;
};

const damaged = (...words: RegExp[]) => (error: unknown) =>
  isError(error, "data-damaged") &&
  words.every((word) => word.test(error.message));

/** Without the copies of indexes, so that a restore asks the store for everything. */
async function forgetCopies(runs: CheckpointRuns): Promise<void> {
  await Deno.remove(`${runs.folder}/cache`, { recursive: true });
}

Deno.test("restore asks for the root and the indexes at one time", async () => {
  const base = memoryStore();
  const asked = new Set<string>();
  const both = new AbortController();
  let isWatched = false;
  let late = 0;
  const store: ObjectStore = {
    ...base,
    async get(key, options) {
      const kind = /^checkpoints\/(roots|index)\//.exec(key)?.[1];
      if (isWatched && kind !== undefined) {
        asked.add(kind);
        if (asked.size === 2) both.abort();
        await systemClock().sleep(10_000, { signal: both.signal }).catch(() => {}); // until both were asked for
        if (!both.signal.aborted) late++;
      }
      return await base.get(key, options);
    },
  };
  await using runs = new CheckpointRuns(store);
  await Deno.writeTextFile(`${runs.files}/a`, "a");
  const { record } = await runs.create();
  assert.ok(record !== null);
  await forgetCopies(runs);
  isWatched = true;
  await runs.stage(record);
  assert.ok(both.signal.aborted);
  assert.equal(late, 0);
});

Deno.test("restore refuses a pack with a flipped bit and names pack and file", async () => {
  const { runs, watch, record } = await withCheckpoint();
  await using _ = runs;
  watch.onGet = damage(/packs/, flip(1_500_000));
  await assert.rejects(
    runs.stage(record),
    damaged(/checkpoints\/packs\/00000001\//, /big/),
  );
});

Deno.test("restore refuses a pack that was cut short", async () => {
  const { runs, watch, record } = await withCheckpoint();
  await using _ = runs;
  watch.onGet = damage(/packs/, (body) => body.slice(0, body.length - 100));
  await assert.rejects(runs.stage(record), damaged(/checkpoints\/packs/));
});

Deno.test("restore refuses when a pack is gone, and names it", async () => {
  const { runs, store, puts, record } = await withCheckpoint();
  await using _ = runs;
  const pack = puts.find(({ key, bytes }) => /packs/.test(key) && bytes > 1_000_000)
    ?.key ?? "";
  await store.delete(pack);
  await assert.rejects(runs.stage(record), damaged(new RegExp(pack), /big/));
});

Deno.test("restore refuses a root object or an index that was changed", async () => {
  const { runs, watch, record } = await withCheckpoint();
  await using _ = runs;
  watch.onGet = damage(/roots/, flip(100));
  await assert.rejects(
    runs.stage(record),
    damaged(/checkpoints\/roots/, /SHA-256/),
  );
  await forgetCopies(runs);
  watch.onGet = damage(/index/, flip(-3));
  await assert.rejects(
    runs.stage(record),
    damaged(/checkpoints\/index/, /SHA-256/),
  );
});

Deno.test("restore fetches an index anew when its local copy is damaged", async () => {
  const { runs, record } = await withCheckpoint();
  await using _ = runs;
  const folder = `${runs.folder}/cache/indexes`;
  for (const { name } of Deno.readDirSync(folder)) {
    await Deno.writeTextFile(`${folder}/${name}`, "rubbish");
  }
  const { path } = await runs.stage(record);
  assert.deepEqual(await listTree(path), await listTree(runs.files));
});

Deno.test("restore plan says what is fetched, in bytes", async () => {
  const { runs, record } = await withCheckpoint();
  await using _ = runs;
  const roots = [{ name: "data", into: runs.folder }];
  const request = { record, indexes: runs.head.indexes, roots, paths: 10 };
  const { totals: plan } = await planRestore(request, runs.environment());
  const { totals } = await runs.stage(record);
  assert.equal(plan.entries, totals.entries);
  assert.equal(plan.bytes, totals.bytes);
  // The manifest comes on top of what is planned, and is small.
  assert.ok(totals.bytesTransferred >= plan.bytesTransferred);
  assert.ok(totals.bytesTransferred < plan.bytesTransferred + 50_000);
});

Deno.test("restore of an old checkpoint fetches parts of packs where it needs few chunks of them", async () => {
  const { runs, record: first } = await withCheckpoint();
  await using _ = runs;
  await Deno.remove(`${runs.files}/big`);
  const { record: second } = await runs.create();
  const { totals, path } = await runs.stage(second);
  assert.ok(
    totals.bytesTransferred < 1_000_000,
    `${totals.bytesTransferred} bytes`,
  );
  assert.deepEqual(await listTree(path), await listTree(runs.files));
  const { totals: old } = await runs.stage(first);
  assert.ok(old.bytesTransferred > 3_000_000);
});

Deno.test("restore to a folder needs no manager, makes one folder per files root and overwrites nothing", async () => {
  const { runs, record } = await withCheckpoint();
  await using _ = runs;
  const request = {
    record,
    indexes: runs.head.indexes,
    folder: `${runs.folder}/to/there`,
    names: null,
  };
  await restoreTo(request, { ...runs.environment(), cacheFolder: null });
  assert.deepEqual(
    await listTree(`${request.folder}/data`),
    await listTree(runs.files),
  );
  await assert.rejects(
    restoreTo(request, { ...runs.environment(), cacheFolder: null }),
    /EEXIST/,
  );
  const names = (await listFiles({ ...request, name: "data" }, runs.environment()))
    .map((entry) => new TextDecoder().decode(entry.path));
  assert.deepEqual(
    names,
    (await listTree(runs.files)).map((line) => line.split(" ")[0]),
  );
});

Deno.test("restore of a files root that the checkpoint does not hold is an invalid request", async () => {
  const { runs, record } = await withCheckpoint();
  await using _ = runs;
  await assert.rejects(
    runs.stage(record, "other"),
    (error) => isError(error, "invalid-request"),
  );
});

Deno.test("composed restore brings back the wanted items and keeps the current ones of all else", async () => {
  const { runs, store, puts } = await withCheckpoint();
  await using _ = runs;
  const other = `${runs.folder}/other`;
  await Deno.mkdir(other);
  await Deno.writeTextFile(`${other}/b`, "old");
  await Deno.writeTextFile(`${runs.files}/a`, "old");
  const roots = [filesRoot("data", runs.files), filesRoot("other", other)];
  const { record: source } = await runs.create({ roots });
  await Deno.writeTextFile(`${other}/b`, "new");
  await Deno.writeTextFile(`${runs.files}/a`, "new");
  await runs.create({ roots });
  assert.ok(source !== null);
  const count = puts.length;
  const request = {
    id: ulid(runs.clock.wallMs(), runs.random),
    time: runs.clock.wallMs(),
    token: 1,
    head: runs.head,
    source,
    names: ["data"],
    comment: "",
    labels: {},
  };
  const { record, indexes } = await composeRestoreRoot(request, {
    ...runs.environment(),
    store,
  });
  assert.deepEqual(
    puts.slice(count).map(({ key }) => key),
    [record.root],
    "no data moves",
  );
  assert.deepEqual(indexes, runs.head.indexes);
  assert.equal(record.kind, "restore");
  assert.equal(record.restored_from, source.id);
  assert.equal(record.parent, runs.head.current?.id);
  assert.equal(
    await Deno.readTextFile(`${(await runs.stage(record, "data")).path}/a`),
    "old",
  );
  assert.equal(
    await Deno.readTextFile(`${(await runs.stage(record, "other")).path}/b`),
    "new",
  );
});
