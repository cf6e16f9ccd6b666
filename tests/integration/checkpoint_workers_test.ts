/** Checkpoints that several threads read: the same as with one, and an error instead of a hang. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { ChunkTable } from "../../src/checkpoint/chunk_table.ts";
import { ClaimTable } from "../../src/checkpoint/claim_table.ts";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { loadCodec } from "../../src/checkpoint/codec.ts";
import { WorkerPool } from "../../src/checkpoint/content_pool.ts";
import { sha256 } from "../../src/checkpoint/ids.ts";
import { PackSender } from "../../src/checkpoint/pack_sender.ts";
import { Pacer } from "../../src/checkpoint/pacer.ts";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import { PACKS_PREFIX } from "../../src/checkpoint/ids.ts";
import { CheckpointRuns, watchedStore } from "../support/checkpoint_runs.ts";
import { until } from "../support/supervised.ts";
import { listTree } from "../support/tree_listing.ts";

const MIB = 1024 * 1024;

async function shell(script: string, folder: string): Promise<void> {
  const { success, stderr } = await new Deno.Command("sh", { args: ["-ec", script, folder] }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
}

/** Files of every kind that is cut differently: large, with holes, many small ones, equal ones, a database, links. */
async function fill(folder: string): Promise<void> {
  await shell(
    `cd "$0"; head -c 70000000 /dev/urandom > big; cp big big-copy; seq 1 1500000 > text
     truncate -s 100000000 sparse; head -c 3000000 /dev/urandom >> sparse; truncate -s 150000000 sparse
     mkdir small; for i in $(seq 1 1500); do echo "file $i" > small/$i; done; ln big linked; ln -s big symlink`,
    folder,
  );
  const database = new DatabaseSync(`${folder}/app.db`);
  database.exec("PRAGMA journal_mode=WAL; CREATE TABLE t(a, b)");
  const insert = database.prepare("INSERT INTO t VALUES (?, ?)");
  database.exec("BEGIN");
  for (let i = 0; i < 20_000; i++) insert.run(i, String(i).repeat(40));
  database.exec("COMMIT");
  database.close();
}

Deno.test("checkpoint of a tree has the same manifest and chunks with one thread and with four", async () => {
  const stores = [watchedStore(), watchedStore()] as const;
  await using one = new CheckpointRuns(stores[0].store);
  await fill(one.files);
  const four = new CheckpointRuns(stores[1].store, one.folder);
  one.machine = { cores: 1, memoryLimitBytes: 2 ** 40 };
  four.machine = { cores: 4, memoryLimitBytes: 2 ** 40 };
  const first = await one.create();
  await Deno.remove(`${one.folder}/cache`, { recursive: true });
  const second = await four.create();
  assert.deepEqual([...Deno.readDirSync(`${four.folder}/scratch`)], [], "no copy is left");
  assert.deepEqual(first.warnings, []);
  assert.deepEqual(second.warnings, []);
  assert.deepEqual(second.record?.files, first.record?.files);
  // The same chunks, each once: about as many bytes, whatever packs they are in.
  const bytes = (puts: readonly { bytes: number }[]) => puts.reduce((sum, put) => sum + put.bytes, 0);
  const [a, b] = [bytes(stores[0].puts), bytes(stores[1].puts)];
  assert.ok(Math.abs(a - b) < 0.02 * a, `${a} and ${b} bytes`);
  const { path } = await four.stage();
  assert.deepEqual(await listTree(path), await listTree(four.files));
  const again = await four.create();
  assert.equal(again.record, null);
});

Deno.test("checkpoint read by threads has bounded packs on their way, and ends when the store fails", async () => {
  const { store, watch } = watchedStore();
  await using runs = new CheckpointRuns(store);
  runs.machine = { cores: 4, memoryLimitBytes: 2 ** 40 };
  await shell('for i in 1 2 3 4; do head -c 25000000 /dev/urandom > "$0/$i"; done', runs.files);
  let now = 0;
  let most = 0;
  watch.beforePut = async (key) => {
    if (!key.startsWith(PACKS_PREFIX)) return;
    most = Math.max(most, ++now);
    // The first until there is another, however slow the machine makes them.
    await until(() => most > 1, "a second pack");
    await new Promise((resolve) => setTimeout(resolve, 20));
    now--;
  };
  await runs.create();
  assert.ok(most > 1 && most <= 4, `${most} at one time`);
  await Deno.remove(`${runs.folder}/cache`, { recursive: true });
  runs.head = { ...runs.head, current: null, indexes: [] };
  let puts = 0;
  watch.beforePut = () =>
    ++puts > 3 ? Promise.reject(new StateManagerError("store-full", "test")) : Promise.resolve();
  await assert.rejects(runs.create(), (error) => isError(error, "store-full"));
  const abort = new AbortController();
  watch.beforePut = () => Promise.resolve(abort.abort(new StateManagerError("cancelled", "test")));
  await assert.rejects(runs.create({ signal: abort.signal }), (error) => isError(error, "cancelled"));
});

Deno.test("a large file that changes while threads read it is taken with a warning", async () => {
  const { store } = watchedStore();
  await using runs = new CheckpointRuns(store);
  await shell('head -c 140000000 /dev/zero | tr "\\0" x > "$0/log"', runs.files);
  const writer = new Deno.Command("sh", {
    args: ["-c", 'while echo more >> "$0/log"; do :; done', runs.files],
    stderr: "null",
  }).spawn();
  try {
    const { record, warnings } = await runs.create();
    assert.equal(record?.files["data"]?.entries, 2);
    assert.deepEqual(warnings.map(({ path, reason }) => [path, /changed while/.test(reason)]), [[
      "log",
      true,
    ]]);
  } finally {
    writer.kill("SIGKILL");
    await writer.status;
  }
  const { path } = await runs.stage();
  assert.ok((await Deno.stat(`${path}/log`)).size >= 140_000_000);
});

/** Ids in pairs that differ in their last byte only, so that each pair begins its search in one slot. */
function twinIds(count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => {
    const id = sha256(new TextEncoder().encode(`chunk ${i >> 1}`));
    if (i % 2 === 1) id[id.length - 1] = (id[id.length - 1] ?? 0) ^ 1;
    return id;
  });
}

Deno.test("claims: of all threads exactly one gets each chunk", async () => {
  const ids = twinIds(20_000);
  // Two threads may not meet in one table; in one of many they do.
  const tables = Array.from({ length: 16 }, () => ClaimTable.forChunks(ids.length));
  const threads = 3;
  // All begin each table at one moment: a thread that starts later would find everything claimed.
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const script = `
    import { ClaimTable } from "${new URL("../../src/checkpoint/claim_table.ts", import.meta.url)}";
    onmessage = ({ data: { tables, ids, gate } }) => {
      postMessage(tables.map((shared, round) => {
        const table = new ClaimTable(shared);
        Atomics.add(gate, 0, 1);
        while (Atomics.load(gate, 0) < ${threads} * (round + 1));
        return Int32Array.from(ids.keys()).filter((i) => table.claim(ids[i]));
      }));
    };`;
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const workers = Array.from({ length: threads }, () => new Worker(url, { type: "module" }));
  try {
    const claimed = await Promise.all(workers.map((worker) =>
      new Promise<Int32Array[]>((resolve) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.postMessage({ tables: tables.map(({ shared }) => shared), ids, gate });
      })
    ));
    for (const [round, table] of tables.entries()) {
      const winners = new Uint8Array(ids.length);
      for (const rounds of claimed) for (const i of rounds[round] ?? []) winners[i] = (winners[i] ?? 0) + 1;
      const wrong = winners.findIndex((count) => count !== 1);
      assert.equal(wrong, -1, `chunk ${wrong} has ${winners[wrong]} claimers in round ${round}`);
      assert.equal(ids.findIndex((id) => table.claim(id)), -1, "all are taken");
    }
  } finally {
    for (const worker of workers) worker.terminate();
    URL.revokeObjectURL(url);
  }
});

/** What a pool whose threads run `script` does with one job, or at its end. */
async function poolOf(script: string, silenceLimitMs = 60_000): Promise<unknown> {
  const { store } = watchedStore();
  await using runs = new CheckpointRuns(store);
  const { clock, random, signal, onProgress } = runs.environment();
  const table = new ChunkTable();
  const compression = "auto";
  const codec = await loadCodec();
  const sender = new PackSender({
    store,
    codec,
    cipher: plainCipher,
    compression,
    clock,
    random,
    token: 1,
    table,
    signal,
  });
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const pool = new WorkerPool({
    cipher: plainCipher,
    workers: 2,
    packBytes: 4 * MIB,
    compression,
    claims: ClaimTable.forChunks(10),
    sender,
    pacer: new Pacer({ clock, signal, onProgress }),
    clock,
    signal,
    silenceLimitMs,
    startThread: () => new Worker(url, { type: "module" }),
  });
  try {
    await pool.read({ folder: runs.files, paths: new Uint8Array(0), sqlite: false, range: null });
    await pool.finish();
    return null;
  } catch (error) {
    return error;
  } finally {
    pool.close();
    URL.revokeObjectURL(url);
  }
}

Deno.test("a reading thread that dies, refuses or falls silent fails the operation and says so", async () => {
  const thrown = await poolOf(`throw new Error("broken at its start")`);
  assert.ok(isError(thrown, "internal") && /a thread was lost: .*broken at its start/.test(thrown.message));
  const later = await poolOf(
    `onmessage = ({ data }) => { if (data.type === "job") throw new Error("broken") }`,
  );
  assert.ok(isError(later, "internal") && /a thread was lost/.test(later.message));
  const told = await poolOf(`onmessage = ({ data }) => data.type === "job" && postMessage({ type: "failed",
    error: { code: "disk-full", message: "no room", hint: null, details: [] } })`);
  assert.ok(isError(told, "disk-full"));
  const silent = await poolOf(`onmessage = ({ data }) => data.type === "job" && close()`, 300);
  assert.ok(isError(silent, "timeout") && /said nothing for 300 ms/.test(silent.message));
});

for (const cores of [1, 4]) {
  Deno.test(`damaged database beside much else is taken as it is, with a warning, on ${cores} cores`, async () => {
    await using runs = new CheckpointRuns(watchedStore().store);
    runs.machine = { cores, memoryLimitBytes: 2 ** 40 };
    await shell('head -c 30000000 /dev/urandom > "$0/big"', runs.files);
    for (const name of ["broken.db", "sound.db"]) {
      const database = new DatabaseSync(`${runs.files}/${name}`);
      database.exec("CREATE TABLE t(a, b); BEGIN");
      const insert = database.prepare("INSERT INTO t VALUES (?, ?)");
      for (let i = 0; i < 20_000; i++) insert.run(i, "x".repeat(name === "broken.db" ? 90 : 20));
      database.exec("COMMIT");
      database.close();
    }
    using file = Deno.openSync(`${runs.files}/broken.db`, { write: true });
    file.seekSync(1_000_000 - 1_000_000 % 4096, Deno.SeekMode.Start);
    file.writeSync(new Uint8Array(4096).fill(0x55));
    const { warnings } = await runs.create();
    assert.deepEqual(warnings.map(({ path }) => path), ["broken.db"]);
    assert.match(
      warnings[0]?.reason ?? "",
      /no consistent copy of the database, its file was taken as it is/,
    );
    const { path } = await runs.stage();
    // A sound copy differs from its file in the counter of its first page.
    const others = async (folder: string) =>
      (await listTree(folder)).filter((line) => !line.startsWith("sound"));
    assert.deepEqual(await others(path), await others(runs.files));
    using sound = new DatabaseSync(`${path}/sound.db`);
    assert.deepEqual({ ...sound.prepare("SELECT count(*) AS n FROM t").get() }, { n: 20_000 });
  });
}
