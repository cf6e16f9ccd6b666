/**
 * One random life of a replicated database: programs that write, checkpoint, die and come back, a follower that ends in
 * and out of order, time that passes. At some points everybody pauses, and what the source holds is kept by its TXID.
 */

import assert from "node:assert/strict";
import process from "node:process";
import type { Content, ReplicatedDatabase } from "./replicated_database.ts";
import { contentOf, DAY_MS, takeDump } from "./replicated_database.ts";
import { type Statements, statementsOf } from "./replication_statements.ts";
import { SqliteShell } from "./sqlite_shell.ts";

const PAGE_SIZES = [512, 1024, 4096, 4096, 16384, 65536] as const;
/** Two programs wait for each other's locks, or a transaction that was to be ended is none: a program's life. */
const EXPECTED =
  /locked|busy|no transaction is active|no such savepoint|no such table|already exists|duplicate/;
const PINS = 2;

function isFrom(version: string, wanted: number): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > 3 || minor >= wanted;
}

/** The processes of all histories, one after the other: starting one takes longer than a history's step. */
export class HistoryPrograms implements AsyncDisposable {
  readonly writers = [new SqliteShell(), new SqliteShell(), new SqliteShell()];
  readonly reader = new SqliteShell();
  /** Not of the application: takes copies. */
  readonly observer = new SqliteShell();
  /**
   * Going back to a savepoint in a transaction that was spilled: an old SQLite writes a log then that none but itself
   * can read, which a follower with a SQLite before 3.51 does not notice.
   */
  readonly undoesSpilled: boolean;

  private constructor(undoesSpilled: boolean) {
    this.undoesSpilled = undoesSpilled;
  }

  static async start(): Promise<HistoryPrograms> {
    await using shell = new SqliteShell();
    const [theirs = ""] = await shell.must("SELECT sqlite_version();");
    return new HistoryPrograms(isFrom(theirs, 50) || isFrom(process.versions["sqlite"] ?? "", 51));
  }

  async replace(index: number): Promise<void> {
    await this.writers[index]?.kill();
    this.writers[index] = new SqliteShell();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const shell of [...this.writers, this.reader, this.observer]) await shell.kill();
  }
}

export class ReplicationHistory {
  readonly pageSize: number;
  /** What happened, for whoever has to find out why. */
  readonly done: string[] = [];
  /** TXID → what the source held. */
  readonly kept = new Map<number, Content>();
  readonly #database: ReplicatedDatabase;
  readonly #programs: HistoryPrograms;
  readonly #folder: string;
  readonly #random: () => number;
  readonly #statements: Statements;
  readonly #autoVacuum: number;
  readonly #openWriters = new Set<number>();
  /** The one with a transaction that stays open. */
  #unfinished: number | null = null;
  #reads = false;

  constructor(database: ReplicatedDatabase, programs: HistoryPrograms, folder: string, random: () => number) {
    this.#database = database;
    this.#programs = programs;
    this.#folder = folder;
    this.#random = random;
    this.pageSize = PAGE_SIZES[this.#below(PAGE_SIZES.length)] ?? 4096;
    this.#autoVacuum = this.#below(3);
    this.#statements = statementsOf(random, this.pageSize, programs.undoesSpilled);
  }

  #below(count: number): number {
    return Math.floor(this.#random() * count);
  }

  #note(text: string): void {
    this.done.push(text.length > 300 ? `${text.slice(0, 300)}…` : text);
  }

  async begin(): Promise<void> {
    await this.#open(0);
    const modes = `PRAGMA page_size=${this.pageSize}; PRAGMA auto_vacuum=${this.#autoVacuum};`;
    await this.#writer(0).must(`${modes} PRAGMA journal_mode=WAL; ${this.#statements.schema()}`);
    await this.#database.start();
  }

  async #open(index: number): Promise<void> {
    const { path } = this.#database;
    this.#note(`writer ${index} opens`);
    await this.#writer(index).must(`.open '${path}'\n${this.#statements.opening()}`);
    this.#openWriters.add(index);
  }

  #writer(index: number): SqliteShell {
    const shell = this.#programs.writers[index];
    assert.ok(shell !== undefined);
    return shell;
  }

  async #close(index: number): Promise<void> {
    this.#note(`writer ${index} closes`);
    if (this.#unfinished === index) this.#unfinished = null; // rolled back
    await this.#writer(index).must(".open :memory:");
    this.#openWriters.delete(index);
  }

  async #run(index: number, sql: string): Promise<void> {
    this.#note(`writer ${index}: ${sql}`);
    const { errors } = await this.#writer(index).run(sql);
    if (errors.length === 0) return;
    for (const error of errors) {
      this.#note(`  ${error}`);
      assert.match(error, EXPECTED);
    }
    await this.#writer(index).run("ROLLBACK;");
  }

  /** Of the programs. */
  async step(): Promise<void> {
    const kind = this.#random();
    if (kind < 0.07) return await this.#toggle(this.#below(3));
    if (kind < 0.12) return await this.#toggleReader();
    if (kind < 0.17) return await this.#toggleUnfinished();
    if (kind < 0.19) return await this.#die();
    if (kind < 0.22) return await this.#lastClose();
    const free = [...this.#openWriters].filter((index) => index !== this.#unfinished);
    if (kind < 0.32) {
      // Together, and with the follower among them.
      const running = free.map((index) => this.#run(index, this.#statements.next()));
      const [synced] = await Promise.allSettled([this.follow(), ...running]);
      await Promise.all(running);
      if (synced?.status === "rejected") throw synced.reason;
      return;
    }
    const index = free[this.#below(free.length)];
    if (index === undefined) await this.#open(this.#unfinished === 0 ? 1 : 0);
    else await this.#run(index, this.#statements.next());
  }

  async #toggle(index: number): Promise<void> {
    if (this.#openWriters.has(index)) await this.#close(index);
    else await this.#open(index);
  }

  async #toggleReader(): Promise<void> {
    const { reader } = this.#programs;
    this.#reads = !this.#reads;
    this.#note(this.#reads ? "a long read begins" : "the long read ends");
    const reading =
      `.open '${this.#database.path}'\n.timeout 1000\nBEGIN; SELECT count(*) FROM sqlite_schema;`;
    await reader.must(this.#reads ? reading : ".open :memory:");
  }

  async #toggleUnfinished(): Promise<void> {
    const index = this.#unfinished;
    if (index !== null) {
      this.#unfinished = null;
      return await this.#run(index, this.#random() < 0.6 ? "COMMIT;" : "ROLLBACK;");
    }
    const next = [...this.#openWriters][0];
    if (next === undefined) return;
    const sql = this.#statements.unfinished();
    this.#note(`writer ${next} begins: ${sql}`);
    const { errors } = await this.#writer(next).run(sql);
    if (errors.length === 0) this.#unfinished = next;
    else await this.#writer(next).run("ROLLBACK;");
  }

  async #die(): Promise<void> {
    const index = this.#unfinished ?? [...this.#openWriters][0];
    if (index === undefined) return;
    this.#note(`writer ${index} is killed`);
    await this.#programs.replace(index);
    this.#openWriters.delete(index);
    if (this.#unfinished === index) this.#unfinished = null;
  }

  /** All programs are closed; where nobody follows either, the log is gone then. */
  async #lastClose(): Promise<void> {
    for (const index of [...this.#openWriters]) await this.#close(index);
    if (this.#reads) await this.#toggleReader();
  }

  /** What the follower does in between; nobody waits for it. */
  async follow(): Promise<void> {
    for (let more = true; more;) {
      const result = await this.#busyIsFine(() => this.#database.sync());
      this.#note(`sync ${JSON.stringify(result)}`);
      more = result?.changed === true && result.more && this.#random() < 0.8;
    }
    if (this.#random() < 0.7) {
      this.#note(`our checkpoint: ${await this.#busyIsFine(() => this.#database.checkpoint())}`);
    }
  }

  /** The log is being recovered or begins anew: the caller comes again. */
  async #busyIsFine<T>(work: () => Promise<T>): Promise<T | null> {
    try {
      return await work();
    } catch (error) {
      this.#note(`  ${error}`);
      assert.match(String(error), /locked|busy|began anew|sums of its last commits/);
      return null;
    }
  }

  async pass(): Promise<void> {
    const ms = [31_000, 6 * 60_000, 61 * 60_000, DAY_MS + 1000][this.#below(4)] ?? 0;
    this.#note(`${ms} ms pass`);
    if (this.#random() < 0.6) await this.#database.pass(ms);
    else this.#database.clock.jump(ms); // the compactor works beside what comes next
  }

  /** Everybody pauses: what is committed now is kept by its TXID. Nothing more happens before it returns. */
  async point(): Promise<number> {
    const txid = await this.#barrier();
    if (this.#random() < 0.3 && this.#database.pins.length < PINS) this.#database.pins.push(txid);
    const content = await contentOf(this.#programs.observer, this.#database.path, this.#folder);
    this.#note(`point ${txid}: ${content.bytes.slice(0, 8)} ${content.dump.slice(0, 8)}`);
    assert.deepEqual(content, this.kept.get(txid) ?? content, `TXID ${txid} is two states`);
    this.kept.set(txid, content);
    return txid;
  }

  async #barrier(): Promise<number> {
    for (let tries = 1;; tries++) {
      try {
        return await this.#database.barrier();
      } catch (error) {
        // A log that only SQLite can read: it must be taken in, which the application's own transactions withhold.
        if (!/locked|sums of its last commits/.test(String(error)) || tries === 3) throw error;
        this.#note(`  ${error}`);
        if (this.#unfinished !== null) await this.#toggleUnfinished();
        if (this.#reads) await this.#toggleReader();
      }
    }
  }

  /** The follower ends and comes back; programs go on meanwhile. */
  async restart(): Promise<void> {
    const kind = this.#random();
    if (kind < 0.25) return await this.#loseMachine();
    if (kind < 0.4) return await this.#restorePast();
    if (kind < 0.7) {
      this.#note("the follower ends in order");
      await this.#busyIsFine(() => this.#database.finish());
    } else this.#note("the follower is dropped");
    await this.#database.drop();
    if (this.#random() < 0.2) {
      this.#note("local files are lost");
      await this.#database.loseState();
    }
    for (let steps = this.#below(4); steps > 0; steps--) {
      if (this.#random() < 0.3) await this.#lastClose();
      else await this.#alone();
    }
    await this.#database.start({ newTerm: this.#random() < 0.5 });
  }

  /** While nobody follows. */
  async #alone(): Promise<void> {
    const index = [...this.#openWriters].find((each) => each !== this.#unfinished);
    if (index === undefined) return await this.#open(this.#unfinished === 2 ? 1 : 2);
    if (this.#random() < 0.5) return await this.#run(index, this.#statements.next());
    // The log may begin anew over commits that nobody has read.
    await this.#run(index, this.#statements.write());
    await this.#run(index, this.#statements.checkpoint());
    await this.#run(index, this.#statements.write());
  }

  /** Another machine goes on from what is in the store. */
  async #loseMachine(): Promise<void> {
    if (this.kept.size === 0) return; // nothing need be in the store yet
    await this.#lastClose();
    await this.#database.drop();
    await this.#database.loseState();
    await this.#database.loseDatabase();
    const { txid } = await this.#database.restore({ kind: "newest" }, this.#database.path);
    this.#note(`the machine is lost, another one goes on from ${txid}`);
    const content = await contentOf(this.#programs.observer, this.#database.path, this.#folder);
    assert.deepEqual(content, this.kept.get(txid) ?? content, `the other machine's file is TXID ${txid}`);
    await this.#database.loseDatabase(); // the look has changed its times
    await this.#database.restore({ kind: "newest" }, this.#database.path);
    this.kept.set(txid, content);
    const early = this.#random() < 0.3;
    if (early) {
      // A program that did not wait for us: the file is not what was restored any more.
      await this.#open(0);
      await this.#run(0, this.#statements.write());
    }
    await this.#database.start({ baseline: txid, newTerm: true });
    const sealed = await this.#database.seal();
    assert.ok(sealed > txid);
    const { snapshots } = this.#database.follower.status;
    if (!early) assert.equal(snapshots, 0, "a restored file needs no snapshot");
  }

  /** Back to an earlier point, which is written as new TXIDs. */
  async #restorePast(): Promise<void> {
    await this.#lastClose();
    await this.#database.drop(); // what can be restored now stays so
    const points = new Set(await this.#database.points());
    const txids = [...this.kept.keys()].filter((txid) => points.has(txid));
    const txid = txids[this.#below(txids.length)];
    if (txid === undefined) return await this.#database.start();
    this.#note(`back to ${txid}`);
    await this.#database.loseState();
    await this.#database.loseDatabase();
    await this.#database.restore({ kind: "txid", txid }, this.#database.path);
    await this.#database.start({ newTerm: true });
    const now = await this.point();
    assert.ok(now > txid);
    assert.equal(this.kept.get(now)?.dump, this.kept.get(txid)?.dump);
  }

  /** Ends in order; the last point is the newest TXID. */
  async end(): Promise<number> {
    if (this.#unfinished !== null) await this.#toggleUnfinished();
    if (this.#random() < 0.5) await this.#lastClose();
    const txid = await this.point();
    if (this.#random() < 0.5) await this.pass();
    assert.equal(await this.#database.finish(), txid, "nothing was committed after the last point");
    await this.#lastClose();
    await this.#database.drop();
    return txid;
  }

  /** Both restorers give this TXID as it was kept. `theirs`: of litestream restore. */
  async compare(txid: number, theirs: string, sha256: (path: string) => string): Promise<void> {
    const wanted = this.kept.get(txid);
    assert.ok(wanted !== undefined);
    const { path, txid: reached } = await this.#database.restore({ kind: "txid", txid });
    assert.equal(reached, txid);
    const bytes = sha256(path);
    assert.equal(sha256(theirs), bytes, `TXID ${txid}: litestream restore makes other bytes`);
    assert.equal(bytes, wanted.bytes, `TXID ${txid}: the bytes of the source`);
    assert.equal(await takeDump(this.#programs.observer, theirs), wanted.dump, `TXID ${txid}: .dump`);
    await Deno.remove(path);
  }
}
