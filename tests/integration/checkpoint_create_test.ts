import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { readContent } from "../../src/checkpoint/content_reader.ts";
import { chunkId, PACKS_PREFIX } from "../../src/checkpoint/ids.ts";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import { CheckpointRuns, filesRoot, watchedStore } from "../support/checkpoint_runs.ts";
import { until } from "../support/supervised.ts";
import { listTree } from "../support/tree_listing.ts";

const MIB = 1024 * 1024;
const noise = (length: number) => {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65536) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(length, at + 65536)));
  }
  return bytes;
};
const sum = (puts: readonly { bytes: number }[]) => puts.reduce((all, put) => all + put.bytes, 0);

Deno.test({
  name: "checkpoint of a tree of everything comes back equal [needs root]",
  ignore: Deno.uid() !== 0, // a file of it has no rights, also for us
  async fn() {
    const { store } = watchedStore();
    await using runs = new CheckpointRuns(store);
    const script = `
    cd "$0"; mkdir -p a/b/c empty 'with space'; echo one > a/1; head -c 3000000 /dev/urandom > a/big
    seq 1 300000 > a/b/text; ln a/1 a/b/linked; ln a/1 zlinked; ln -s ../nowhere a/dangling; mkfifo pipe
    printf x > "$(printf 'name-\\377-raw')"; printf '' > empty-file; truncate -s 9000000 sparse; echo end >> sparse
    chmod 4755 a/1; chmod 1777 empty; chmod 000 a/b/text; touch -d '1999-01-02 03:04:05.678901234' a/b/c
    for i in $(seq 1 300); do echo $i > a/b/c/$i; done; cp a/big a/copy`;
    await new Deno.Command("sh", { args: ["-c", script, runs.files] }).output();
    const before = await listTree(runs.files);
    const { record, warnings } = await runs.create();
    assert.deepEqual(warnings, []);
    assert.equal(record?.files["data"]?.entries, before.length);
    const { path } = await runs.stage();
    assert.deepEqual(await listTree(path), before);
    // The hole of nine million bytes is one again: it takes no room.
    assert.ok(((await Deno.stat(`${path}/sparse`)).blocks ?? 0) * 512 < MIB);
  },
});

Deno.test("checkpoint of an unchanged tree writes nothing and reads no file", async () => {
  const { store, puts } = watchedStore();
  await using runs = new CheckpointRuns(store);
  for (let i = 0; i < 20; i++) {
    await Deno.writeTextFile(`${runs.files}/${i}`, `file ${i}\n`.repeat(1000));
  }
  runs.later();
  const first = await runs.create();
  const count = puts.length;
  const again = await runs.create();
  assert.equal(again.record, null);
  assert.equal(again.totals.bytesRead, 0);
  assert.equal(puts.length, count);
  assert.deepEqual(again.indexes, first.indexes);
});

Deno.test("checkpoint with always makes a record of an unchanged tree, and sends no data", async () => {
  const { store, puts } = watchedStore();
  await using runs = new CheckpointRuns(store);
  await Deno.writeTextFile(`${runs.files}/a`, "one");
  await runs.create();
  const count = puts.length;
  const { record } = await runs.create({ always: true, comment: "asked for" });
  assert.equal(record?.n, 2);
  assert.deepEqual(puts.slice(count).map(({ key }) => key), [record.root]);
});

Deno.test("checkpoint after small edits sends about what changed", async () => {
  const { store, puts } = watchedStore();
  await using runs = new CheckpointRuns(store);
  for (let i = 0; i < 200; i++) {
    await Deno.writeFile(`${runs.files}/small-${i}`, noise(10_000));
  }
  const big = noise(24 * MIB);
  await Deno.writeFile(`${runs.files}/big`, big);
  await runs.create();
  const count = puts.length;
  for (const i of [3, 77, 150]) {
    await Deno.writeFile(`${runs.files}/small-${i}`, noise(10_000));
  }
  const edited = new Uint8Array(big.length + 100);
  edited.set(big.subarray(0, 9 * MIB));
  edited.set(noise(100), 9 * MIB);
  edited.set(big.subarray(9 * MIB), 9 * MIB + 100);
  await Deno.writeFile(`${runs.files}/big`, edited);
  const { totals } = await runs.create();
  const sent = sum(puts.slice(count));
  assert.equal(totals.bytesTransferred, sent);
  // Three small files, the chunk that was edited (1 MiB at most, its neighbour may be cut anew) and the manifest.
  assert.ok(sent <= 1.2 * (3 * 10_000 + 2 * MIB) + 64 * 1024, `${sent} bytes`);
  const { path } = await runs.stage();
  assert.deepEqual(await listTree(path), await listTree(runs.files));
});

Deno.test("checkpoint stores equal content once", async () => {
  const { store, puts } = watchedStore();
  await using runs = new CheckpointRuns(store);
  const content = noise(5 * MIB);
  for (const name of ["a", "b", "c"]) {
    await Deno.writeFile(`${runs.files}/${name}`, content);
  }
  await runs.create();
  assert.ok(sum(puts) < 5.2 * MIB, `${sum(puts)} bytes`);
});

Deno.test("checkpoint sees an edit that keeps size and mtime", async () => {
  const { store } = watchedStore();
  await using runs = new CheckpointRuns(store);
  await Deno.writeTextFile(`${runs.files}/a`, "one");
  await runs.age();
  runs.later();
  await runs.create();
  await Deno.writeTextFile(`${runs.files}/a`, "two");
  await runs.age();
  const { record } = await runs.create();
  assert.ok(record !== null);
  const { path } = await runs.stage();
  assert.equal(await Deno.readTextFile(`${path}/a`), "two");
});

Deno.test("checkpoint takes a database that is open, with what is in its log", async () => {
  const { store } = watchedStore();
  await using runs = new CheckpointRuns(store);
  const database = new DatabaseSync(`${runs.files}/app.db`);
  try {
    database.exec(
      "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (41), (42)",
    );
    const { warnings } = await runs.create();
    assert.deepEqual(warnings, []);
    const again = await runs.create();
    assert.equal(again.record, null, "nothing changed");
    database.exec("INSERT INTO t VALUES (43)");
    await runs.create();
    const { path } = await runs.stage();
    assert.deepEqual([...Deno.readDirSync(path)].map(({ name }) => name), [
      "app.db",
    ]);
    const restored = new DatabaseSync(`${path}/app.db`);
    assert.deepEqual(
      restored.prepare("SELECT sum(x) AS s FROM t").get()?.["s"],
      126,
    );
    restored.close();
  } finally {
    database.close();
  }
});

Deno.test("checkpoint of a root that is missing, or on another device, fails and writes nothing", async () => {
  const { store, puts } = watchedStore();
  await using runs = new CheckpointRuns(store);
  await Deno.writeTextFile(`${runs.files}/a`, "one");
  const { devices } = await runs.create();
  const count = puts.length;
  const missing = (error: unknown) => isError(error, "source-missing");
  await assert.rejects(
    runs.create({ roots: [filesRoot("data", `${runs.files}/none`)] }),
    missing,
  );
  await assert.rejects(
    runs.create({
      devices: { data: String(BigInt(devices["data"] ?? 0) + 1n) },
    }),
    missing,
  );
  assert.equal(puts.length, count);
});

Deno.test("checkpoint carries on the items that it was not asked to read", async () => {
  const { store } = watchedStore();
  await using runs = new CheckpointRuns(store);
  const other = `${runs.folder}/other`;
  await Deno.mkdir(other);
  await Deno.writeTextFile(`${other}/b`, "other");
  await Deno.writeTextFile(`${runs.files}/a`, "one");
  await runs.create({
    roots: [filesRoot("data", runs.files), filesRoot("other", other)],
  });
  await Deno.writeTextFile(`${runs.files}/a`, "two");
  const { record } = await runs.create();
  assert.deepEqual(Object.keys(record?.files ?? {}).toSorted(), [
    "data",
    "other",
  ]);
  const { path } = await runs.stage(record, "other");
  assert.equal(await Deno.readTextFile(`${path}/b`), "other");
});

Deno.test("checkpoint that is cancelled or whose store fails leaves garbage only, and the next one succeeds", async () => {
  const { store, puts, watch } = watchedStore();
  await using runs = new CheckpointRuns(store);
  await Deno.writeFile(`${runs.files}/big`, noise(40 * MIB));
  const abort = new AbortController();
  watch.beforePut = () => Promise.resolve(abort.abort(new StateManagerError("cancelled", "test")));
  await assert.rejects(
    runs.create({ signal: abort.signal }),
    (error) => isError(error, "cancelled"),
  );
  watch.beforePut = () => Promise.reject(new StateManagerError("store-full", "test"));
  await assert.rejects(runs.create(), (error) => isError(error, "store-full"));
  assert.ok(puts.every(({ key }) => key.startsWith("checkpoints/packs/")));
  watch.beforePut = () => Promise.resolve();
  await runs.create();
  const { path } = await runs.stage();
  assert.deepEqual(await listTree(path), await listTree(runs.files));
});

Deno.test("checkpoint stores anew what the former run stored but nobody committed", async () => {
  const { store } = watchedStore();
  await using runs = new CheckpointRuns(store);
  await Deno.writeFile(`${runs.files}/a`, noise(MIB));
  runs.later();
  const before = runs.head;
  await runs.create();
  runs.head = before; // the commit failed: the scan cache now names chunks that are in no index
  await runs.create();
  const { path } = await runs.stage();
  assert.deepEqual(await listTree(path), await listTree(runs.files));
});

Deno.test("checkpoint has at most four packs in flight", async () => {
  const { store, watch } = watchedStore();
  await using runs = new CheckpointRuns(store);
  await Deno.writeFile(`${runs.files}/big`, noise(150 * MIB));
  let now = 0;
  let most = 0;
  watch.beforePut = async (key) => {
    if (!key.startsWith(PACKS_PREFIX)) return;
    most = Math.max(most, ++now);
    // The first until there is another, however slow the machine makes them.
    await until(() => most > 1, "a second pack");
    await new Promise((resolve) => setTimeout(resolve, 500));
    now--;
  };
  await runs.create();
  assert.ok(most > 1 && most <= 4, `${most} at one time`);
});

Deno.test("checkpoint number 64 and later merge small indexes, and everything stays restorable", async () => {
  const { store } = watchedStore();
  await using runs = new CheckpointRuns(store);
  for (let i = 0; i < 70; i++) {
    await Deno.writeTextFile(`${runs.files}/${i}`, `content ${i}`);
    const { record } = await runs.create();
    assert.ok(record !== null);
  }
  assert.ok(
    runs.head.indexes.length < 64,
    `${runs.head.indexes.length} indexes`,
  );
  const { path } = await runs.stage();
  assert.deepEqual(await listTree(path), await listTree(runs.files));
});

Deno.test("content reader ends where the file ends, when it is cut while it is read", async () => {
  const content = noise(5 * MIB);
  const source = {
    extents: () => [{ kind: "data" as const, offset: 0, length: 9 * MIB }],
    read: (offset: number, buffer: Uint8Array<ArrayBuffer>) => {
      const bytes = content.subarray(offset, offset + buffer.length);
      buffer.set(bytes);
      return bytes.length;
    },
  };
  const parts = await readContent(source, {
    sqlite: false,
    store: chunkId,
    pace: () => null,
  });
  assert.equal(
    parts.reduce((all, part) => all + part.length, 0),
    content.length,
  );
});

for (const [what, rename] of [["a file that did not change", false], ["a copy of a file", true]] as const) {
  Deno.test(`checkpoint stores ${what} anew where only a doomed pack has it, though an index names that pack`, async () => {
    const { store } = watchedStore();
    await using runs = new CheckpointRuns(store);
    await Deno.writeFile(`${runs.files}/kept`, noise(100_000));
    const first = await runs.create();
    await Deno.writeFile(`${runs.files}/forgotten`, noise(100_000));
    runs.later(); // so that the second scan is believed
    const packs = async () => (await store.list({ prefix: PACKS_PREFIX })).objects.map(({ key }) => key);
    const before = new Set(await packs());
    const second = await runs.create();
    const doomed = (await packs()).filter((key) => !before.has(key));
    assert.ok(doomed.length > 0);
    // The second checkpoint is deleted and the first one the current state, while the index of the second is still named.
    const names = doomed.map((key) => key.slice(PACKS_PREFIX.length));
    runs.head = { ...runs.head, current: first.record, indexes: second.indexes, doomed: names };
    if (rename) await Deno.rename(`${runs.files}/forgotten`, `${runs.files}/copy`);
    const third = await runs.create({ always: true });
    assert.ok(third.record !== null);
    // The sweep of what was doomed may come at any time.
    for (const key of doomed) await store.delete(key);
    const ofSecond = second.indexes.filter(({ key }) => !first.indexes.some((ref) => ref.key === key));
    const indexes = third.indexes.filter(({ key }) => !ofSecond.some((ref) => ref.key === key));
    runs.head = { ...runs.head, indexes };
    const { path } = await runs.stage(third.record);
    assert.deepEqual(await listTree(path), await listTree(runs.files));
  });
}
