/**
 * A manager whose follower dies at each named point while a program commits rows of one chain. At each death it is asked
 * what a machine that died then would have left: the store must give a whole database, a prefix of the chain with all
 * that a barrier confirmed. Then the manager goes on with another follower, or all is killed and started again on the
 * same disk, where no commit may be missing, or elsewhere.
 */

import assert from "node:assert/strict";
import { restoreDatabaseTo } from "../../src/database/restore_database.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { type ObjectStore } from "../../src/storage/mod.ts";
import { CallTrace, hasKilled, straceArgs } from "./call_trap.ts";
import { chainProgram, checkChain, readJournal } from "./chain.ts";
import {
  type CallTrap,
  CRASH_POINTS,
  type CrashFiles,
  type CrashPoint,
  type RequestTrap,
} from "./crash_points.ts";
import { type FaultProxy, startFaultProxy } from "./fault_proxy.ts";
import { descendants, ManagerProcess, runProgram, waitFor } from "./manager_process.ts";
import type { Minio } from "./minio.ts";
import { minioStore } from "./minio.ts";
import { signalAll } from "./signal_all.ts";

/** What follows a death. */
export type Aftermath = "follower" | "same disk" | "elsewhere";

export interface CrashDeath {
  readonly point: string;
  readonly aftermath: Aftermath;
  /** What the machine's end at that moment would have lost. */
  readonly lostRows: number;
  /** Age of the oldest of them. */
  readonly lostMs: number;
}

export interface CrashWalkOptions {
  readonly root: string;
  readonly minio: Minio;
  /** All points so often; with more than one, the later ones end whole machines too. */
  readonly rounds: number;
  readonly perSecond: number;
  readonly onDeath?: (death: CrashDeath) => void;
}

const PREFIX = "crash";
const DATABASE_KEYS = `${PREFIX}/databases/app/`;
/** Whatever a listing shows may be merged and deleted at once. */
const LISTED_AGE_MS = 3_600_000;
const LIMIT_MS = 60_000;
/** A follower's start that found nothing to do at its point is followed by another one after this. */
const START_MS = 10_000;
/** Followers that died one after the other; then the manager waits a while before it starts another one. */
const DEATHS_IN_A_ROW = 4;
/** Beyond the time for which a machine is held still and looked at; short only where another one waits for its end. */
const LEASE = { STATE_MANAGER_LEASE_TTL: "30s", STATE_MANAGER_LEASE_RENEW: "3s" };
const SHORT_LEASE = { STATE_MANAGER_LEASE_TTL: "6s", STATE_MANAGER_LEASE_RENEW: "1500ms" };

const clock = systemClock();

interface Machine {
  readonly root: string;
  readonly database: string;
  readonly data: string;
  readonly journal: string;
}

/** The moment of a death, with the machine held still. */
interface Moment {
  readonly atMs: number;
  readonly stopped: readonly number[];
}

class CrashWalk {
  readonly #options: CrashWalkOptions;
  readonly #proxy: FaultProxy;
  readonly #store: ObjectStore;
  readonly deaths: CrashDeath[] = [];
  #machines = 0;
  #logs = 0;
  #machine: Machine;
  manager: ManagerProcess;
  /** Newest row that a barrier has confirmed. */
  #confirmed = 0;
  #inARow = 0;

  constructor(options: CrashWalkOptions) {
    this.#options = options;
    const { minio } = options;
    this.#proxy = startFaultProxy(minio.endpoint, { listedAgeMs: LISTED_AGE_MS });
    this.#store = minioStore(minio, PREFIX);
    this.#machine = this.#newMachine();
    this.manager = this.#start();
  }

  #newMachine(): Machine {
    const root = `${this.#options.root}/m${++this.#machines}`;
    Deno.mkdirSync(`${root}/db`, { recursive: true });
    const machine = { root, database: `${root}/db/app.db`, data: `${root}/data`, journal: `${root}/journal` };
    const { minio, perSecond } = this.#options;
    const { database, journal } = machine;
    const config = {
      storage: {
        ...{ bucket: minio.bucket, endpoint: this.#proxy.endpoint, region: "us-east-1", key_prefix: PREFIX },
        ...{ access_key: minio.accessKey, secret_key: minio.secretKey },
      },
      databases: {
        app: {
          path: database,
          ...{ sync_interval: "200ms", snapshot_interval: "1m", retention: "1m", drill_interval: "0s" },
        },
      },
      processes: { writer: { command: chainProgram({ database, journal, perSecond }), restart: "always" } },
    };
    Deno.writeTextFileSync(`${root}/config.json`, JSON.stringify(config), { mode: 0o600 });
    return machine;
  }

  #start(wrap: readonly string[] = []): ManagerProcess {
    const { root, data } = this.#machine;
    this.#inARow = 0;
    const args = ["--config", `${root}/config.json`, "--data-dir", data];
    return new ManagerProcess({ args, env: this.#options.rounds > 1 ? SHORT_LEASE : LEASE, wrap });
  }

  get #told() {
    return readJournal(this.#machine.journal);
  }

  /** The program runs, after so many starts before; gives the row that it found. */
  async running(starts: number): Promise<number> {
    const told = await waitFor(
      "the program to commit",
      () => this.#told.starts.length > starts && this.#told.rows.length > 0 ? this.#told : null,
      LIMIT_MS,
      () => this.manager.tail(),
    );
    return told.starts.at(-1) ?? 0;
  }

  async barrier(): Promise<void> {
    const newest = this.#told.rows.at(-1)?.n ?? 0;
    const signal = AbortSignal.timeout(LIMIT_MS);
    await this.manager.json("/databases/app/sync", { method: "POST", signal });
    this.#confirmed = Math.max(this.#confirmed, newest);
  }

  /** All points but those of a manager's life. */
  async followerDies(point: CrashPoint, aftermath: Aftermath): Promise<void> {
    await this.barrier();
    const { trap } = point;
    const moment = trap.by === "request"
      ? await this.#diesOnRequest(point, trap)
      : await this.#diesOnCall(point, trap);
    const lost = await this.#look(point.name, moment);
    const death: CrashDeath = { point: point.name, aftermath, ...lost };
    this.#inARow += point.life === "running" ? 1 : 2;
    await this.#goOn(aftermath, moment);
    this.#died(death);
  }

  #died(death: CrashDeath): void {
    this.deaths.push(death);
    this.#options.onDeath?.(death);
  }

  get isTired(): boolean {
    return this.#inARow >= DEATHS_IN_A_ROW;
  }

  #pidOf(word: string): number | null {
    return descendants(this.manager.pid).find((pid) => {
      try {
        return Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0").includes(word);
      } catch {
        return false; // gone meanwhile
      }
    }) ?? null;
  }

  async #follower(): Promise<number> {
    const tail = () => this.manager.tail();
    return await waitFor("a follower", () => this.#pidOf("__follow"), LIMIT_MS, tail);
  }

  /** At once, in one turn. */
  #holdStill(): Moment {
    const atMs = clock.monotonicMs();
    const follower = this.#pidOf("__follow");
    const stopped = [this.manager.pid, ...(follower === null ? [] : [follower])];
    signalAll(stopped, "SIGSTOP");
    return { atMs, stopped };
  }

  #killFollower(): void {
    const pid = this.#pidOf("__follow");
    if (pid !== null) signalAll([pid], "SIGKILL");
  }

  /** A follower that begins, where the point is in its start. */
  async #provoke({ life }: CrashPoint, isOver = () => false): Promise<void> {
    if (life === "running") return;
    const tail = () => this.manager.tail();
    await waitFor(
      "a follower",
      () => isOver() || this.#pidOf("__follow") !== null ? true : null,
      LIMIT_MS,
      tail,
    );
    if (isOver()) return;
    this.#killFollower();
    // Before the next one reads it.
    if (life === "start-unknown") Deno.removeSync(`${this.#machine.data}/databases/app/position.json`);
  }

  async #diesOnRequest(point: CrashPoint, { operation, under, when, inDoubt }: RequestTrap): Promise<Moment> {
    const struck = Promise.withResolvers<Moment>();
    const rule = { ...(operation === undefined ? {} : { operation }), keyPrefix: DATABASE_KEYS + under };
    const trap = this.#proxy.fail({
      ...{ ...rule, reset: true, when: when ?? "before" },
      onStrike: () => {
        this.#killFollower();
        struck.resolve(this.#holdStill());
      },
    });
    const doubt = inDoubt !== true ? null : this.#proxy.fail({
      ...{ operation: "put", keyPrefix: DATABASE_KEYS + under, reset: true, when: "after" },
    });
    try {
      return await this.#within(point, this.#provoked(point, struck.promise));
    } finally {
      trap.end();
      doubt?.end();
    }
  }

  /**
   * Starts followers until one is struck. One alone may have nothing to merge or to delete: the one before it has done
   * all of it already, and whatever it has put itself is not old enough.
   */
  async #provoked(point: CrashPoint, struck: Promise<Moment>): Promise<Moment> {
    if (point.life === "running") return await struck;
    let isOver = false;
    const noted = struck.then((moment) => {
      isOver = true;
      return moment;
    });
    const end = clock.monotonicMs() + LIMIT_MS;
    while (!isOver && clock.monotonicMs() < end) {
      await this.#provoke(point, () => isOver);
      const waited = new AbortController();
      await Promise.race([noted, clock.sleep(START_MS, { signal: waited.signal }).catch(() => {})]);
      waited.abort();
      if (!isOver) this.#inARow++;
    }
    return await noted;
  }

  async #diesOnCall(point: CrashPoint, { calls, paths, nth, then }: CallTrap): Promise<Moment> {
    const { databases: [status] } = await this.manager.json("/databases");
    const files: CrashFiles = { ...this.#machine, txid: status.txid ?? status.durable_txid };
    const follower = await this.#follower();
    const pid = point.life === "running" ? follower : this.manager.pid;
    const first = { calls, paths: paths(files), ...(nth === undefined ? {} : { nth }) };
    const isOver = (trace: CallTrace, what: "hasKilled" | "hasStopped") =>
      this.#within(point, soon(() => trace[what] ? this.#holdStill() : null));
    if (then === undefined) {
      await using trace = await CallTrace.attach(pid, first, this.#log());
      await this.#provoke(point);
      return await isOver(trace, "hasKilled");
    }
    {
      await using trace = await CallTrace.attach(pid, first, this.#log(), "SIGSTOP");
      await this.#within(point, soon(() => trace.hasStopped ? true : null));
    }
    const second = { calls: then.calls, paths: then.paths(files) };
    await using trace = await CallTrace.attach(pid, second, this.#log());
    signalAll([pid], "SIGCONT");
    return await isOver(trace, "hasKilled");
  }

  #log(): string {
    return `${this.#options.root}/strace-${++this.#logs}`;
  }

  async #within<T>({ name }: CrashPoint, death: Promise<T>): Promise<T> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(new Error(`nobody has died at ${name}\n${this.manager.tail()}`)),
      LIMIT_MS,
    );
    try {
      return await Promise.race([death, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** What the store has at this moment. */
  async #look(name: string, { atMs }: Moment): Promise<{ lostRows: number; lostMs: number }> {
    const told = this.#told.rows.filter((row) => row.atMs <= atMs);
    const file = `${this.#options.root}/look.db`;
    await restoreDatabaseTo(
      {
        ...{ place: { layout: "bucket", name: "app" }, target: { kind: "newest" } },
        ...{ file, owner: null, mode: 0o600, check: "none" },
      },
      { store: this.#store, clock, signal: new AbortController().signal },
    );
    const length = checkChain(file);
    await Deno.remove(file);
    assert.ok(length >= this.#confirmed, `${name}: ${length} rows, a barrier confirmed ${this.#confirmed}`);
    const lost = told.filter(({ n }) => n > length);
    return { lostRows: lost.length, lostMs: Math.max(0, atMs - (lost[0]?.atMs ?? atMs)) };
  }

  async #goOn(aftermath: Aftermath, { stopped }: Moment): Promise<void> {
    if (aftermath === "follower") {
      signalAll(stopped, "SIGCONT");
      return;
    }
    await this.manager.killTree();
    const { starts, rows } = this.#told;
    if (aftermath === "elsewhere") this.#machine = this.#newMachine();
    this.manager = this.#start();
    const found = await this.running(aftermath === "elsewhere" ? 0 : starts.length);
    // On the same disk nothing is missing that the program was told is committed.
    const wanted = aftermath === "elsewhere" ? this.#confirmed : rows.at(-1)?.n ?? 0;
    assert.ok(found >= wanted, `${aftermath}: ${found} rows came back, wanted ${wanted}`);
  }

  /** Another machine takes over after a release in order; it dies at one point after the other before it runs. */
  async takeOver(): Promise<void> {
    await this.stop();
    const wanted = this.#confirmed;
    this.#machine = this.#newMachine();
    for (const point of CRASH_POINTS.filter(({ life }) => life === "take-over")) {
      if (point.trap.by === "call") await this.#managerDiesOnCall(point, point.trap);
      else await this.#managerDiesOnRequest(point, point.trap);
      this.#died({ point: point.name, aftermath: "same disk", lostRows: 0, lostMs: 0 });
    }
    await this.#dieInSeal();
    const found = await this.running(0);
    assert.equal(found, wanted, "rows that a stop in order left");
    assert.ok(checkChain(this.#machine.database, { readOnly: true }) >= found);
  }

  async #managerDiesOnRequest(point: CrashPoint, { operation, under, when }: RequestTrap): Promise<void> {
    const struck = Promise.withResolvers<Promise<void>>();
    const trap = this.#proxy.fail({
      ...(operation === undefined ? {} : { operation }),
      ...{ keyPrefix: DATABASE_KEYS + under, reset: true, when: when ?? "before" },
      onStrike: () => struck.resolve(this.manager.killTree()),
    });
    this.manager = this.#start();
    await this.#within(point, struck.promise);
    trap.end();
  }

  async #managerDiesOnCall(point: CrashPoint, { calls, paths }: CallTrap): Promise<void> {
    const log = this.#log();
    const traced = { calls, paths: paths({ ...this.#machine, txid: 0 }) };
    this.manager = this.#start(["strace", "-D", ...straceArgs(traced, log)]);
    await this.#within(point, soon(() => hasKilled(log) ? true : null));
    await this.manager.killTree();
  }

  /** Its follower dies before its first slot, and the next one after it. */
  async #dieInSeal(): Promise<void> {
    const points = CRASH_POINTS.filter(({ life }) => life === "seal");
    const deaths = points.map(({ trap }, index) => {
      assert.ok(trap.by === "request");
      const struck = Promise.withResolvers<void>();
      const rule = { operation: trap.operation ?? "put", keyPrefix: DATABASE_KEYS + trap.under } as const;
      const fault = this.#proxy.fail({
        ...{ ...rule, nth: index + 1, reset: true, when: trap.when ?? "before" },
        onStrike: () => {
          this.#killFollower();
          struck.resolve();
        },
      });
      return { fault, struck: struck.promise };
    });
    this.manager = this.#start();
    for (const [index, point] of points.entries()) {
      await this.#within(point, deaths[index]?.struck ?? Promise.resolve());
      assert.equal(this.#told.starts.length, 0, "no program before the seal");
      this.#died({ point: point.name, aftermath: "follower", lostRows: 0, lostMs: 0 });
    }
    for (const { fault } of deaths) fault.end();
  }

  /** After the end: the same machine once more. */
  async again(): Promise<void> {
    const { starts } = this.#told;
    this.manager = this.#start();
    await this.running(starts.length);
  }

  /** The program is stopped; what it has committed last is then in the store. */
  async stop(): Promise<void> {
    this.manager.signal("SIGTERM");
    assert.equal(await this.manager.exit(LIMIT_MS), 0, this.manager.tail());
    this.#confirmed = this.#told.rows.at(-1)?.n ?? 0;
  }

  /** The follower dies as it lets go of the database; another one ends its work. */
  async end(): Promise<void> {
    for (const point of CRASH_POINTS.filter(({ life }) => life === "end")) {
      assert.ok(point.trap.by === "call");
      const { calls, paths } = point.trap;
      const log = this.#log();
      await using _trace = await CallTrace.attach(
        await this.#follower(),
        { calls, paths: paths({ ...this.#machine, txid: 0 }) },
        log,
      );
      await this.stop();
      assert.ok(hasKilled(log), `nobody has died at ${point.name}`);
      this.#died({ point: point.name, aftermath: "follower", lostRows: 0, lostMs: 0 });
    }
    const to = `${this.#options.root}/end.db`;
    const { root } = this.#machine;
    const args = ["db", "restore", "app", "--config", `${root}/config.json`, "--to", to];
    const done = await runProgram(args);
    assert.equal(done.code, 0, done.stderr);
    assert.equal(checkChain(to), this.#confirmed, "the chain, whole");
    await Deno.remove(to);
    assert.equal(checkChain(this.#machine.database), this.#confirmed);
  }

  async close(): Promise<void> {
    await this.manager.killTree().catch(() => {});
    await this.#proxy.stop();
    await this.#store.close();
  }
}

/** Looks at short intervals; for whoever bounds the wait. */
async function soon<T>(look: () => T | null): Promise<T> {
  for (;;) {
    const found = look();
    if (found !== null) return found;
    await clock.sleep(3);
  }
}

/** Round after round: on with another follower, on the same disk, elsewhere. In the first, only where it must be. */
function aftermathOf(round: number, index: number, isTired: boolean): Aftermath {
  const all: readonly Aftermath[] = ["follower", "same disk", "elsewhere"];
  const wanted = round === 0 ? "follower" : all[(round + index) % all.length] ?? "follower";
  return wanted === "follower" && isTired ? "same disk" : wanted;
}

/** Leaves nothing running. */
export async function walkOfCrashPoints(options: CrashWalkOptions): Promise<readonly CrashDeath[]> {
  const walk = new CrashWalk(options);
  try {
    await walk.running(0);
    const points = CRASH_POINTS.filter(({ life }) => life === "running" || life.startsWith("start"));
    for (let round = 0; round < options.rounds; round++) {
      for (const [index, point] of points.entries()) {
        await walk.followerDies(point, aftermathOf(round, index, walk.isTired));
      }
      await walk.takeOver();
      await walk.end();
      if (round + 1 < options.rounds) await walk.again();
    }
    return walk.deaths;
  } catch (error) {
    throw new Error(`after ${walk.deaths.length} deaths: ${error}`, { cause: error });
  } finally {
    await walk.close();
  }
}
