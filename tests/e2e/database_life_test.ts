/**
 * A replicated database through the whole life of a manager: everything dies and another machine has all but the last
 * second; a stop loses nothing; a barrier keeps its word; a restore to the past is new history.
 */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import type { Head } from "../../src/checkpoint/types.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { directoryStore } from "../../src/storage/mod.ts";
import { chainProgram, checkChain, readJournal } from "../support/chain.ts";
import { PER_SECOND, type Place, placeAt, restoreTo, startAt, untilRow } from "../support/database_place.ts";
import { findLitestream, litestreamRestoreOf } from "../support/litestream.ts";
import { MachineStall } from "../support/machine_stall.ts";
import { ManagerProcess, runProgram, scratchFolder, waitFor } from "../support/manager_process.ts";
import { isRoot } from "../support/small_root.ts";
import { testOnStores, type TestStore } from "../support/test_stores.ts";

const clock = systemClock();
/** Older than this must be in the bucket when everything dies, with a store that is well. */
const LOSS_LIMIT_MS = 2000;

testOnStores(
  "when everything dies another machine has all rows but those of the last seconds",
  async (store) => {
    using scratch = scratchFolder();
    const one = placeAt(`${scratch.path}/one`);
    let killedMs: number;
    let limitMs = LOSS_LIMIT_MS;
    let confirmed = 0;
    {
      await using stall = new MachineStall(scratch.path);
      await using manager = startAt(one, store);
      await untilRow(one, manager, 100);
      confirmed = readJournal(one.journal).rows.at(-1)?.n ?? 0;
      const synced = await manager.json("/databases/app/sync", { method: "POST" });
      assert.ok(synced.durable_txid > 0);
      Deno.chmodSync(one.database, 0o640);
      await manager.checkpoint();
      await untilRow(one, manager, confirmed + PER_SECOND * (LOSS_LIMIT_MS / 1000 + 1));
      // Where the disk stood still a file may wait for it, and the next one behind it.
      limitMs += 2 * stall.longestMs(3 * LOSS_LIMIT_MS);
      killedMs = clock.monotonicMs();
      await manager.killTree();
    }
    const told = readJournal(one.journal).rows;
    const mustHave = told.filter(({ atMs }) => atMs < killedMs - limitMs).at(-1)?.n ?? 0;
    assert.ok(mustHave > confirmed || limitMs > 1.2 * LOSS_LIMIT_MS, "it wrote for long enough");

    const two = placeAt(`${scratch.path}/two`);
    await using next = startAt(two, store);
    await untilRow(two, next, 1);
    const [found = 0] = readJournal(two.journal).starts;
    assert.ok(found >= mustHave, `${found} rows came back, ${mustHave} were older than ${limitMs} ms`);
    assert.ok(found <= (told.at(-1)?.n ?? 0) + 1, "no row that nobody wrote");
    assert.equal(
      (Deno.statSync(two.database).mode ?? 0) & 0o777,
      0o640,
      "the mode that the checkpoint recorded",
    );
    next.signal("SIGTERM");
    assert.equal(await next.exit(), 0);
    const last = readJournal(two.journal).rows.at(-1)?.n;
    assert.equal(checkChain(two.database), last);
    assert.equal(await restoreTo(store, `${scratch.path}/end.db`), last, "the last sync had everything");
  },
);

testOnStores(
  "a restart on the same folder goes on without a snapshot, and a stale copy of it is moved aside",
  async (store) => {
    using scratch = scratchFolder();
    const one = placeAt(`${scratch.path}/one`);
    const stop = async (place: Place, rows: number) => {
      const begun = readJournal(place.journal).starts.length;
      await using manager = startAt(place, store);
      // Until then the journal tells of the run before.
      const begins = () => readJournal(place.journal).starts.length > begun;
      await waitFor("the program to begin", begins, 60_000, () => manager.tail());
      await untilRow(place, manager, rows);
      const { databases: [status] } = await manager.json("/databases");
      manager.signal("SIGTERM");
      assert.equal(await manager.exit(), 0, manager.tail());
      return status;
    };
    await stop(one, 50);
    new Deno.Command("cp", { args: ["-a", one.root, `${scratch.path}/copy`] }).outputSync();
    const status = await stop(one, 100);
    assert.equal(status.origin, "kept");
    assert.equal(status.counts.snapshots, 0, "its position was proven");
    const rows = checkChain(one.database);

    // The paths in the marker are those of the first machine: the copy takes its place.
    Deno.renameSync(one.root, `${scratch.path}/newer`);
    Deno.renameSync(`${scratch.path}/copy`, one.root);
    const stale = await stop(one, rows + 1);
    assert.equal(stale.origin, "moved-aside");
    assert.ok(checkChain(one.database) > rows);
    const aside = [...Deno.readDirSync(`${one.root}/data/stale`)];
    assert.equal(aside.length, 1, "the stale database is kept");
  },
);

testOnStores(
  "a restore to the past is new history, and points before, between and after stay restorable",
  async (store) => {
    using scratch = scratchFolder();
    const place = placeAt(`${scratch.path}/one`);
    await using manager = startAt(place, store);
    await untilRow(place, manager, 60);
    const early = await manager.checkpoint("early");
    const early_txid = early.checkpoint.databases.app.txid;
    await untilRow(place, manager, (readJournal(place.journal).rows.at(-1)?.n ?? 0) + 100);
    const between = (await manager.json("/databases/app/sync", { method: "POST" })).durable_txid;
    const before = readJournal(place.journal).starts.length;
    const restored = await manager.json("/restore", { json: { checkpoint: early.checkpoint.id } });
    assert.deepEqual(restored.databases, { app: early_txid });
    await waitFor(
      "the program again",
      () => readJournal(place.journal).starts.length > before,
      60_000,
      () => manager.tail(),
    );
    const back = readJournal(place.journal).starts.at(-1) ?? 0;
    await untilRow(place, manager, back + 20);
    // And to what was left behind by it: a TXID that no checkpoint names, by the command line.
    const unknown = await manager.fetch("/restore", { json: { txid: 1_000_000, databases: ["app"] } });
    assert.equal(unknown.status, 422, await unknown.text());
    const forth = await runProgram(
      ["db", "restore", "app", "--txid", String(between), "--yes", "--data-dir", `${place.root}/data`],
    );
    assert.equal(forth.code, 0, forth.stderr);
    await waitFor(
      "the program once more",
      () => readJournal(place.journal).starts.length > before + 1,
      60_000,
      () => manager.tail(),
    );
    const ahead = readJournal(place.journal).starts.at(-1) ?? 0;
    assert.ok(ahead >= back + 100, `${ahead} rows came back`);
    await untilRow(place, manager, ahead + 20);
    await manager.killTree();

    const at = async (name: string, args: readonly string[]) => {
      const rows = await restoreTo(store, `${scratch.path}/${name}.db`, args);
      const [, txid] = args;
      if (findLitestream() === null) return rows;
      const theirs = `${scratch.path}/${name}-litestream.db`;
      const wanted = txid === undefined ? [] : ["-txid", Number(txid).toString(16).padStart(16, "0")];
      await litestreamRestoreOf(store.config, "app", theirs, ...wanted);
      assert.equal(checkChain(theirs), rows, `${name} by Litestream`);
      return rows;
    };
    assert.equal(
      await at("early", ["--txid", String(early_txid)]),
      back,
      "the program began with the early state",
    );
    assert.ok(await at("between", ["--txid", String(between)]) >= back + 100);
    const newest = await at("newest", []);
    assert.ok(newest >= ahead, `${newest} rows, ${ahead} came back`);
  },
);

testOnStores("a database that its program makes in rollback mode is kept all the same", async (store) => {
  using scratch = scratchFolder();
  const place = placeAt(`${scratch.path}/one`);
  await using manager = startAt(place, store, { perSecond: 20, pragmas: "PRAGMA journal_mode = DELETE" });
  await untilRow(place, manager, 30);
  const confirmed = readJournal(place.journal).rows.at(-1)?.n ?? 0;
  await manager.json("/databases/app/sync", { method: "POST" });
  const copied = await restoreTo(store, `${scratch.path}/copy.db`);
  assert.ok(copied >= confirmed, `${copied} rows came back, a barrier confirmed ${confirmed}`);
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(), 0, manager.tail());
  assert.equal(await restoreTo(store, `${scratch.path}/end.db`), readJournal(place.journal).rows.at(-1)?.n);
});

testOnStores(
  "a database below a files root comes back with the files, and neither is in the other's way",
  async (store) => {
    using scratch = scratchFolder();
    const place = (name: string): Place => {
      const root = `${scratch.path}/${name}`;
      Deno.mkdirSync(`${root}/files/db`, { recursive: true });
      return { root, database: `${root}/files/db/app.db`, journal: `${root}/journal` };
    };
    const withFiles = ({ root }: Place) => ({ args: ["--files", `app=${root}/files`] });
    const note = ({ root }: Place) => Deno.readTextFileSync(`${root}/files/note`);
    const one = place("one");
    let early: number;
    {
      await using manager = startAt(one, store, withFiles(one));
      Deno.writeTextFileSync(`${one.root}/files/note`, "first");
      await untilRow(one, manager, 50);
      const first = await manager.checkpoint();
      Deno.writeTextFileSync(`${one.root}/files/note`, "second");
      const second = (readJournal(one.journal).rows.at(-1)?.n ?? 0) + 100;
      await untilRow(one, manager, second);
      await manager.checkpoint();
      const before = readJournal(one.journal).starts.length;
      await manager.json("/restore", { json: { checkpoint: first.checkpoint.id } });
      await waitFor(
        "the program again",
        () => readJournal(one.journal).starts.length > before,
        60_000,
        () => manager.tail(),
      );
      early = readJournal(one.journal).starts.at(-1) ?? 0;
      assert.ok(early >= 50 && early < second, `the program began again with ${early} rows`);
      assert.equal(note(one), "first");
      await untilRow(one, manager, early + 20);
      await manager.json("/databases/app/sync", { method: "POST" });
      await manager.killTree();
    }
    const two = place("two");
    {
      await using next = startAt(two, store, withFiles(two));
      await untilRow(two, next, 1);
      const [found = 0] = readJournal(two.journal).starts;
      assert.ok(found >= early + 20, `${found} rows came back`);
      assert.equal(note(two), "first");
      next.signal("SIGTERM");
      assert.equal(await next.exit(), 0, next.tail());
    }
    // The same folder again: both are ours, nothing is moved aside.
    await using again = startAt(two, store, withFiles(two));
    const status = await again.state("running", 60_000);
    assert.deepEqual([status.files[0].origin, status.databases[0].origin], ["kept", "kept"]);
    const to = `${scratch.path}/to`;
    const offline = await runProgram(["restore", ...store.args, "--to", to], { env: store.env });
    assert.equal(offline.code, 0, offline.stderr);
    assert.equal(Deno.readTextFileSync(`${to}/app/note`), "first");
    assert.throws(
      () => Deno.statSync(`${to}/app/db/app.db`),
      "the checkpoint's files do not hold the database",
    );
  },
);

testOnStores(
  "every database that a pattern finds is replicated, and comes back on another machine",
  async (store) => {
    using scratch = scratchFolder();
    const names = ["a", "b"];
    const startMachine = (machine: string): ManagerProcess => {
      const root = `${scratch.path}/${machine}`;
      Deno.mkdirSync(`${root}/db`, { recursive: true });
      const processes = names.map((name) => {
        const program = { database: `${root}/db/${name}.db`, journal: `${root}/${name}`, perSecond: 50 };
        return [name, { command: chainProgram(program) }];
      });
      const config = {
        storage: store.config,
        databases: { shops: { path: `${root}/db`, pattern: "*.db" } },
        files: { beside: { path: `${root}/db` } },
        processes: Object.fromEntries(processes),
        lease: { ttl: "5s", renew: "1s" },
      };
      Deno.writeTextFileSync(`${root}/config.json`, JSON.stringify(config), { mode: 0o600 });
      return new ManagerProcess({
        args: ["--config", `${root}/config.json`, "--data-dir", `${root}/data`],
        env: store.env,
      });
    };
    const told = (machine: string, name: string) => readJournal(`${scratch.path}/${machine}/${name}`);
    const untilAll = (machine: string, rows: number, manager: ManagerProcess) =>
      waitFor(
        `${rows} rows in each`,
        () => names.every((name) => (told(machine, name).rows.at(-1)?.n ?? 0) >= rows),
        60_000,
        () => manager.tail(),
      );
    const confirmed: number[] = [];
    {
      await using manager = startMachine("one");
      await untilAll("one", 30, manager);
      for (const name of names) {
        confirmed.push(told("one", name).rows.at(-1)?.n ?? 0);
        await waitFor(
          `a sync of ${name}`,
          async () =>
            await manager.statusOf(`/databases/shops%2F${name}.db/sync`, { method: "POST" }) === 200,
        );
      }
      await manager.killTree();
    }
    await using next = startMachine("two");
    await untilAll("two", 1, next);
    names.forEach((name, index) => {
      const [found = 0] = told("two", name).starts;
      assert.ok(
        found >= (confirmed[index] ?? 0),
        `${name}: ${found} rows came back, ${confirmed[index]} confirmed`,
      );
    });
    next.signal("SIGTERM");
    assert.equal(await next.exit(), 0, next.tail());
  },
);

testOnStores("a hand-over on request carries the database over to the last row", async (store) => {
  using scratch = scratchFolder();
  const [one, two] = [placeAt(`${scratch.path}/one`), placeAt(`${scratch.path}/two`)];
  await using first = startAt(one, store);
  await untilRow(one, first, 100);
  await using second = startAt(two, store);
  await untilRow(two, second, 1);
  const last = readJournal(one.journal).rows.at(-1)?.n;
  assert.deepEqual(readJournal(two.journal).starts, [last], first.tail());
  second.signal("SIGTERM");
  assert.equal(await second.exit(), 0, second.tail());
  const end = readJournal(two.journal).rows.at(-1)?.n;
  // The first one waits again, and goes on with what the second one left.
  await waitFor(
    "the first again",
    () => readJournal(one.journal).starts.length === 2,
    60_000,
    () => first.tail(),
  );
  assert.equal(readJournal(one.journal).starts.at(-1), end);
});

Deno.test("a database goes back to a TXID where no checkpoint was made yet: the safety checkpoint is the first", async () => {
  using scratch = scratchFolder();
  const folder = `${scratch.path}/store`;
  const args = ["--directory", folder, "--checkpoint-interval", "0"];
  const store: TestStore = { args, env: {}, config: { directory: folder } };
  const place = placeAt(`${scratch.path}/one`);
  await using manager = startAt(place, store);
  await untilRow(place, manager, 20);
  const { durable_txid: txid } = await manager.json("/databases/app/sync", { method: "POST" });
  await untilRow(place, manager, (readJournal(place.journal).rows.at(-1)?.n ?? 0) + 40);
  const planned = await manager.json("/restore", { json: { txid, databases: ["app"], dry_run: true } });
  assert.deepEqual([planned.dry_run, planned.source, planned.databases], [true, null, { app: txid }]);
  const restored = await manager.json("/restore", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ txid, databases: ["app"] }),
  });
  assert.deepEqual([restored.databases, restored.safety.n], [{ app: txid }, 1]);
});

Deno.test("a database of unknown origin refuses the start until somebody chooses, and neither is lost", async () => {
  using scratch = scratchFolder();
  const folder = `${scratch.path}/store`;
  const store: TestStore = { args: ["--directory", folder], env: {}, config: { directory: folder } };
  const one = placeAt(`${scratch.path}/one`);
  {
    await using manager = startAt(one, store);
    await untilRow(one, manager, 30);
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 0, manager.tail());
  }
  const [txid, rows] = [await newestTxid(store), await restoreTo(store, `${scratch.path}/one.db`)];
  const strangerAt = (root: string): Place => {
    const place = placeAt(root);
    Deno.mkdirSync(`${root}/db`);
    const database = new DatabaseSync(place.database);
    database.exec("PRAGMA journal_mode = WAL; CREATE TABLE stranger (a); INSERT INTO stranger VALUES (7)");
    database.close();
    return place;
  };
  const strangers = (path: string) => {
    const database = new DatabaseSync(path, { readOnly: true });
    try {
      return database.prepare("SELECT a FROM stranger").all().map(({ a }) => a);
    } finally {
      database.close();
    }
  };

  const two = strangerAt(`${scratch.path}/two`);
  {
    await using manager = startAt(two, store);
    assert.equal(await manager.exit(60_000), 78, manager.tail());
    assert.match(manager.stderr, /databases of unknown origin/);
    assert.deepEqual(strangers(two.database), [7]);
  }
  {
    await using manager = startAt(two, store, { args: ["--on-conflict", "bucket"] });
    await untilRow(two, manager, 1);
    assert.equal(readJournal(two.journal).starts[0], rows);
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 0, manager.tail());
    const [aside] = [...Deno.readDirSync(`${two.root}/data/stale`)];
    assert.deepEqual(strangers(`${two.root}/data/stale/${aside?.name}/app/app.db`), [7]);
  }
  const three = strangerAt(`${scratch.path}/three`);
  {
    await using manager = startAt(three, store, { args: ["--on-conflict", "local"] });
    await untilRow(three, manager, 1);
    assert.equal(readJournal(three.journal).starts[0], 0, "it had no chain yet");
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 0, manager.tail());
  }
  await restoreTo(store, `${scratch.path}/three.db`);
  assert.deepEqual(strangers(`${scratch.path}/three.db`), [7]);
  assert.equal(await restoreTo(store, `${scratch.path}/before.db`, ["--txid", String(txid)]), rows);
});

Deno.test("owner and mode of a database come back on another machine where no checkpoint was made", async () => {
  using scratch = scratchFolder();
  const folder = `${scratch.path}/store`;
  const store: TestStore = {
    args: ["--directory", folder, "--checkpoint-interval", "0"],
    env: { STATE_MANAGER_CHECKPOINT_ON_STOP: "false" },
    config: { directory: folder },
  };
  const owned = (place: Place) => {
    const { uid, gid, mode } = Deno.statSync(place.database);
    return [uid, gid, (mode ?? 0) & 0o7777];
  };
  const [one, two] = [placeAt(`${scratch.path}/one`), placeAt(`${scratch.path}/two`)];
  Deno.mkdirSync(`${one.root}/db`);
  Deno.writeTextFileSync(one.database, "");
  Deno.chmodSync(one.database, 0o640);
  if (isRoot) Deno.chownSync(one.database, 1234, 4321);
  const objects = directoryStore({ path: folder, clock, random: systemRandom() });
  const readHead = async (): Promise<Head> =>
    JSON.parse(new TextDecoder().decode((await objects.get("head.json")).body));
  {
    await using manager = startAt(one, store);
    await untilRow(one, manager, 1);
    const isTold = async () => (await readHead()).database_files?.["app"] !== undefined;
    await waitFor("the head to know the file", isTold, 60_000, () => manager.tail());
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 0, manager.tail());
  }
  assert.deepEqual((await readHead()).checkpoints, []);
  await objects.close();
  await using next = startAt(two, store);
  await untilRow(two, next, 1);
  assert.ok((readJournal(two.journal).starts[0] ?? 0) > 0, "it was restored");
  assert.deepEqual(owned(two), owned(one));
  assert.equal(owned(two)[2], 0o640);
});

/** In the store. */
async function newestTxid(store: TestStore): Promise<number> {
  const done = await runProgram(["db", "list", ...store.args, "--json"], { env: store.env });
  assert.equal(done.code, 0, done.stderr);
  return JSON.parse(done.stdout).databases[0].txid;
}

testOnStores(
  "a database in the bucket without a name here stops the start, or is carried on unseen",
  async (store) => {
    using scratch = scratchFolder();
    const place = placeAt(`${scratch.path}/one`);
    {
      await using manager = startAt(place, store);
      await untilRow(place, manager, 20);
      manager.signal("SIGTERM");
      assert.equal(await manager.exit(), 0, manager.tail());
    }
    const args = ["run", ...store.args, "--data-dir", `${scratch.path}/two`, "--", "true"];
    const refused = await runProgram(args, { env: store.env });
    assert.equal(refused.code, 78, refused.stderr);
    assert.match(refused.stderr, /databases that the configuration does not name: app/);
    const kept = await runProgram(args, { env: { ...store.env, STATE_MANAGER_RESTORE_ORPHANS: "keep" } });
    assert.equal(kept.code, 0, kept.stderr);
    assert.ok(await restoreTo(store, `${scratch.path}/still.db`) >= 20);
  },
);

Deno.test("a pattern's database that a person took away, file and replica, leaves the next checkpoint", async () => {
  using scratch = scratchFolder();
  const [root, store] = [`${scratch.path}/shops`, `${scratch.path}/store`];
  Deno.mkdirSync(root);
  for (const name of ["a", "b"]) {
    using database = new DatabaseSync(`${root}/${name}.db`);
    database.exec("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES (1)");
  }
  const config = {
    storage: { directory: store },
    databases: { shops: { path: root, pattern: "*.db" } },
    checkpoint: { interval: 0, on_stop: false },
    processes: { idle: { command: ["sleep", "1000"] } },
  };
  Deno.writeTextFileSync(`${scratch.path}/config.json`, JSON.stringify(config), { mode: 0o600 });
  const startManager = () =>
    new ManagerProcess({
      args: ["--config", `${scratch.path}/config.json`, "--data-dir", `${scratch.path}/data`],
    });
  const checkpointed = async (manager: ManagerProcess) => {
    await manager.state("running");
    const { checkpoint } = await manager.json("/checkpoint", { method: "POST" });
    return Object.keys(checkpoint.databases);
  };
  {
    await using manager = startManager();
    assert.deepEqual(await checkpointed(manager), ["shops/a.db", "shops/b.db"]);
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 0, manager.tail());
  }
  for (const name of ["b.db", "b.db-wal", "b.db-shm"]) await Deno.remove(`${root}/${name}`).catch(() => {});
  Deno.removeSync(`${store}/databases/shops/b.db`, { recursive: true });
  await using next = startManager();
  assert.deepEqual(await checkpointed(next), ["shops/a.db"]);
});
