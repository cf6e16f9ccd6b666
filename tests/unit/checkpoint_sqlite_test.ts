/** Consistent copies of databases that programs use. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { snapshotDatabase } from "../../src/checkpoint/sqlite_snapshot.ts";
import type { Clock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { AT_CWD, isErrno, pathBytes, renameAt } from "../../src/platform/libc_files.ts";
import { scratchFolder } from "../support/tree_model.ts";

/** Pauses take no time: what is tested is how often, not how long. */
const clock: Clock = {
  wallMs: () => 0,
  monotonicMs: () => 0,
  sleep: () => Promise.resolve(),
};

interface Scene {
  readonly folder: string;
  readonly path: string;
  readonly copy: string;
  names(): string[];
  /** Names, sizes and times of all that is beside the database: must not change. */
  state(): string;
}

function sceneIn(folder: string): Scene {
  const data = `${folder}/data`;
  Deno.mkdirSync(data);
  Deno.mkdirSync(`${folder}/scratch`);
  const names = () => [...Deno.readDirSync(data)].map(({ name }) => name).sort();
  return {
    folder: data,
    path: `${data}/app.db`,
    copy: `${folder}/scratch/copy.db`,
    names,
    state: () =>
      names().filter((name) => !name.endsWith("-shm")).map((name) => {
        const { size, mtime, ino } = Deno.statSync(`${data}/${name}`);
        return `${name} ${size} ${mtime?.getTime()} ${ino}`;
      }).join("\n"),
  };
}

const take = (scene: Scene) => snapshotDatabase(pathBytes(scene.path), scene.copy, { clock });

function count(path: string): number {
  const database = new DatabaseSync(path);
  try {
    assert.deepEqual(
      database.prepare("PRAGMA integrity_check").get()?.["integrity_check"],
      "ok",
    );
    return Number(database.prepare("SELECT count(*) AS n FROM t").get()?.["n"]);
  } finally {
    database.close();
  }
}

function open(path: string, setup: string): DatabaseSync {
  const database = new DatabaseSync(path);
  database.exec(setup);
  return database;
}

const WAL = "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a, b)";
const ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500)" +
  " INSERT INTO t SELECT i, randomblob(500) FROM n";

/** Runs `code` with a database open as `db` in a process of its own that then kills itself. */
async function killed(path: string, code: string): Promise<void> {
  const script = `
    import { DatabaseSync } from "node:sqlite";
    const db = new DatabaseSync(${JSON.stringify(path)});
    ${code}
    Deno.kill(Deno.pid, "SIGKILL");`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-config", "-"],
    stdin: "piped",
  }).spawn();
  const input = child.stdin.getWriter();
  await input.write(new TextEncoder().encode(script));
  await input.close();
  assert.equal((await child.status).signal, "SIGKILL");
}

Deno.test("snapshot holds what a live program has committed to its log, and touches nothing of it", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  const app = open(scene.path, `${WAL}; ${ROWS}`);
  const before = scene.state();
  assert.equal(await take(scene), "locked");
  assert.equal(scene.state(), before);
  assert.equal(count(scene.copy), 500);
  assert.deepEqual(
    [...Deno.readDirSync(`${folder.path}/scratch`)].map(({ name }) => name),
    ["copy.db"],
  );
  app.exec("INSERT INTO t VALUES(0, 0)"); // and the program goes on
  app.close();
  assert.equal(count(scene.path), 501);
});

Deno.test("snapshot leaves out what a live program has not committed", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  const app = open(scene.path, `${WAL}; ${ROWS}; BEGIN; DELETE FROM t`);
  await take(scene);
  app.exec("COMMIT");
  app.close();
  assert.equal(count(scene.copy), 500);
});

Deno.test("snapshot of a closed WAL database makes no log beside it", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  open(scene.path, `${WAL}; ${ROWS}`).close();
  const before = scene.state();
  assert.equal(await take(scene), "copy");
  assert.deepEqual(scene.names(), ["app.db"]);
  assert.equal(scene.state(), before);
  assert.equal(count(scene.copy), 500);
});

Deno.test("snapshot after kill -9 holds the log that nobody recovered", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  await killed(
    scene.path,
    `db.exec(${JSON.stringify(`${WAL}; ${ROWS}; BEGIN; DELETE FROM t`)});`,
  );
  assert.deepEqual(scene.names(), ["app.db", "app.db-shm", "app.db-wal"]);
  const before = scene.state();
  await take(scene);
  assert.equal(scene.state(), before);
  assert.equal(count(scene.copy), 500);
});

Deno.test("snapshot after kill -9 with the log but without its index holds the log, too", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  await killed(scene.path, `db.exec(${JSON.stringify(`${WAL}; ${ROWS}`)});`);
  Deno.removeSync(`${scene.path}-shm`);
  await take(scene);
  assert.equal(count(scene.copy), 500);
});

Deno.test("snapshot after kill -9 in a rollback journal's transaction is the state before it", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  const setup =
    `PRAGMA cache_size=5; CREATE TABLE t(a, b); ${ROWS}; BEGIN; UPDATE t SET b=randomblob(500), a=-1`;
  await killed(scene.path, `db.exec(${JSON.stringify(setup)});`);
  assert.deepEqual(scene.names(), ["app.db", "app.db-journal"]);
  const before = scene.state();
  assert.equal(await take(scene), "copy");
  assert.equal(scene.state(), before);
  assert.equal(count(scene.copy), 500);
  const copy = new DatabaseSync(scene.copy);
  assert.equal(
    copy.prepare("SELECT count(*) AS n FROM t WHERE a=-1").get()?.["n"],
    0,
  );
  copy.close();
});

/** Runs `script` in a process of its own, which says a line when it writes, until `action` has ended. */
async function whileWriting(script: string, action: () => Promise<void>): Promise<void> {
  const writer = new Deno.Command(Deno.execPath(), {
    args: ["eval", "--no-config", script],
    stdout: "piped",
  }).spawn();
  const output = writer.stdout.getReader();
  try {
    await output.read(); // it writes now
    await action();
  } finally {
    writer.kill("SIGKILL");
    await writer.status;
    await output.cancel();
  }
}

Deno.test("snapshot is one commit while other processes write", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  open(
    scene.path,
    "PRAGMA journal_mode=WAL; CREATE TABLE t(a, b); CREATE TABLE u(a)",
  ).close();
  const script = `
    import { DatabaseSync } from "node:sqlite";
    const db = new DatabaseSync(${JSON.stringify(scene.path)});
    for (let i = 0;; i++) {
      db.exec("BEGIN; INSERT INTO t VALUES(" + i + ", randomblob(2000)); INSERT INTO u VALUES(" + i + "); COMMIT");
      if (i === 100) console.log("writing");
    }`;
  await whileWriting(script, async () => {
    for (let i = 0; i < 3; i++) {
      await take(scene);
      const copy = new DatabaseSync(scene.copy);
      const row = copy.prepare(
        "SELECT (SELECT count(*) FROM t) AS t, (SELECT count(*) FROM u) AS u",
      ).get();
      copy.close();
      assert.equal(row?.["t"], row?.["u"]);
      assert.ok(Number(row?.["t"]) > 100);
      Deno.removeSync(scene.copy);
    }
  });
});

/** A signal that is never given, and calls `look` whenever somebody asks for it. */
function askedSignal(look: () => void): AbortSignal {
  const { signal } = new AbortController();
  signal.throwIfAborted = look;
  return signal;
}

Deno.test("snapshot takes nothing of a log that begins anew while it is copied", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  const app = open(scene.path, `${WAL}; ${ROWS}`);
  app.exec("PRAGMA wal_checkpoint(PASSIVE)"); // all of the log is in the file: the next commit begins it anew
  const header = () => Deno.readFileSync(`${scene.path}-wal`).subarray(0, 32).toHex();
  const before = header();
  let asked = 0;
  const signal = askedSignal(() => {
    if (asked++ === 1) app.exec("INSERT INTO t VALUES (1000, 'later')");
  });
  assert.equal(await snapshotDatabase(pathBytes(scene.path), scene.copy, { clock, signal }), "locked");
  assert.ok(asked > 1);
  assert.notEqual(header(), before);
  assert.equal(count(scene.copy), 500, "what the transaction saw, and nothing of the new log");
  app.close();
});

Deno.test("snapshot takes the log with what is added to it while it is copied", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  const app = open(scene.path, `${WAL}; ${ROWS}`);
  let asked = 0;
  const signal = askedSignal(() => {
    if (asked++ === 1) app.exec("INSERT INTO t VALUES (1000, 'later'); PRAGMA wal_checkpoint(PASSIVE)");
  });
  assert.equal(await snapshotDatabase(pathBytes(scene.path), scene.copy, { clock, signal }), "locked");
  assert.ok(asked > 1);
  assert.ok(count(scene.copy) >= 500);
  app.close();
});

/** A writer that hardly pauses may hold its lock at each look. */
async function takeUnlessBusy(scene: Scene): Promise<void> {
  const short = { ...clock, sleep: () => new Promise<void>((resolve) => setTimeout(resolve, 1)) };
  for (;;) {
    try {
      await snapshotDatabase(pathBytes(scene.path), scene.copy, { clock: short });
      return;
    } catch (error) {
      if (!isError(error, "busy")) throw error;
    }
  }
}

/** Rewrites every row in each transaction, so that a copy of two states has two values; the log begins anew often. */
const REWRITER = `
  const setup = "CREATE TABLE IF NOT EXISTS t(a, b); " + rows;
  db.exec("PRAGMA cache_size=20; PRAGMA busy_timeout=5000; PRAGMA wal_autocheckpoint=50; " + setup);
  for (let i = 1;; i++) {
    db.exec("BEGIN IMMEDIATE; UPDATE t SET a=" + i + ", b=randomblob(6000 + " + i % 100 + "); COMMIT");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3); // who waits for the lock has his turn
    if (i % 7 === 0) db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    if (i === 10) console.log("writing");
  }`;

/** More by STATE_MANAGER_TEST_SNAPSHOTS. */
const SNAPSHOTS = Number(Deno.env.get("STATE_MANAGER_TEST_SNAPSHOTS") ?? 10);

for (const mode of ["wal", "delete", "persist"]) {
  Deno.test(`snapshot is one state of a database that is rewritten all the time, journal mode ${mode}`, async () => {
    await using folder = scratchFolder("sqlite-");
    const scene = sceneIn(folder.path);
    const script = `
      import { DatabaseSync } from "node:sqlite";
      const rows = ${JSON.stringify(ROWS)};
      const db = new DatabaseSync(${JSON.stringify(scene.path)});
      db.exec("PRAGMA journal_mode=${mode}; PRAGMA synchronous=OFF");
      ${REWRITER}`;
    await whileWriting(script, async () => {
      const seen = new Set<number>();
      for (let i = 0; i < SNAPSHOTS || seen.size < 2; i++) {
        await takeUnlessBusy(scene);
        assert.equal(count(scene.copy), 500);
        const copy = new DatabaseSync(scene.copy);
        const row = copy.prepare("SELECT min(a) AS least, max(a) AS most FROM t").get();
        copy.close();
        assert.equal(row?.["least"], row?.["most"]);
        seen.add(Number(row?.["least"]));
        Deno.removeSync(scene.copy);
      }
    });
  });
}

Deno.test("snapshot says busy for a database held in exclusive mode, and leaves no copy", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  const app = open(
    scene.path,
    `${WAL}; PRAGMA locking_mode=EXCLUSIVE; ${ROWS}`,
  );
  await assert.rejects(take(scene), (error) => isError(error, "busy"));
  assert.deepEqual([...Deno.readDirSync(`${folder.path}/scratch`)], []);
  app.exec("INSERT INTO t VALUES(0, 0)");
  app.close();
});

Deno.test("snapshot ends when it is cancelled while a lock is held", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  const app = open(
    scene.path,
    `${WAL}; PRAGMA locking_mode=EXCLUSIVE; ${ROWS}`,
  );
  const signal = AbortSignal.abort(new Error("enough"));
  await assert.rejects(
    snapshotDatabase(pathBytes(scene.path), scene.copy, { clock, signal }),
    /enough/,
  );
  app.close();
});

Deno.test("snapshot says data-damaged for a database that is broken inside", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  open(scene.path, `CREATE TABLE t(a, b); ${ROWS}`).close();
  const file = Deno.openSync(scene.path, { write: true });
  file.seekSync(4096 * 2, Deno.SeekMode.Start);
  file.writeSync(new Uint8Array(4096 * 3).fill(0xab));
  file.close();
  await assert.rejects(take(scene), (error) => isError(error, "data-damaged"));
  const magic = `${scene.folder}/fake.db`;
  Deno.writeTextFileSync(magic, "SQLite format 3\0" + "x".repeat(4080));
  await assert.rejects(
    snapshotDatabase(pathBytes(magic), scene.copy, { clock }),
    (error) => isError(error, "data-damaged"),
  );
});

Deno.test("snapshot of a database that vanished says so", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  await assert.rejects(take(scene), (error) => isErrno(error, "ENOENT"));
});

Deno.test("snapshot works for a name that is not UTF-8", async () => {
  await using folder = scratchFolder("sqlite-");
  const scene = sceneIn(folder.path);
  open(scene.path, `CREATE TABLE t(a, b); ${ROWS}`).close();
  const odd = Uint8Array.from([...pathBytes(`${scene.folder}/x`), 0xff]);
  renameAt(AT_CWD, pathBytes(scene.path), AT_CWD, odd, "replace");
  assert.equal(await snapshotDatabase(odd, scene.copy, { clock }), "copy");
  assert.equal(count(scene.copy), 500);
});
