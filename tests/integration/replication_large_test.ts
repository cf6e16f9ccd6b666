/**
 * A database just over 1 GiB, where the page is that SQLite never uses (the lock page): followed while it grows over
 * it, sent in pieces, merged, taken as a whole, restored by both restorers. Minutes of work and some 8 GB of disk, so it
 * runs only with STATE_MANAGER_LARGE_DATABASE=1; it tells times and the most memory that this process used.
 */

import assert from "node:assert/strict";
import { lockPage } from "../../src/database/ltx/mod.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { openStore } from "../../src/storage/mod.ts";
import { findLitestream } from "../support/litestream.ts";
import { DAY_MS, ReplicatedDatabase } from "../support/replicated_database.ts";
import { say } from "../support/say.ts";
import { SqliteShell } from "../support/sqlite_shell.ts";
import { scratchFolder } from "../support/tree_model.ts";

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;
const clock = systemClock();

async function output(command: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args }).output();
  const text = new TextDecoder().decode(stdout);
  assert.ok(success, `${command} ${args.join(" ")}: ${text} ${new TextDecoder().decode(stderr)}`);
  return text.trim();
}

const sha256 = async (path: string) => (await output("sha256sum", path)).split(" ")[0];

/** Most resident memory of this process so far. */
function peakMib(): number {
  const [, kib = "0"] = /VmHWM:\s+(\d+)/.exec(Deno.readTextFileSync("/proc/self/status")) ?? [];
  return Math.round(Number(kib) / 1024);
}

async function timed<T>(what: string, work: () => Promise<T>): Promise<T> {
  const beganMs = performance.now();
  const result = await work();
  say(`${what}: ${((performance.now() - beganMs) / 1000).toFixed(1)} s, peak memory so far ${peakMib()} MiB`);
  return result;
}

/** Grows the database by rows of random content, in commits of about 40 MiB. */
async function grow(shell: SqliteShell, bytes: number): Promise<void> {
  for (let left = bytes; left > 0; left -= 40 * MIB) {
    const count = Math.ceil(Math.min(left, 40 * MIB) / 10_000);
    await shell.must(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<${count})` +
        " INSERT INTO t(b) SELECT randomblob(10000) FROM n;",
    );
  }
}

/** The bytes of the committed state; nobody writes now. */
async function stateOf(path: string, folder: string): Promise<string | undefined> {
  const copy = `${folder}/copy.db`;
  await output("sh", "-c", `cp '${path}' '${copy}'; cp '${path}-wal' '${copy}-wal'`);
  await output("sqlite3", copy, "PRAGMA wal_checkpoint(TRUNCATE)");
  const sum = await sha256(copy);
  await Deno.remove(copy);
  return sum;
}

async function run(pageSize: number): Promise<void> {
  await using scratch = scratchFolder("large-");
  const folder = scratch.path;
  const directory = `${folder}/store`;
  const store = openStore({ kind: "directory", directory }, { clock, random: systemRandom() });
  await using database = new ReplicatedDatabase({ folder, store, layout: "folder" });
  await using application = new SqliteShell();
  await application.must(
    `.open '${database.path}'\nPRAGMA page_size=${pageSize}; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; ` +
      "PRAGMA busy_timeout=10000; CREATE TABLE t(a INTEGER PRIMARY KEY, b);",
  );
  await timed(`page size ${pageSize}: filled to under 1 GiB`, () => grow(application, 0.93 * GIB));
  say(`page size ${pageSize}: peak memory ${peakMib()} MiB before we begin`);
  await database.start();
  const kept = new Map<number, string | undefined>();
  const keep = async (what: string) => {
    const txid = await timed(`page size ${pageSize}: ${what}`, () => database.barrier());
    database.pins.push(txid);
    kept.set(txid, await stateOf(database.path, folder));
  };
  await keep("all pages, first contact");
  await grow(application, 0.1 * GIB);
  const [pages = "0"] = await application.must("PRAGMA page_count;");
  assert.ok(Number(pages) > lockPage(pageSize), `${pages} pages`);
  await keep("the commits over the lock page");
  await timed(`page size ${pageSize}: merges and snapshot`, () => database.pass(DAY_MS + 1000));
  await application.must("DELETE FROM t WHERE a%50=0; UPDATE t SET b=randomblob(9000) WHERE a%70=1;");
  database.follower.requestSnapshot();
  await keep("all pages, over the lock page");
  await application.must(".open :memory:");
  await database.finish();
  await database.drop();

  for (const [txid, wanted] of kept) {
    const { path } = await timed(
      `page size ${pageSize}: our restore of TXID ${txid}`,
      () => database.restore({ kind: "txid", txid }),
    );
    const theirs = `${folder}/theirs.db`;
    const name = txid.toString(16).padStart(16, "0");
    const args = ["restore", "-txid", name, "-o", theirs, `file://${directory}/databases/app`];
    await timed(`page size ${pageSize}: litestream restore`, () => output(findLitestream() ?? "", ...args));
    assert.equal(await sha256(path), wanted, `TXID ${txid}: the bytes of the source`);
    assert.equal(await sha256(theirs), wanted, `TXID ${txid}: the bytes of litestream restore`);
    assert.equal(await output("sqlite3", theirs, "PRAGMA quick_check"), "ok");
    for (const file of [path, theirs, `${theirs}-wal`, `${theirs}-shm`]) {
      await Deno.remove(file).catch(() => {});
    }
  }
  say(`page size ${pageSize}: ${pages} pages, TXIDs ${[...kept.keys()]}, ${JSON.stringify(database.counts)}`);
  await store.close();
}

for (const pageSize of [4096, 65536]) {
  Deno.test({
    name: `a database over 1 GiB is followed and restored, page size ${pageSize} [needs litestream]`,
    ignore: findLitestream() === null || Deno.env.get("STATE_MANAGER_LARGE_DATABASE") !== "1",
    fn: () => run(pageSize),
  });
}
