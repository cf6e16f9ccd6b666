/**
 * `restore` and `db restore` in place where no manager runs: the command takes the lease, commits as a manager does and
 * lets go; killed at any moment, the next start comes up with the old or the new state, whole. Environment:
 * STATE_MANAGER_ALONE_KILLS, STATE_MANAGER_ALONE_SEED.
 */

import assert from "node:assert/strict";
import { equalBytes } from "../../src/platform/equal_bytes.ts";
import { chainProgram, checkChain, readJournal } from "../support/chain.ts";
import { keptHistory } from "../support/kept_history.ts";
import { findLitestream, litestreamRestoreOf } from "../support/litestream.ts";
import { type Json, ManagerProcess, runProgram, scratchFolder, waitFor } from "../support/manager_process.ts";
import { say } from "../support/say.ts";
import { testOnStores, type TestStore } from "../support/test_stores.ts";
import { seededRandom } from "../support/tree_model.ts";

const kills = Number(Deno.env.get("STATE_MANAGER_ALONE_KILLS") ?? "3");
const givenSeed = Deno.env.get("STATE_MANAGER_ALONE_SEED");

function folderStore(root: string): TestStore {
  const directory = `${root}/store`;
  return { args: ["--directory", directory], env: {}, config: { directory } };
}

class Machine {
  readonly root: string;
  readonly database: string;
  readonly files: string;
  readonly journal: string;
  readonly #store: TestStore;
  readonly #leaseTtl: string;

  /** The next start here takes the lease at once: its TTL is short only where somebody is to wait for it. */
  constructor(root: string, store: TestStore, leaseTtl = "60s") {
    this.#leaseTtl = leaseTtl;
    this.root = root;
    this.database = `${root}/db/app.db`;
    this.files = `${root}/files`;
    this.journal = `${root}/journal`;
    this.#store = store;
  }

  get #env(): Readonly<Record<string, string>> {
    return { ...this.#store.env, STATE_MANAGER_LEASE_TTL: this.#leaseTtl };
  }

  get dataDir(): readonly string[] {
    return ["--data-dir", `${this.root}/data`];
  }

  get note(): string {
    return Deno.readTextFileSync(`${this.files}/note`);
  }

  set note(text: string) {
    Deno.writeTextFileSync(`${this.files}/note`, text);
  }

  /** Rows of the chain. In a copy: to open the database itself would empty its log. */
  rows(): number {
    const copy = `${this.root}/copy.db`;
    for (const suffix of ["", "-wal"]) {
      try {
        Deno.copyFileSync(this.database + suffix, copy + suffix);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
    const rows = checkChain(copy);
    for (const suffix of ["", "-wal", "-shm"]) {
      try {
        Deno.removeSync(copy + suffix);
      } catch {
        // there was none
      }
    }
    return rows;
  }

  /** A manager with `command`, else with the program that writes the chain. */
  start(command: readonly string[] = []): ManagerProcess {
    for (const folder of ["db", "files"]) Deno.mkdirSync(`${this.root}/${folder}`, { recursive: true });
    const { database, journal } = this;
    const program = command.length > 0 ? command : chainProgram({ database, journal, perSecond: 200 });
    const places = ["--files", `data=${this.files}`, "--database", `app=${database}`];
    return new ManagerProcess({
      args: ["run", ...this.#store.args, ...places, ...this.dataDir, "--", ...program],
      env: this.#env,
    });
  }

  /** A normal start that runs no program of its own. */
  async visit(): Promise<ManagerProcess> {
    const manager = this.start(["true"]);
    assert.equal(await manager.exit(60_000), 0, manager.tail());
    return manager;
  }

  /** At least `rows` more than there are. */
  async grow(manager: ManagerProcess, rows: number): Promise<void> {
    const starts = await waitFor(
      "the program to begin",
      () => readJournal(this.journal).rows.length > 0 && readJournal(this.journal),
      60_000,
      () => manager.tail(),
    );
    const wanted = (starts.rows.at(-1)?.n ?? 0) + rows;
    await waitFor(
      `row ${wanted}`,
      () => (readJournal(this.journal).rows.at(-1)?.n ?? 0) >= wanted,
      60_000,
      () => manager.tail(),
    );
  }

  /** A restore in place of what `verb` says, with no configuration file. */
  alone(verb: "restore" | "restore files" | "db restore", ...args: readonly string[]): readonly string[] {
    const files = ["--files", `data=${this.files}`];
    const places = {
      "restore": [...files, "--databases", `app=${this.database}`],
      "restore files": files,
      "db restore": ["--database", `app=${this.database}`],
    }[verb];
    const command = verb === "db restore" ? ["db", "restore"] : ["restore"];
    return [...command, ...args, ...places, ...this.#store.args, ...this.dataDir];
  }

  command(args: readonly string[]): ManagerProcess {
    return new ManagerProcess({ args, env: { ...this.#env, STATE_MANAGER_RESTORE_ORPHANS: "keep" } });
  }

  async run(...args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    const command = this.command(args);
    const code = await command.exit(60_000);
    return { code, stdout: command.stdout, stderr: command.stderr };
  }
}

async function stop(manager: ManagerProcess): Promise<void> {
  manager.signal("SIGTERM");
  const code = await manager.exit(60_000);
  assert.ok(code === 0 || code === 143, `exit ${code}\n${manager.tail()}`);
}

/** Rows of the state at a TXID, by our own restorer and by Litestream. */
async function rowsAt(store: TestStore, folder: string, txid: number): Promise<number> {
  const [ours, theirs] = [`${folder}/ours-${txid}.db`, `${folder}/theirs-${txid}.db`];
  const done = await runProgram(
    ["db", "restore", "app", ...store.args, "--txid", String(txid), "--to", ours],
    { env: store.env },
  );
  assert.equal(done.code, 0, done.stderr);
  if (findLitestream() !== null) {
    await litestreamRestoreOf(store.config, "app", theirs, "-txid", txid.toString(16).padStart(16, "0"));
    assert.ok(equalBytes(Deno.readFileSync(theirs), Deno.readFileSync(ours)), `TXID ${txid} by Litestream`);
  }
  return checkChain(ours);
}

/** A checkpoint, "first", a state after it, and one more, "second". The manager is gone by `end`. */
async function history(machine: Machine, end: (manager: ManagerProcess) => Promise<void>): Promise<{
  readonly first: Json;
  readonly between: { readonly txid: number; readonly rows: number };
  readonly lastRows: number;
}> {
  await using manager = machine.start();
  await manager.state("running");
  machine.note = "first";
  await machine.grow(manager, 50);
  const first = (await manager.checkpoint("first")).checkpoint;
  await machine.grow(manager, 60);
  const rows = readJournal(machine.journal).rows.at(-1)?.n ?? 0;
  const { durable_txid: txid } = await manager.json("/databases/app/sync", { method: "POST" });
  await machine.grow(manager, 60);
  machine.note = "second";
  await end(manager);
  return { first, between: { txid, rows }, lastRows: machine.rows() };
}

testOnStores(
  "with no manager a restore in place is new history, on the same machine and on an empty one",
  async (store) => {
    using scratch = scratchFolder();
    const one = new Machine(`${scratch.path}/one`, store);
    // All dies at once: the last commits and files are on this machine alone.
    const { first, between, lastRows } = await history(one, (manager) => manager.killTree());

    // One database, to a state that no checkpoint names.
    const plan = await one.run(
      ...one.alone("db restore", "app", "--txid", String(between.txid), "--dry-run"),
    );
    assert.equal(plan.code, 0, plan.stderr);
    assert.match(plan.stdout, /^would restore /);
    assert.equal(one.rows(), lastRows);
    const unasked = await one.run(...one.alone("db restore", "app", "--txid", String(between.txid)));
    assert.deepEqual([unasked.code, one.rows()], [64, lastRows], unasked.stderr);
    const back = await one.run(
      ...one.alone("db restore", "app", "--txid", String(between.txid), "--yes", "--json"),
    );
    assert.equal(back.code, 0, back.stderr);
    const told: Json = JSON.parse(back.stdout.trimEnd().split("\n").at(-1) ?? "");
    assert.deepEqual([told.type, told.databases], ["complete", { app: between.txid }]);
    const backRows = one.rows();
    assert.ok(backRows >= between.rows && backRows < lastRows, `${backRows} rows came back`);
    assert.equal(one.note, "second", "files were not asked for");
    const safety: number = told.safety.databases.app.txid;

    // The next start keeps it, and goes on from there.
    {
      await using manager = one.start();
      await one.grow(manager, 20);
      assert.equal(readJournal(one.journal).starts.at(-1), backRows);
      const { databases: [status] } = await manager.json("/databases");
      assert.equal(status.origin, "kept");
      await stop(manager);
    }
    const newest = one.rows();

    // Everything, on a machine that has nothing.
    const two = new Machine(`${scratch.path}/two`, store);
    const all = await two.run(...two.alone("restore", first.id, "--yes"));
    assert.equal(all.code, 0, all.stderr);
    assert.match(all.stdout, /^restored v1 .* what was there before is /);
    assert.equal(two.note, "first");
    const firstRows = two.rows();
    {
      await using manager = two.start(["sleep", "1000"]);
      const status = await manager.state("running");
      assert.deepEqual([status.files[0].origin, status.databases[0].origin], ["kept", "kept"]);
      await stop(manager);
    }
    assert.deepEqual([two.rows(), two.note], [firstRows, "first"]);

    // Points before, between and after are all there, by both restorers.
    assert.equal(await rowsAt(store, scratch.path, first.databases.app.txid), firstRows);
    assert.equal(await rowsAt(store, scratch.path, between.txid), backRows);
    assert.equal(await rowsAt(store, scratch.path, safety), lastRows);
    const { stdout } = await runProgram(["checkpoint", "list", "--json", ...store.args, ...two.dataDir], {
      env: store.env,
    });
    const kept: Json[] = JSON.parse(stdout).checkpoints;
    const beforeAll = kept.findLast(({ kind }) => kind === "safety")?.databases.app.txid;
    assert.equal(await rowsAt(store, scratch.path, beforeAll), newest);
  },
);

Deno.test("where no checkpoint was ever made a database goes back by TXID and by time, with no manager, as new TXIDs", async () => {
  using scratch = scratchFolder();
  const { args, env, config } = folderStore(scratch.path);
  const never = { STATE_MANAGER_CHECKPOINT_INTERVAL: "0", STATE_MANAGER_CHECKPOINT_ON_STOP: "false" };
  const store = { args, env: { ...env, ...never }, config };
  const list = async (...command: readonly string[]): Promise<Json> => {
    const { code, stdout, stderr } = await runProgram([...command, "--json", ...args], { env });
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout);
  };
  const points = async (): Promise<Json[]> => (await list("db", "points", "app")).points;

  const one = new Machine(`${scratch.path}/one`, store);
  const [earlyTxid, middleTxid] = await (async () => {
    await using manager = one.start();
    const txids: number[] = [];
    for (let part = 0; part < 2; part++) {
      await one.grow(manager, 50);
      const { durable_txid: txid } = await manager.json("/databases/app/sync", { method: "POST" });
      txids.push(txid);
    }
    await one.grow(manager, 50);
    await stop(manager);
    return txids;
  })();
  const early = { txid: earlyTxid ?? 0, rows: await rowsAt(store, scratch.path, earlyTxid ?? 0) };
  assert.deepEqual((await list("checkpoint", "list")).checkpoints, []);
  const before = await points();
  const last = before.at(-1)?.txid;
  const lastRows = one.rows();
  assert.ok(early.rows < lastRows, `${early.rows} rows of ${lastRows}`);

  // By TXID, on a machine that has nothing; nobody need ask for a safety checkpoint.
  const two = new Machine(`${scratch.path}/two`, store);
  const byTxid = two.alone("db restore", "app", "--txid", String(early.txid), "--no-safety");
  const plan = await two.run(...byTxid, "--dry-run");
  assert.deepEqual([plan.code, plan.stdout], [0, `would restore app to TXID ${early.txid}\n`], plan.stderr);
  assert.deepEqual(await points(), before);
  const back = await two.run(...byTxid, "--yes");
  assert.equal(back.code, 0, back.stderr);
  assert.equal(two.rows(), early.rows);

  // By a time before there was any checkpoint.
  const middle = before.find(({ txid }) => txid === middleTxid);
  assert.ok(middle !== undefined, `TXID ${middleTxid} is a point to restore to`);
  const time = ["--at", middle.time];
  const again = await two.run(...two.alone("db restore", "app", ...time), "--yes", "--json");
  assert.equal(again.code, 0, again.stderr);
  const told: Json = JSON.parse(again.stdout.trimEnd().split("\n").at(-1) ?? "");
  assert.deepEqual([told.type, told.databases], ["complete", { app: middle.txid }]);
  const middleRows = await rowsAt(store, scratch.path, middle.txid);
  assert.equal(two.rows(), middleRows);

  // All of it is new history, and the next start goes on from there.
  const after = await points();
  assert.ok(after.length >= before.length + 2, `${after.length} points, ${before.length} before`);
  assert.equal(await rowsAt(store, scratch.path, last), lastRows);
  assert.equal(await rowsAt(store, scratch.path, after.at(-1)?.txid), middleRows);
  await using manager = two.start();
  await two.grow(manager, 1);
  assert.equal(readJournal(two.journal).starts.at(-1), middleRows);
  await stop(manager);
});

Deno.test("a state that only old commits hold comes back, though they are due to be merged away", async () => {
  using scratch = scratchFolder();
  const store = folderStore(scratch.path);
  const one = new Machine(`${scratch.path}/one`, store);
  const points: { readonly txid: number; readonly rows: number }[] = [];
  {
    await using manager = one.start();
    for (let point = 0; point < 4; point++) {
      await one.grow(manager, 30);
      const rows = readJournal(one.journal).rows.at(-1)?.n ?? 0;
      const { durable_txid: txid } = await manager.json("/databases/app/sync", { method: "POST" });
      points.push({ txid, rows });
    }
    await stop(manager);
  }
  const commits = `${store.config["directory"]}/databases/app/ltx/0`;
  const longAgo = new Date(Date.now() - 3_600_000);
  for (const { name } of Deno.readDirSync(commits)) Deno.utimeSync(`${commits}/${name}`, longAgo, longAgo);
  const wanted = points[1];
  assert.ok(wanted !== undefined);
  const { code, stderr } = await one.run(
    ...one.alone("db restore", "app", "--txid", String(wanted.txid), "--yes"),
  );
  assert.equal(code, 0, stderr);
  const told = keptHistory(`${one.root}/data`, "restore").at(-1);
  assert.match(told?.summary ?? "", /as new history$/, "no manager has told it");
  const rows = one.rows();
  assert.ok(rows >= wanted.rows && rows < (points[2]?.rows ?? 0), `${rows} rows came back`);
  await using manager = one.start();
  await one.grow(manager, 1);
  assert.equal(readJournal(one.journal).starts.at(-1), rows);
});

Deno.test("with the lease held elsewhere a restore in place is exit 75, and nothing changes", async () => {
  using scratch = scratchFolder();
  const store = folderStore(scratch.path);
  const one = new Machine(`${scratch.path}/one`, store, "5s");
  const two = new Machine(`${scratch.path}/two`, store, "5s");
  {
    await using manager = two.start(["sleep", "1000"]);
    await manager.state("running");
    two.note = "first";
    await manager.checkpoint();
    two.note = "second";
    await stop(manager);
  }
  await using holder = one.start(["sleep", "1000"]);
  const { lease } = await holder.state("running");
  const before = await holder.json("/checkpoints");
  // Where nothing is said it waits for as long as a dead holder's lease would stand.
  for (const patience of [["--no-lease-wait"], []]) {
    const { code, stderr } = await two.run(...two.alone("restore files", "v1", "--yes", ...patience));
    assert.equal(code, 75, stderr);
    assert.match(stderr, /lease/);
  }
  assert.equal(two.note, "second");
  assert.deepEqual(await holder.json("/checkpoints"), before);
  const after = await holder.state("running");
  assert.equal(after.lease.token, lease.token, "nobody asked the holder for it");
});

Deno.test("a manager that runs on the data dir is used, unless the options name another store", async () => {
  using scratch = scratchFolder();
  const store = folderStore(scratch.path);
  const one = new Machine(`${scratch.path}/one`, store);
  await using manager = one.start(["sleep", "1000"]);
  const { processes: [before] } = await manager.state("running");
  one.note = "first";
  await manager.checkpoint();
  one.note = "second";
  const { code, stdout, stderr } = await one.run(...one.alone("restore files", "v1", "--yes"));
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^restored v1 /);
  assert.equal(one.note, "first");
  const { processes: [after] } = await manager.state("running");
  assert.notEqual(after.pid, before.pid, "its program was stopped and started");
  const other = await one.run(
    "restore",
    "v1",
    "--yes",
    "--directory",
    `${scratch.path}/other`,
    ...one.dataDir,
  );
  assert.deepEqual([other.code, one.note], [64, "first"], other.stderr);
  assert.match(other.stderr, /keeps another store/);
});

Deno.test("a database that is none any more is set aside by the restore of it", async () => {
  using scratch = scratchFolder();
  const store = folderStore(scratch.path);
  const one = new Machine(`${scratch.path}/one`, store);
  {
    await using manager = one.start();
    await one.grow(manager, 30);
    await stop(manager);
  }
  const rows = one.rows();
  Deno.writeTextFileSync(one.database, "garbage ".repeat(2000));
  const { code, stderr } = await one.run(
    ...one.alone("db restore", "app", "--checkpoint", "latest", "--yes"),
  );
  assert.equal(code, 0, stderr);
  assert.equal(one.rows(), rows);
  const stale = `${one.root}/data/stale`;
  const aside = [...Deno.readDirSync(stale)].flatMap(({ name }) => [...Deno.readDirSync(`${stale}/${name}`)]);
  assert.deepEqual(aside.map(({ name }) => name), ["app"]);
  await using manager = one.start();
  await one.grow(manager, 10);
  assert.equal(readJournal(one.journal).starts.at(-1), rows);
});

Deno.test("a restore in place that is killed or stopped at any moment leaves the old or the new state, whole", async () => {
  using scratch = scratchFolder();
  const seed = givenSeed === undefined ? Math.trunc(Math.random() * 1e9) : Number(givenSeed);
  say(`seed ${seed}`);
  const random = seededRandom(seed);
  const store = folderStore(scratch.path);
  const one = new Machine(`${scratch.path}/one`, store);
  const { first } = await history(one, stop);
  const state = () => `${one.note} with ${one.rows()} rows`;
  const second = state();
  const listed = async (): Promise<Json[]> => {
    const { stdout } = await runProgram(["checkpoint", "list", "--json", ...store.args, ...one.dataDir]);
    return JSON.parse(stdout).checkpoints;
  };
  const last = (await listed()).at(-1)?.id;
  const begin = performance.now();
  const whole = await one.run(...one.alone("restore", first.id, "--yes"));
  assert.equal(whole.code, 0, whole.stderr);
  const tookMs = performance.now() - begin;
  const early = state();
  assert.notEqual(early, second);
  const found: string[] = [];
  let now = early;
  for (let n = 0; n < kills; n++) {
    const target = now === early ? last : first.id;
    const command = one.command(one.alone("restore", target, "--yes"));
    const pauseMs = (0.3 + 0.75 * random()) * tookMs; // before that it has only begun
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    const how = ["killed", "all killed", "stopped"][n % 3];
    if (how === "all killed") await command.killTree();
    else {
      try {
        command.signal(how === "killed" ? "SIGKILL" : "SIGTERM");
      } catch {
        // It was done before.
      }
      const code = await command.exit(60_000);
      assert.ok([0, 130, 137].includes(code), `exit ${code}\n${command.tail()}`);
    }
    const manager = await one.visit();
    const after = state();
    assert.ok([early, second].includes(after), `${how} after ${pauseMs} ms: ${after}\n${manager.tail()}`);
    found.push(`${how} ${Math.round(pauseMs)} ms: ${after === now ? "old" : "new"}`);
    now = after;
  }
  say(`${Math.round(tookMs)} ms whole; ${found.join(", ")}`);
  const end = (await listed()).at(-1);
  assert.equal(end.current, true);
});
