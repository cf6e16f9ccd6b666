/**
 * Kills while a program commits rows of one chain, each followed by a start that is judged: on the same disk nothing
 * that was committed may be missing, elsewhere nothing that a barrier confirmed nor what was older than two seconds, and
 * what comes back is one unbroken chain. A seed replays the choices.
 */

import assert from "node:assert/strict";
import { systemClock } from "../../src/platform/clock.ts";
import { chainProgram, checkChain, readJournal } from "./chain.ts";
import { MachineStall } from "./machine_stall.ts";
import { descendants, ManagerProcess, waitFor } from "./manager_process.ts";
import type { TestStore } from "./test_stores.ts";
import { seededRandom } from "./tree_model.ts";

export const VICTIMS = ["program", "follower", "manager", "all"] as const;
export type Victim = typeof VICTIMS[number];

export interface ChainKillOptions {
  readonly root: string;
  readonly kills: number;
  readonly seed: number;
  readonly perSecond: number;
  readonly onKill?: (report: ChainKillReport, n: number) => void;
}

export interface ChainKillReport {
  readonly victim: Victim;
  /** Whether the next start was on a machine without the data. */
  readonly elsewhere: boolean;
  readonly lostRows: number;
  /** Age, at the kill, of the oldest row that was lost. */
  readonly lostMs: number;
}

const TTL = { STATE_MANAGER_LEASE_TTL: "3s", STATE_MANAGER_LEASE_RENEW: "800ms" };
/** Older than this is in the bucket when everything dies, while the store is well. */
const LOSS_LIMIT_MS = 2000;
const START_LIMIT_MS = 60_000;

const clock = systemClock();

interface Machine {
  readonly root: string;
  readonly database: string;
  readonly journal: string;
}

class ChainWalk implements AsyncDisposable {
  readonly #store: TestStore;
  readonly #options: ChainKillOptions;
  readonly #random: () => number;
  #machines = 0;
  machine: Machine;
  manager: ManagerProcess;
  /** Newest row that a barrier has confirmed. */
  #confirmed = 0;
  #followingMs = 0;
  readonly #stall: MachineStall;

  constructor(store: TestStore, options: ChainKillOptions) {
    this.#store = store;
    this.#options = options;
    this.#random = seededRandom(options.seed);
    this.#stall = new MachineStall(options.root);
    this.machine = this.#newMachine();
    this.manager = this.#start();
  }

  #newMachine(): Machine {
    const root = `${this.#options.root}/m${++this.#machines}`;
    Deno.mkdirSync(`${root}/db`, { recursive: true });
    return { root, database: `${root}/db/app.db`, journal: `${root}/journal` };
  }

  #start(): ManagerProcess {
    const { root, database, journal } = this.machine;
    const program = chainProgram({ database, journal, perSecond: this.#options.perSecond });
    return new ManagerProcess({
      args: [
        "run",
        ...this.#store.args,
        ...["--database", `app=${database}`, "--data-dir", `${root}/data`],
        ...["--restart", "always", "--", ...program],
      ],
      env: { ...this.#store.env, ...TTL },
    });
  }

  /** The program runs and commits; gives the row that was newest when it began. */
  async running(starts: number): Promise<number> {
    const tail = () => this.manager.tail();
    const told = await waitFor(
      "the program to commit",
      () => {
        const journal = readJournal(this.machine.journal);
        return journal.starts.length > starts && journal.rows.length > 0 ? journal : null;
      },
      START_LIMIT_MS,
      tail,
    );
    await this.manager.state("running", START_LIMIT_MS);
    this.#followingMs = clock.monotonicMs();
    return told.starts.at(-1) ?? 0;
  }

  async barrier(): Promise<void> {
    const newest = readJournal(this.machine.journal).rows.at(-1)?.n ?? 0;
    await this.manager.json("/databases/app/sync", { method: "POST", signal: AbortSignal.timeout(60_000) });
    this.#confirmed = Math.max(this.#confirmed, newest);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.manager.killTree().catch(() => {});
    await this.#stall[Symbol.asyncDispose]();
  }

  async step(victim: Victim): Promise<ChainKillReport> {
    const sinceMs = this.#followingMs;
    await new Promise((resolve) => setTimeout(resolve, 200 + this.#random() * 2500));
    if (this.#random() < 0.5) await this.barrier();
    if (this.#random() < 0.5) await new Promise((resolve) => setTimeout(resolve, this.#random() * 400));
    const starts = readJournal(this.machine.journal).starts.length;
    // Where the disk stood still a file may wait for it, and the next one behind it.
    const limitMs = LOSS_LIMIT_MS + 2 * this.#stall.longestMs(3 * LOSS_LIMIT_MS);
    const killedMs = clock.monotonicMs();
    await this.#kill(victim);
    if (victim === "follower") {
      await this.barrier(); // by another one
      return { victim, elsewhere: false, lostRows: 0, lostMs: 0 };
    }
    if (victim === "program") {
      await this.#judge(starts, killedMs, false);
      return { victim, elsewhere: false, lostRows: 0, lostMs: 0 };
    }
    const elsewhere = this.#random() < 0.6;
    const { journal } = this.machine;
    if (!elsewhere) {
      this.manager = this.#start();
      await this.#judge(starts, killedMs, false);
      return { victim, elsewhere, lostRows: 0, lostMs: 0 };
    }
    this.machine = this.#newMachine();
    this.manager = this.#start();
    const lost = await this.#judge(0, killedMs, true, { journal, sinceMs, limitMs });
    return { victim, elsewhere, ...lost };
  }

  async #kill(victim: Victim): Promise<void> {
    if (victim === "all") return await this.manager.killTree();
    if (victim === "manager") {
      this.manager.signal("SIGKILL");
      await this.manager.exit();
      return;
    }
    const wanted = victim === "follower" ? "__follow" : "chain_writer.ts";
    const pid = descendants(this.manager.pid).find((each) => {
      try {
        const argv = Deno.readTextFileSync(`/proc/${each}/cmdline`).split("\0");
        return argv.some((argument) => argument.endsWith(wanted));
      } catch {
        return false;
      }
    });
    assert.ok(pid !== undefined, `no ${victim} runs\n${this.manager.tail()}`);
    Deno.kill(pid, "SIGKILL");
  }

  /** Waits for the next start of the program and compares what it found with what was told. */
  async #judge(
    starts: number,
    killedMs: number,
    elsewhere: boolean,
    former: { readonly journal: string; readonly sinceMs: number; readonly limitMs: number } = {
      journal: this.machine.journal,
      sinceMs: Infinity,
      limitMs: LOSS_LIMIT_MS,
    },
  ): Promise<{ lostRows: number; lostMs: number }> {
    // The program may go on for a moment after its manager's death; what it told then counts, too.
    const told = elsewhere ? readJournal(former.journal).rows : null;
    const before = elsewhere ? null : readJournal(former.journal);
    const found = await this.running(starts);
    const where = `${this.machine.root}, kill at ${killedMs}`;
    assert.ok(found >= this.#confirmed, `${where}: ${found} rows, a barrier confirmed ${this.#confirmed}`);
    const length = checkChain(this.machine.database, { readOnly: true });
    assert.ok(length >= found, `${where}: a chain of ${length}, ${found} were found`);
    if (told === null) {
      const newest = before?.rows.at(-1)?.n ?? 0;
      assert.ok(found >= newest, `${where}: ${found} rows on the same disk, ${newest} were committed`);
      return { lostRows: 0, lostMs: 0 };
    }
    const lost = told.filter(({ n }) => n > found);
    const oldest = lost[0];
    const lostMs = oldest === undefined ? 0 : Math.max(0, killedMs - oldest.atMs);
    if (killedMs - former.sinceMs > former.limitMs) {
      assert.ok(
        lostMs <= former.limitMs,
        `${where}: a row of ${
          Math.round(lostMs)
        } ms before the kill is lost, at most ${former.limitMs} wanted`,
      );
    }
    return { lostRows: lost.length, lostMs };
  }
}

/** Leaves nothing running. */
export async function walkOfChainKills(
  store: TestStore,
  options: ChainKillOptions,
): Promise<ChainKillReport[]> {
  await using walk = new ChainWalk(store, options);
  const reports: ChainKillReport[] = [];
  const random = seededRandom(options.seed + 1);
  try {
    await walk.running(0);
    let rest: Victim[] = [];
    for (let n = 0; n < options.kills; n++) {
      if (rest.length === 0) rest = [...VICTIMS];
      const [victim = "all"] = rest.splice(Math.floor(random() * rest.length), 1);
      const report = await walk.step(victim);
      reports.push(report);
      options.onKill?.(report, n);
    }
    walk.manager.signal("SIGTERM");
    await walk.manager.exit(60_000);
    return reports;
  } catch (error) {
    throw new Error(`kill ${reports.length + 1} of seed ${options.seed}: ${error}`, { cause: error });
  }
}

export function summaryOfChainKills(reports: readonly ChainKillReport[]): string {
  const lines = VICTIMS.map((victim) => {
    const of = reports.filter((report) => report.victim === victim);
    const moved = of.filter(({ elsewhere }) => elsewhere);
    const mostMs = Math.max(0, ...of.map(({ lostMs }) => lostMs));
    const mostRows = Math.max(0, ...of.map(({ lostRows }) => lostRows));
    return `${victim.padEnd(9)} ${of.length} kills, ${moved.length} with another machine after it; ` +
      `largest loss ${mostRows} rows, ${Math.round(mostMs)} ms`;
  });
  return lines.join("\n");
}
