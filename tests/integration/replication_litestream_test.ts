/**
 * Random histories of replicated databases: at every kept point the real `litestream restore` gives the bytes of our own
 * restore, which are the bytes of the source, and the source's `.dump`.
 *
 * STATE_MANAGER_HISTORIES: how many; STATE_MANAGER_HISTORY_SEED: that one alone, or so many from it on. A seed says what each process does;
 * how those that run at the same time interleave it does not say.
 */

import assert from "node:assert/strict";
import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { openStore } from "../../src/storage/mod.ts";
import { fastFolder } from "../support/fast_folder.ts";
import { findLitestream, litestreamRestore } from "../support/litestream.ts";
import { ReplicatedDatabase, sha256Of } from "../support/replicated_database.ts";
import { HistoryPrograms, ReplicationHistory } from "../support/replication_history.ts";
import { say } from "../support/say.ts";
import { findSqliteShell } from "../support/sqlite_shell.ts";
import { removeTree, seededRandom } from "../support/tree_model.ts";

const SEED = Deno.env.get("STATE_MANAGER_HISTORY_SEED");
const FIRST_SEED = Number(SEED ?? 1);
const HISTORIES = Number(Deno.env.get("STATE_MANAGER_HISTORIES") ?? (SEED === undefined ? 200 : 1));
const STEPS = 45;
/** Points of each history that are compared, besides the newest and the pinned ones. */
const EARLIER_POINTS = 1;
/** Small, so that a short history meets each of them. */
const LIMITS = {
  syncBytes: 100_000,
  checkpointPages: 40,
  barrierPages: 120,
  restPages: 20,
  jointPages: 20,
  checkpointIntervalMs: 60_000,
  walBytes: 600_000,
};
const clock = systemClock();

interface Tally {
  points: number;
  txids: number;
  snapshots: number;
  /** Of them, because the log could not be read. */
  pastLog: number;
  checkpoints: number;
  merges: number;
  deleted: number;
}

async function runHistory(seed: number, programs: HistoryPrograms, tally: Tally): Promise<void> {
  const random = seededRandom(seed);
  const folder = fastFolder("replication-");
  const directory = `${folder}/store`;
  const store = openStore({ kind: "directory", directory }, { clock, random: systemRandom() });
  await using database = new ReplicatedDatabase({ folder, store, layout: "folder", limits: LIMITS });
  const history = new ReplicationHistory(database, programs, folder, random);
  try {
    await history.begin();
    for (let step = 0; step < STEPS; step++) {
      await history.step();
      if (random() < 0.5) await history.follow();
      if (random() < 0.12) await history.pass();
      if (random() < 0.15) await history.point();
      if (random() < 0.06) await history.restart();
    }
    const newest = await history.end();
    const points = await database.points();
    assert.equal(points.at(-1), newest, "the newest TXID can be restored");
    for (const pin of database.pins) {
      assert.ok(points.includes(pin), `pinned TXID ${pin} is no restore point`);
    }
    const earlier = [...history.kept.keys()].filter((txid) => points.includes(txid) && txid !== newest)
      .sort(() => random() - 0.5).slice(0, EARLIER_POINTS);
    for (const txid of new Set([newest, ...database.pins, ...earlier])) {
      const theirs = `${folder}/theirs-${txid}.db`;
      const wanted = txid.toString(16).padStart(16, "0");
      await litestreamRestore(`${directory}/databases/app`, theirs, "-txid", wanted);
      await history.compare(txid, theirs, sha256Of);
      tally.points++;
    }
    tally.txids += newest;
    for (const name of ["snapshots", "pastLog", "checkpoints", "merges", "deleted"] as const) {
      tally[name] += database.counts[name];
    }
  } catch (error) {
    const told = `seed ${seed}, page size ${history.pageSize}`;
    say(`${told}\n${history.done.slice(-60).join("\n")}`);
    throw new Error(told, { cause: error });
  } finally {
    await database.drop();
    await store.close();
    await removeTree(folder);
  }
}

Deno.test({
  name:
    "[needs litestream] [needs sqlite3] litestream restore gives the bytes and the dump of each kept point of random histories",
  ignore: findLitestream() === null || findSqliteShell() === null,
  async fn() {
    await using programs = await HistoryPrograms.start();
    const tally: Tally = {
      points: 0,
      txids: 0,
      snapshots: 0,
      pastLog: 0,
      checkpoints: 0,
      merges: 0,
      deleted: 0,
    };
    const beganMs = performance.now();
    for (let i = 0; i < HISTORIES; i++) await runHistory(FIRST_SEED + i, programs, tally);
    const seconds = ((performance.now() - beganMs) / 1000).toFixed(1);
    say(`${HISTORIES} histories in ${seconds} s: ${JSON.stringify(tally)}`);
  },
});
