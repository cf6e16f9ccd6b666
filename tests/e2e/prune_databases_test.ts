/**
 * One machine after the other on a real S3 service, each with a database in WAL mode and one that is replicated by whole copies,
 * both written to all the time. In each round checkpoints are made while others are pruned, somebody elsewhere restores
 * one, and a new machine takes over. The clocks of all, the service's times included, pass 30 days over the rounds and
 * 30 more after them: then every checkpoint that was kept has its files and its databases as they were first seen.
 * STATE_MANAGER_PRUNE_ROUNDS=100: more rounds, and every third holder dies instead of handing over.
 */

import assert from "node:assert/strict";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { readHead } from "../../src/checkpoint/head.ts";
import type { CheckpointRecord } from "../../src/checkpoint/types.ts";
import type { ReplicaPlace } from "../../src/database/replica_layout.ts";
import { listReplica } from "../../src/database/replica_listing.ts";
import { deletableCommits, planRetention } from "../../src/database/retention_rules.ts";
import { restoreDatabaseTo } from "../../src/database/restore_database.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { listAll, type ObjectStore } from "../../src/storage/mod.ts";
import { chainProgram, checkChain, readJournal } from "../support/chain.ts";
import { aheadBy, hasFaketime } from "../support/faketime.ts";
import { startFaultProxy } from "../support/fault_proxy.ts";
import { type Json, ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";
import { findMinio, type Minio, minioStore, openToAll, startMinio } from "../support/minio.ts";
import { assertSameLines } from "../support/prune_scene.ts";
import { sha256Of } from "../support/replicated_database.ts";
import { say } from "../support/say.ts";
import { randomOf } from "../support/seeded_random.ts";
import { listTree } from "../support/tree_listing.ts";

const asked = Deno.env.get("STATE_MANAGER_PRUNE_ROUNDS");
const ROUNDS = Number(asked ?? 2);
const DAY_MS = 86_400_000;
const DAYS_MS = 30 * DAY_MS;
const FILES = 10;
/** A machine that stands still for seconds must not lose its lease where nobody dies. */
const TTL = asked === undefined ? "30s" : "6s";
const PREFIX = "prune";
/** Name → journal mode, and how it is replicated. */
const DATABASES = {
  log: { pragmas: "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", journal: "follow" },
  copies: { pragmas: "PRAGMA journal_mode = DELETE", journal: "snapshot" },
} as const;
type Name = keyof typeof DATABASES;
const NAMES = Object.keys(DATABASES) as Name[];
const LIMIT_MS = 120_000;
/** To restore each of a hundred states takes its time. */
const COMMAND_LIMIT_MS = 600_000;

interface Machine {
  readonly name: string;
  readonly root: string;
}

/** A database as it was when a checkpoint of it was first seen. */
interface Noted {
  readonly hash: string;
  readonly rows: number;
}

const clock = systemClock();

function placeOf(name: Name): ReplicaPlace {
  return { layout: "bucket", name };
}

class Scene implements AsyncDisposable {
  readonly random;
  readonly store: ObjectStore;
  /** What each checkpoint's databases hold, by id. */
  readonly noted = new Map<string, Readonly<Record<string, Noted>>>();
  /** The files at each round. */
  readonly trees = new Map<number, readonly string[]>();
  readonly counts: Record<string, number> = {};
  readonly #minio: Minio;
  readonly #scratch = scratchFolder();
  readonly #proxy;
  /** Since when the clocks are how much ahead, newest last. */
  readonly #jumps: { readonly sinceMs: number; readonly aheadMs: number }[] = [];
  #places = 0;

  private constructor(minio: Minio, seed: number) {
    this.#minio = minio;
    this.random = randomOf(seed);
    this.store = minioStore(minio, PREFIX);
    this.#proxy = startFaultProxy(minio.endpoint, {
      aheadMs: (atMs) => this.#aheadAt(atMs),
    });
  }

  static async start(seed: number): Promise<Scene> {
    const minio = await startMinio();
    assert.ok(minio !== null);
    await openToAll(minio);
    return new Scene(minio, seed);
  }

  below(limit: number): number {
    return Math.floor(this.random.float() * limit);
  }

  count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }

  /** At the turn of a second: the store tells some times in whole ones, and none may lie before the jump that it came after. */
  async pass(ms: number): Promise<void> {
    const sinceMs = (Math.floor(Date.now() / 1000) + 1) * 1000;
    while (Date.now() < sinceMs) await new Promise((resolve) => setTimeout(resolve, sinceMs - Date.now()));
    this.#jumps.push({ sinceMs, aheadMs: this.#aheadMs + ms });
  }

  get #aheadMs(): number {
    return this.#jumps.at(-1)?.aheadMs ?? 0;
  }

  get nowMs(): number {
    return Date.now() + this.#aheadMs;
  }

  place(what: string): string {
    return `${this.#scratch.path}/${what}-${++this.#places}`;
  }

  get #env(): Record<string, string> {
    const { accessKey, secretKey } = this.#minio;
    return { ...aheadBy(this.#aheadMs), AWS_ACCESS_KEY_ID: accessKey, AWS_SECRET_ACCESS_KEY: secretKey };
  }

  /** What the program of a database tells, on whatever machine it runs. */
  journal(name: Name): string {
    return `${this.#scratch.path}/${name}.journal`;
  }

  machine(name: string): Machine {
    const root = `${this.#scratch.path}/${name}`;
    for (const each of ["files", "db"]) Deno.mkdirSync(`${root}/${each}`, { recursive: true });
    const config = {
      storage: {
        bucket: this.#minio.bucket,
        endpoint: this.#proxy.endpoint,
        region: "us-east-1",
        key_prefix: PREFIX,
      },
      files: { app: { path: `${root}/files` } },
      databases: Object.fromEntries(
        NAMES.map((name) => [name, {
          path: `${root}/db/${name}.db`,
          journal: DATABASES[name].journal,
          drill_interval: "0s",
        }]),
      ),
      processes: Object.fromEntries(
        NAMES.map((name) => {
          const [database, journal] = [`${root}/db/${name}.db`, this.journal(name)];
          return [name, {
            command: chainProgram({ database, journal, perSecond: 40, pragmas: DATABASES[name].pragmas }),
          }];
        }),
      ),
      checkpoint: {
        interval: "0s",
        keep: { last: 4, hourly: 0, daily: 3, weekly: 2, monthly: 0 },
        verify: { interval: "0s" },
      },
      lease: { ttl: TTL },
    };
    Deno.writeTextFileSync(`${root}/config.json`, JSON.stringify(config), { mode: 0o600 });
    return { name, root };
  }

  start({ root }: Machine): ManagerProcess {
    return new ManagerProcess({
      args: ["--config", `${root}/config.json`, "--data-dir", `${root}/data`],
      env: this.#env,
    });
  }

  /** A command on the store alone, from a third machine. */
  async command(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    const { bucket } = this.#minio;
    const where = [
      "--bucket",
      bucket,
      "--endpoint",
      this.#proxy.endpoint,
      "--region",
      "us-east-1",
      "--prefix",
      PREFIX,
    ];
    await using program = new ManagerProcess({ args: [...args, ...where], env: this.#env });
    const code = await program.exit(COMMAND_LIMIT_MS);
    return { code, stdout: program.stdout, stderr: program.stderr };
  }

  rows(name: Name): number {
    return readJournal(this.journal(name)).rows.at(-1)?.n ?? 0;
  }

  async edit({ root }: Machine, round: number): Promise<void> {
    for (let i = 0; i < 3; i++) {
      const path = `${root}/files/f${this.below(FILES)}`;
      if (this.below(4) === 0) Deno.writeTextFileSync(path, "");
      else Deno.writeFileSync(path, this.random.bytes(1000 + this.below(80_000)));
    }
    this.trees.set(round, await listTree(`${root}/files`));
  }

  async records(): Promise<readonly CheckpointRecord[]> {
    return (await readHead(this.store, { cipher: plainCipher }))?.head.checkpoints ?? [];
  }

  /** A database at a TXID: it is sound, and one chain. */
  async database(name: Name, txid: number): Promise<Noted> {
    const [place, target, file] = [placeOf(name), { kind: "txid", txid } as const, this.place(name)];
    const request = { place, target, file, owner: null, mode: 0o600, check: "full" } as const;
    const { signal } = new AbortController();
    const { check } = await restoreDatabaseTo(request, { store: this.store, clock, signal });
    assert.equal(check, "passed");
    const hash = sha256Of(file);
    const rows = checkChain(file);
    for (const end of ["", "-wal", "-shm"]) await Deno.remove(file + end).catch(() => {});
    return { hash, rows };
  }

  async databases({ databases = {} }: CheckpointRecord): Promise<Readonly<Record<string, Noted>>> {
    const found: Record<string, Noted> = {};
    for (const name of NAMES) {
      const txid = databases[name]?.txid ?? 0;
      if (txid > 0) found[name] = await this.database(name, txid);
    }
    return found;
  }

  /** What each listed checkpoint's databases are, where that is not known yet. */
  async note(): Promise<void> {
    for (const record of await this.records()) {
      if (!this.noted.has(record.id)) this.noted.set(record.id, await this.databases(record));
    }
  }

  /** One that is asked for: the rows told before it are in it, and none that were told long after. */
  async checkpoint(manager: ManagerProcess, round: number): Promise<void> {
    const before = NAMES.map((name) => this.rows(name));
    const { checkpoint } = await manager.checkpoint(`round ${round}`);
    const after = NAMES.map((name) => this.rows(name));
    if (this.below(8) === 0) {
      await manager.json(`/checkpoints/${checkpoint.id}`, { method: "PATCH", json: { pinned: true } });
    }
    const found: Record<string, Noted> = {};
    for (const [index, name] of NAMES.entries()) {
      const noted = found[name] = await this.database(name, checkpoint.databases[name].txid);
      // One may be committed and not told yet.
      const [least = 0, most = 0] = [before[index], after[index]];
      assert.ok(
        noted.rows >= least && noted.rows <= most + 1,
        `${name}: ${least} <= ${noted.rows} <= ${most} + 1`,
      );
    }
    this.noted.set(checkpoint.id, found);
  }

  /** Somebody elsewhere; what is on the list all the time must come back. */
  async readElsewhere(): Promise<void> {
    const records = await this.records();
    const record = records[this.below(records.length)];
    if (record === undefined) return;
    const to = this.place("elsewhere");
    const { code, stderr } = await this.command("restore", record.id, "--to", to);
    const isListed = (await this.records()).some(({ id }) => id === record.id);
    if (code !== 0 && !isListed) return this.count("restore elsewhere of one that went");
    assert.equal(code, 0, stderr);
    await this.sameFiles(record, to);
    this.count("restore elsewhere");
  }

  async sameFiles({ n, comment }: CheckpointRecord, to: string): Promise<void> {
    const round = /^round (\d+)$/.exec(comment)?.[1];
    const tree = round === undefined ? undefined : this.trees.get(Number(round));
    if (tree !== undefined) assertSameLines(await listTree(`${to}/app`), tree, `v${n}`);
    await Deno.remove(to, { recursive: true });
  }

  /**
   * Everything that retention deletes by now is deleted. It looks once per snapshot: what only a checkpoint of `records`
   * needs, that was pruned since, may still be there.
   */
  async retained(records: readonly CheckpointRecord[]): Promise<boolean> {
    const { nowMs } = this;
    for (const name of NAMES) {
      const listed = await listReplica(this.store, placeOf(name));
      assert.deepEqual(listed.defects, []);
      const files = listed.files.map((file) => {
        const { modifiedMs } = file;
        return { ...file, modifiedMs: modifiedMs + this.#aheadAt(modifiedMs) };
      });
      const pins = records.flatMap(({ databases }) => databases?.[name]?.txid ?? []);
      const options = { pins, nowMs, retentionMs: DAY_MS };
      const { deletable, unreachablePins } = planRetention(files, options);
      assert.deepEqual(unreachablePins, [], name);
      if (deletable.length > 0 || deletableCommits(files, options).length > 0) return false;
    }
    return true;
  }

  #aheadAt(atMs: number): number {
    return this.#jumps.findLast(({ sinceMs }) => sinceMs <= atMs)?.aheadMs ?? 0;
  }

  async objects(): Promise<Record<string, number>> {
    const found: Record<string, number> = {};
    for await (const { key } of listAll(this.store, "")) {
      const kind = key.split("/").slice(0, key.startsWith("databases/") ? 3 : 2).join("/");
      found[kind] = (found[kind] ?? 0) + 1;
    }
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store.close();
    await this.#proxy.stop();
    await this.#minio.stop();
    this.#scratch[Symbol.dispose]();
  }
}

/** What a holder may answer that is being taken over, or that has something else under way. */
async function unlessAway(scene: Scene, what: string, work: Promise<Response>): Promise<void> {
  const response = await work.catch(() => null); // it is gone
  await response?.body?.cancel().catch(() => {});
  scene.count(`${what}: ${response?.status ?? "gone"}`);
  assert.notEqual(response?.status, 500);
}

async function prune(manager: ManagerProcess): Promise<Json> {
  return await waitFor("a prune", async () => {
    const response = await manager.fetch("/checkpoints/prune", { json: {} });
    const body = await response.json();
    if (response.status === 409) return null; // a checkpoint is made
    assert.equal(response.status, 200, JSON.stringify(body) + manager.tail());
    return body;
  }, LIMIT_MS);
}

Deno.test({
  name:
    "every kept checkpoint has its files and databases, 30 days after rounds of prunes beside checkpoints, restores and take-overs [needs minio] [needs faketime]",
  ignore: findMinio() === null || !hasFaketime,
  async fn() {
    const seed = Number(Deno.env.get("STATE_MANAGER_TEST_SEED") ?? Date.now() % 1_000_000);
    say(`seed ${seed}`);
    await using scene = await Scene.start(seed);
    let holder = scene.machine("machine-0");
    await using managers = new AsyncDisposableStack();
    const start = (machine: Machine) => managers.use(scene.start(machine));
    let manager = start(holder);
    await manager.state("running", LIMIT_MS);
    const grows = async () => {
      const before = NAMES.map((name) => scene.rows(name));
      const grown = () => NAMES.every((name, at) => scene.rows(name) > (before[at] ?? 0));
      await waitFor("more rows", grown, LIMIT_MS, () => manager.tail());
    };
    for (let round = 1; round <= ROUNDS; round++) {
      await grows();
      await scene.edit(holder, round);
      await scene.checkpoint(manager, round);
      await grows();
      const dies = asked !== undefined && round % 3 === 0;
      const [former, left, other] = [manager, holder, scene.machine(`machine-${round}`)];
      const next = async () => {
        if (dies) {
          await new Promise((resolve) => setTimeout(resolve, scene.below(400)));
          await former.killTree();
        }
        await scene.pass(DAYS_MS / ROUNDS);
        manager = start(other);
        await manager.state("running", LIMIT_MS);
        scene.count(dies ? "take-over of a dead one" : "hand-over");
      };
      await Promise.all([
        unlessAway(scene, "prune", former.fetch("/checkpoints/prune", { json: {} })),
        unlessAway(scene, "checkpoint", former.fetch("/checkpoint", { json: { comment: `round ${round}` } })),
        scene.readElsewhere(),
        next(),
      ]);
      if (!dies) {
        await former.state("waiting", LIMIT_MS);
        former.signal("SIGTERM");
        assert.ok([0, 143].includes(await former.exit()), former.tail());
      }
      holder = other;
      await Deno.remove(left.root, { recursive: true });
      await Promise.all([scene.readElsewhere(), prune(manager)]);
      await scene.note();
      if (round % 4 !== 0 && round !== ROUNDS) continue;
      const checked = await manager.json("/checkpoints/all/verify", { json: { level: 2 } });
      assert.equal(checked.ok, true, `round ${round}: ${JSON.stringify(checked.findings)}`);
    }
    manager.signal("SIGTERM");
    assert.ok([0, 143].includes(await manager.exit()), manager.tail());
    const before = await scene.objects();

    const listed = await scene.records();
    await scene.pass(DAYS_MS);
    manager = start(holder);
    await manager.state("running", LIMIT_MS);
    await prune(manager);
    await waitFor(
      "all that retention lets go of to be gone",
      async () => scene.retained([...listed, ...await scene.records()]),
      LIMIT_MS,
      () => manager.tail(),
    );
    await scene.note();
    const records = await scene.records();
    const check = await scene.command("checkpoint", "verify", "--all", "--level", "4", "--json");
    assert.equal(check.code, 0, check.stdout + check.stderr);
    const verified = JSON.parse(check.stdout.trimEnd().split("\n").at(-1) ?? "");
    const positions = NAMES.map((name) =>
      new Set(records.flatMap(({ databases }) => databases?.[name]?.txid ?? [])).size
    );
    assert.deepEqual(
      [verified.ok, verified.checkpoints, verified.positions_checked],
      [true, records.length, positions.reduce((sum, each) => sum + each, 0)],
    );
    for (const record of records) {
      const noted = scene.noted.get(record.id) ?? {};
      assert.deepEqual(await scene.databases(record), noted, `v${record.n}`);
      const to = scene.place("kept");
      const { code, stderr } = await scene.command("restore", record.id, "--to", to);
      assert.equal(code, 0, stderr);
      await scene.sameFiles(record, to);
    }
    manager.signal("SIGTERM");
    assert.ok([0, 143].includes(await manager.exit()), manager.tail());
    const rows = NAMES.map((name) => scene.rows(name));
    const told = { before, after: await scene.objects(), counts: scene.counts, rows, positions };
    say(
      `${ROUNDS} rounds, ${records.length} of ${scene.noted.size} checkpoints kept\n${
        JSON.stringify(told, null, 1)
      }`,
    );
    assert.ok(scene.noted.size > records.length, "nothing was pruned: the test says nothing");
  },
});
