/**
 * `deno task bench replication`: 500 small transactions a second on MinIO, in one run: a program alone,
 * below State Manager without and with its database, beside the real `litestream replicate`; then a large database, replicated and restored by both.
 * `--seconds 300` (0: none), `--rate 500`, `--turns 3` (0: none), `--turn-seconds 20`, `--restore-mib 500` (0: none),
 * `--rounds 3` (of restores). The binary is STATE_MANAGER_BINARY, else the source. Both tools have their defaults: a sync
 * each second.
 *
 * What is measured, for both alike and from outside:
 * - Commit latency: how long the application's INSERT with its commit took, in the application. It is judged in turns
 *   (replication_turns.ts); what the windows say of it, one after the other, holds the drift of the machine too.
 * - Lag of a row: from when its commit returned to when the store began to acknowledge the first level-0 file that
 *   holds it or a later one. The proxy sees the acknowledgement, and the file itself, read past the proxy, says which
 *   row is its newest. So it counts what a machine's death at that moment would have lost, whatever the tool believes.
 * - CPU: user and system time of the processes that replicate, over the window; of State Manager the manager, its guard
 *   and its follower, and those children of theirs that ended. What it takes without a database (lease, supervision, API,
 *   the same questions) is measured before, over 100 seconds at most, and taken off: the rest is for replication.
 * - Memory: Rss and Pss of /proc/PID/smaps_rollup, once a second; "flat" compares the ends of the window.
 * - Requests and bytes: whole requests and answers on the wire, over the window, those for lease and head too.
 * - The log: the largest size of the -wal file.
 * What State Manager itself says of its lag is asked every ten seconds only: each question costs CPU that counts.
 */

import { parseArgs } from "node:util";
import { DatabaseSync } from "node:sqlite";
import { systemClock } from "../src/platform/clock.ts";
import { listAll, type ObjectStore } from "../src/storage/mod.ts";
import { checkChain } from "../tests/support/chain.ts";
import { scratchFolder, waitFor } from "../tests/support/manager_process.ts";
import { type Minio, minioStore, startMinio } from "../tests/support/minio.ts";
import { output, programCommand } from "./programs.ts";
import { cpuSeconds, fileBytes, type Memory, memoryOf, newestRow, quantile } from "./replication_probe.ts";
import { startCountingProxy, type StoredObject, type Traffic, trafficBetween } from "./replication_proxy.ts";
import {
  alone,
  litestreamVersion,
  ours,
  type Running,
  type Scene,
  type Subject,
  supervised,
  theirs,
} from "./replication_subjects.ts";
import { type Aim, figure, say, sayTable, type Table } from "./replication_table.ts";
import { orderOf, type Turn, turnsTable } from "./replication_turns.ts";
import type { WriterOptions, WriterResult } from "./replication_writer.ts";

const WARM_UP_SECONDS = 8;
/** It does the same all the time. */
const SUPERVISED_SECONDS = 100;
const MEMORY_INTERVAL_MS = 1000;
/** A quick scraper of metrics; every two seconds, a tenth of all our CPU would be for the answers. */
const LAG_INTERVAL_MS = 10_000;
const LOG_INTERVAL_MS = 100;
/** Beyond the window: for start, restore and the last rows. */
const LIMIT_MS = 90_000;

const clock = systemClock();
const root = new URL("../", import.meta.url).pathname;

interface Load {
  readonly seconds: number;
  readonly perSecond: number;
}

interface Measured {
  readonly transactions: number;
  readonly tookMs: readonly number[];
  /** Of each row; empty when alone. */
  readonly lagMs: readonly number[];
  /** Level-0 files in the window that were gone before they were read. */
  readonly unread: number;
  readonly saidLagMs: readonly number[];
  readonly cpu: number;
  readonly workerCpu: number;
  readonly memory: readonly Memory[];
  readonly logBytes: number;
  readonly traffic: Traffic;
  /** The part that is for files of the database. */
  readonly databaseTraffic: Traffic;
}

function writerCommand(options: WriterOptions): string[] {
  const run = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", "--config", `${root}deno.json`];
  return [...run, `${root}bench/replication_writer.ts`, JSON.stringify(options)];
}

/** Every level-0 file with its newest row, in the order of acknowledgement. */
class Arrivals {
  readonly #store: ObjectStore;
  readonly #bucket: string;
  readonly #reads: Promise<void>[] = [];
  readonly found: { readonly row: number; readonly atMs: number }[] = [];
  unread = 0;

  constructor(store: ObjectStore, bucket: string) {
    this.#store = store;
    this.#bucket = bucket;
  }

  see({ path, atMs }: StoredObject): void {
    if (!/\/0000\/[0-9a-f]{16}-[0-9a-f]{16}\.ltx$/.test(path)) return;
    this.#reads.push(this.#read(path.slice(this.#bucket.length + 2), atMs));
  }

  async #read(key: string, atMs: number): Promise<void> {
    try {
      const { body } = await this.#store.get(key);
      this.found.push({ row: newestRow(body), atMs });
    } catch {
      this.unread++;
    }
  }

  newest(): number {
    return this.found.reduce((newest, { row }) => Math.max(newest, row), 0);
  }

  async settled(): Promise<void> {
    await Promise.all(this.#reads);
  }

  /** How long after its commit each row was in the store. */
  lags({ firstRow, committedMs }: WriterResult): number[] {
    const lags: number[] = [];
    let next = 0;
    for (const { row, atMs } of this.found.toSorted((a, b) => a.atMs - b.atMs)) {
      for (; next < committedMs.length && firstRow + next <= row; next++) {
        lags.push(atMs - (committedMs[next] ?? NaN));
      }
    }
    return lags;
  }
}

/** Looks at intervals until it is stopped. */
function every(ms: number, look: () => unknown): { stop(): Promise<void> } {
  let stopped = false;
  const running = (async () => {
    while (!stopped) {
      await look();
      await clock.sleep(ms);
    }
  })();
  return {
    stop: () => {
      stopped = true;
      return running;
    },
  };
}

interface Look {
  readonly cpu: number;
  readonly workerCpu: number;
  readonly traffic: Traffic;
  readonly databaseTraffic: Traffic;
}

async function measure(subject: Subject, minio: Minio, load: Load): Promise<Measured> {
  using scratch = scratchFolder();
  const home = scratch.path;
  const store = minioStore(minio);
  const arrivals = new Arrivals(store, minio.bucket);
  await using proxy = startCountingProxy(minio.endpoint, clock, (object) => arrivals.see(object));
  await Deno.mkdir(`${home}/db`);
  const database = `${home}/db/app.db`;
  const scene: Scene = { home, database, endpoint: proxy.endpoint, minio };
  const { seconds, perSecond } = load;
  const options = { database, folder: home, perSecond, warmUpSeconds: WARM_UP_SECONDS, seconds };
  await using running = await subject.start(scene, writerCommand(options));
  await waitFor(
    "the window to begin",
    () => exists(`${home}/begun`),
    LIMIT_MS,
  );
  const look = (): Look => ({
    cpu: running.pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0),
    workerCpu: running.workerPid === null ? 0 : cpuSeconds(running.workerPid),
    traffic: proxy.traffic(() => true),
    databaseTraffic: proxy.traffic((path) => /\/[0-9a-f]{4}\/|\/databases\//.test(path)),
  });
  const first = look();
  const samples = new Samples(running, database);
  const resultPath = `${home}/result.json`;
  await waitFor("the window to end", () => exists(resultPath), seconds * 1000 + LIMIT_MS);
  const second = look();
  await samples.stop();
  const result: WriterResult = JSON.parse(await Deno.readTextFile(resultPath));
  const lastRow = result.firstRow + result.committedMs.length - 1;
  if (subject.replicates) {
    await waitFor(`row ${lastRow} in the store`, () => arrivals.newest() >= lastRow, LIMIT_MS);
  }
  await running.stop();
  await arrivals.settled();
  if (subject.replicates) await checkRestore(subject, { ...scene, endpoint: minio.endpoint });
  return {
    transactions: result.committedMs.length,
    tookMs: result.tookMs,
    lagMs: arrivals.lags(result),
    unread: arrivals.unread,
    saidLagMs: samples.saidLagMs,
    cpu: second.cpu - first.cpu,
    workerCpu: second.workerCpu - first.workerCpu,
    memory: samples.memory,
    logBytes: samples.logBytes,
    traffic: trafficBetween(first.traffic, second.traffic),
    databaseTraffic: trafficBetween(first.databaseTraffic, second.databaseTraffic),
  };
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** What is measured must be a replica: its own restore gives all that was committed. */
async function checkRestore(subject: Subject, scene: Scene): Promise<void> {
  const to = `${scene.home}/restored.db`;
  await subject.restore(scene, to);
  const [rows, wanted] = [checkChain(to), checkChain(scene.database)];
  if (rows !== wanted) throw new Error(`${subject.name}: ${rows} rows restored, ${wanted} were committed`);
}

class Samples {
  readonly memory: Memory[] = [];
  readonly saidLagMs: number[] = [];
  logBytes = 0;
  readonly #looks: { stop(): Promise<void> }[];

  constructor(running: Running, database: string) {
    const { workerPid } = running;
    this.#looks = [every(LOG_INTERVAL_MS, () => {
      this.logBytes = Math.max(this.logBytes, fileBytes(`${database}-wal`));
    })];
    this.#looks.push(every(MEMORY_INTERVAL_MS, () => {
      const memory = workerPid === null ? null : memoryOf(workerPid);
      if (memory !== null) this.memory.push(memory);
    }));
    this.#looks.push(every(LAG_INTERVAL_MS, async () => {
      const lag = await running.lagSeconds();
      if (lag !== null) this.saidLagMs.push(lag * 1000);
    }));
  }

  async stop(): Promise<void> {
    await Promise.all(this.#looks.map((look) => look.stop()));
  }
}

const mib = (bytes: number) => bytes / 2 ** 20;
const kib = (bytes: number) => bytes / 2 ** 10;

/** Mean of the first and last tenth of the window. */
function ends(memory: readonly Memory[]): string {
  const part = Math.max(1, Math.floor(memory.length / 10));
  const mean = (some: readonly Memory[]) => some.reduce((sum, { pss }) => sum + pss, 0) / some.length;
  return `${figure(mib(mean(memory.slice(0, part))))} → ${figure(mib(mean(memory.slice(-part))))}`;
}

/** State Manager's figure, and Litestream's. */
type AimOf = (our: number, their: number) => Aim;

const noMore = (our: number, their: number): Aim => ({ text: "≤ litestream", isMet: our <= their });

interface Runs {
  readonly none: Measured;
  /** CPU of `supervised`, scaled to the window. */
  readonly supervisedCpu: number;
  readonly our: Measured;
  readonly their: Measured;
}

function loadTable({ none, supervisedCpu, our, their }: Runs, load: Load): Table {
  const per = (of: (run: Measured) => number) => (run: Measured) => of(run) / run.transactions * 1000;
  const peak = (of: (memory: Memory) => number) => (run: Measured) => mib(Math.max(...run.memory.map(of)));
  const row = (name: string, of: (run: Measured) => number, aim?: AimOf) => ({
    name,
    cells: [of(none), of(our), of(their)],
    ...(aim === undefined ? {} : { aim: aim(of(our), of(their)) }),
  });
  const replica = (name: string, of: (run: Measured) => number, aim?: AimOf) => ({
    ...row(name, of, aim),
    cells: [null, of(our), of(their)],
  });
  return {
    title: `${load.perSecond} transactions a second for ${load.seconds} s`,
    columns: ["alone", ours.name, theirs.name],
    rows: [
      row("transactions", ({ transactions }) => transactions),
      row("commit latency p50, ms", ({ tookMs }) => quantile(tookMs, 0.5)),
      row("commit latency p99, ms", ({ tookMs }) => quantile(tookMs, 0.99)),
      row("commit latency p99.9, ms", ({ tookMs }) => quantile(tookMs, 0.999)),
      row("commit latency most, ms", ({ tookMs }) => quantile(tookMs, 1)),
      replica("lag p50, ms", ({ lagMs }) => quantile(lagMs, 0.5), noMore),
      replica(
        "lag p99, ms",
        ({ lagMs }) => quantile(lagMs, 0.99),
        (a, b) => ({ text: "≤ litestream, < 2000", isMet: a <= b && a < 2000 }),
      ),
      replica("lag most, ms", ({ lagMs }) => quantile(lagMs, 1)),
      { name: "lag as it says p50, ms", cells: [null, quantile(our.saidLagMs, 0.5), null] },
      { name: "lag as it says p99, ms", cells: [null, quantile(our.saidLagMs, 0.99), null] },
      replica("CPU, s", ({ cpu }) => cpu),
      replica("  of it the follower, s", ({ workerCpu }) => workerCpu),
      { name: "  without a database, s", cells: [null, supervisedCpu, null] },
      {
        name: "  for replication, s",
        cells: [null, our.cpu - supervisedCpu, their.cpu],
        aim: noMore(our.cpu - supervisedCpu, their.cpu),
      },
      replica(
        "peak RSS of the follower, MiB",
        peak(({ rss }) => rss),
        (a) => ({ text: "< 120", isMet: a < 120 }),
      ),
      replica("peak PSS of the follower, MiB", peak(({ pss }) => pss)),
      { name: "  PSS at first → at last, MiB", cells: [null, ends(our.memory), ends(their.memory)] },
      row("largest log, MiB", ({ logBytes }) => mib(logBytes)),
      replica("requests per 1,000", per(({ traffic }) => traffic.requests)),
      replica("  for the database's files", per(({ databaseTraffic }) => databaseTraffic.requests)),
      replica(
        "KiB sent per 1,000",
        per(({ traffic }) => kib(traffic.sentBytes)),
        (a, b) => ({ text: "≤ 1.5 × litestream", isMet: a <= 1.5 * b }),
      ),
      replica("KiB received per 1,000", per(({ traffic }) => kib(traffic.receivedBytes))),
      { name: "requests by kind", cells: [null, kinds(our), kinds(their)] },
      ...(our.unread + their.unread > 0 ? [replica("files not read in time", ({ unread }) => unread)] : []),
    ],
  };
}

/** Everything is new in each turn: database, data folder, what is in the bucket. */
async function measureTurns(minio: Minio, load: Load, rounds: number): Promise<Table> {
  const subjects = [alone, ours, theirs] as const;
  const store = minioStore(minio);
  const turns = new Map<Subject, Turn[]>(subjects.map((subject) => [subject, []]));
  for (let round = 0; round < rounds; round++) {
    for (const subject of orderOf(subjects, round)) {
      if (subject.replicates) await removeAll(store, subject.prefix);
      await output(["sync"]);
      const { tookMs } = await measure(subject, minio, load);
      turns.get(subject)?.push(tookMs);
    }
  }
  const of = (subject: Subject) => turns.get(subject) ?? [];
  return turnsTable([alone.name, ours.name, theirs.name], [of(alone), of(ours), of(theirs)], load);
}

function kinds({ traffic }: Measured): string {
  return Object.entries(traffic.kinds).filter(([, n]) => n > 0).toSorted(([, a], [, b]) => b - a)
    .map(([kind, n]) => `${kind} ${n}`).join(", ");
}

/** Half of each row compresses, half does not. */
function makeLarge(path: string, bytes: number): void {
  const database = new DatabaseSync(path);
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF");
  database.exec("CREATE TABLE data (n INTEGER PRIMARY KEY, noise BLOB NOT NULL, text TEXT NOT NULL)");
  const insert = database.prepare(`
    WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
    INSERT INTO data (noise, text) SELECT randomblob(500), hex(randomblob(125)) || hex(zeroblob(125)) FROM n`);
  while (fileBytes(path) < bytes) {
    insert.run();
    database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  }
  database.close();
}

async function restoreTable(minio: Minio, bytes: number, rounds: number): Promise<Table> {
  using scratch = scratchFolder();
  const subjects = [ours, theirs];
  const scenes = subjects.map((subject): Scene => {
    const home = `${scratch.path}/${subject.name}`;
    Deno.mkdirSync(`${home}/db`, { recursive: true });
    return { home, database: `${home}/db/app.db`, endpoint: minio.endpoint, minio };
  });
  const [first, second] = scenes;
  if (first === undefined || second === undefined) throw new Error("two scenes were made");
  makeLarge(first.database, bytes);
  await Deno.copyFile(first.database, second.database);
  const size = fileBytes(first.database);
  const seconds = async (action: () => Promise<void>) => {
    const begin = clock.monotonicMs();
    await action();
    return (clock.monotonicMs() - begin) / 1000;
  };
  const store = minioStore(minio);
  const replicated: number[] = [];
  const stored: number[] = [];
  const restored: number[][] = [[], []];
  for (const [at, subject] of subjects.entries()) {
    const scene = scenes[at] ?? first;
    await removeAll(store, subject.prefix);
    await output(["sync"]);
    replicated.push(await seconds(() => subject.once(scene)));
    let sum = 0;
    for await (const { sizeBytes } of listAll(store, `${subject.prefix}/`)) sum += sizeBytes;
    stored.push(sum);
  }
  for (let round = 0; round < rounds; round++) {
    // Who goes first changes, so that neither has the warmer disk each time.
    for (const at of round % 2 === 0 ? [0, 1] : [1, 0]) {
      const [subject, scene] = [subjects[at] ?? ours, scenes[at] ?? first];
      const to = `${scratch.path}/restored.db`;
      await output(["sync"]);
      restored[at]?.push(await seconds(() => subject.restore(scene, to)));
      await output(["cmp", scene.database, to]);
      await Deno.remove(to);
    }
  }
  const medians = restored.map((times) => quantile(times, 0.5));
  return {
    title: `a database of ${figure(mib(size))} MiB`,
    columns: ["", ours.name, theirs.name],
    rows: [
      { name: "replicated at once, s", cells: [null, ...replicated] },
      { name: "size in the store, MiB", cells: [null, ...stored.map(mib)] },
      {
        name: `restored, s (median of ${rounds})`,
        cells: [null, ...medians],
        aim: noMore(medians[0] ?? NaN, medians[1] ?? NaN),
      },
    ],
  };
}

async function removeAll(store: ObjectStore, prefix: string): Promise<void> {
  const keys: string[] = [];
  for await (const { key } of listAll(store, `${prefix}/`)) keys.push(key);
  for (const key of keys) await store.delete(key);
}

/** `args`: what follows the benchmark's name. */
export async function benchReplication(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seconds: { type: "string", default: "60" },
      rate: { type: "string", default: "500" },
      turns: { type: "string", default: "3" },
      "turn-seconds": { type: "string", default: "20" },
      "restore-mib": { type: "string", default: "500" },
      rounds: { type: "string", default: "3" },
    },
  });
  const load = { seconds: Number(values.seconds), perSecond: Number(values.rate) };
  const minio = await startMinio();
  if (minio === null) throw new Error("start MinIO: not found (STATE_MANAGER_TEST_MINIO names it)");
  try {
    const version = await output(programCommand(["version"]));
    say(
      `${version} (${
        programCommand([])[0]
      }) beside litestream ${await litestreamVersion()}, one MinIO, one run`,
    );
    if (load.seconds > 0) {
      const none = await measure(alone, minio, load);
      const seconds = Math.min(load.seconds, SUPERVISED_SECONDS);
      const { cpu } = await measure(supervised, minio, { ...load, seconds });
      const supervisedCpu = cpu / seconds * load.seconds;
      const our = await measure(ours, minio, load);
      const their = await measure(theirs, minio, load);
      sayTable(loadTable({ none, supervisedCpu, our, their }, load));
    }
    const rounds = Number(values.turns);
    const turn = { ...load, seconds: Number(values["turn-seconds"]) };
    if (rounds > 0) sayTable(await measureTurns(minio, turn, rounds));
    const bytes = Number(values["restore-mib"]) * 2 ** 20;
    if (bytes > 0) sayTable(await restoreTable(minio, bytes, Number(values.rounds)));
  } finally {
    await minio.stop();
  }
}

if (import.meta.main) await benchReplication(Deno.args);
