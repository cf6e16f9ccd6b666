/** What a start does about the run before it on the same data folder: waits for its guard, ends its leftovers, no others. */

import assert from "node:assert/strict";
import { endPredecessor, type Predecessor } from "../../src/manager/mod.ts";
import { readRunRecord, UnitRecord } from "../../src/manager/unit_record.ts";
import { type Child, spawnChild } from "../../src/platform/child_process.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { lockFolder } from "../../src/platform/folder_lock.ts";
import { isAlive, readBootId, readProcess } from "../../src/platform/proc.ts";
import { randomHex, systemRandom } from "../../src/platform/random.ts";
import { scratchFolder } from "../support/manager_process.ts";

const clock = systemClock();
const LOCK = "2049:17";

function test(name: string, fn: (place: Place) => Promise<void>): void {
  Deno.test({
    name,
    sanitizeResources: false, // FFI keeps libc open
    async fn() {
      await using place = new Place();
      await fn(place);
    },
  });
}

/** A data folder whose last run was `runId`, by a manager that is gone unless a test says otherwise. */
class Place implements AsyncDisposable {
  readonly runId = randomHex(systemRandom(), 8);
  readonly #scratch = scratchFolder();
  readonly #children: Child[] = [];
  readonly dir = {
    path: this.#scratch.path,
    guardLock: `${this.#scratch.path}/guard.lock`,
    units: `${this.#scratch.path}/units.json`,
  };

  /** Tagged with `tag`; "none": like a program that overwrote its environment. */
  spawn(tag = `app.1.${this.runId}`): number {
    const env: Record<string, string> = tag === "none" ? {} : { SM_UNIT: tag };
    const child = spawnChild({ command: "/bin/sleep", args: ["3620"], env, clearEnv: true, detached: true });
    this.#children.push(child);
    return child.pid;
  }

  record(
    { manager = { pid: 1 << 22, startTicks: 1 }, bootId = readBootId(), lockIdentity = LOCK } = {},
  ): UnitRecord {
    return new UnitRecord(this.dir.units, { bootId, runId: this.runId, lockIdentity, manager }, clock);
  }

  unit(pid: number, startTicks = readProcess(pid)?.startTicks ?? 0) {
    return { name: "app", groupId: pid, startTicks, tag: `app.1.${this.runId}` };
  }

  end(guardLimitMs = 20_000, signal = new AbortController().signal): Promise<Predecessor> {
    const bootId = readBootId();
    return endPredecessor({ dir: this.dir, lockIdentity: LOCK, bootId, clock, signal, guardLimitMs });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      child.kill("SIGKILL");
      await child.status;
    }
    this.#scratch[Symbol.dispose]();
  }
}

function alive(pid: number): boolean {
  const info = readProcess(pid);
  return info !== null && isAlive(info);
}

test("endPredecessor ends what bears the tag of the last run and proves it dead", async (place) => {
  await place.record().begin();
  const [ours, stopped, foreign] = [
    place.spawn(),
    place.spawn(`archiver.7.${place.runId}`),
    place.spawn("app.1.fedcba9876543210"),
  ];
  Deno.kill(stopped, "SIGSTOP");
  assert.deepEqual(await place.end(), { runId: place.runId, provenDead: true, killed: 2 });
  assert.deepEqual([ours, stopped, foreign].map(alive), [false, false, true]);
});

test("endPredecessor ends a recorded group that bears no tag, and spares a number that was given away", async (place) => {
  const record = place.record();
  await record.begin();
  const [ours, reused] = [place.spawn("none"), place.spawn("none")];
  record.watch(place.unit(ours));
  record.watch(place.unit(reused, (readProcess(reused)?.startTicks ?? 0) - 1));
  await record.end();
  const written = await readRunRecord(place.dir.units);
  assert.ok(written !== null && written !== "damaged");
  assert.equal(written.units.length, 2);
  assert.equal(written.ended, false);
  assert.equal((await place.end()).killed, 1);
  assert.deepEqual([ours, reused].map(alive), [false, true]);
});

test("endPredecessor leaves everything alone when the record is of another boot", async (place) => {
  const record = place.record({ bootId: "00000000-0000-4000-8000-000000000000" });
  await record.begin();
  const pid = place.spawn();
  assert.deepEqual(await place.end(), { runId: place.runId, provenDead: false, killed: 0 });
  assert.ok(alive(pid));
});

test("endPredecessor leaves everything alone when the recorded manager lives: the folder is a copy", async (place) => {
  const manager = place.spawn("none");
  const startTicks = readProcess(manager)?.startTicks ?? 0;
  await place.record({ manager: { pid: manager, startTicks } }).begin();
  const pid = place.spawn();
  assert.deepEqual(await place.end(), { runId: place.runId, provenDead: false, killed: 0 });
  assert.ok(alive(pid));
});

test("endPredecessor proves nothing in a copy of the folder, though no manager is in sight", async (place) => {
  const record = place.record({ lockIdentity: "2049:18" });
  await record.begin();
  await record.end();
  assert.deepEqual(await place.end(), { runId: place.runId, provenDead: false, killed: 0 });
});

test("endPredecessor proves nothing without a record or with a damaged one", async (place) => {
  const nothing = { runId: null, provenDead: false, killed: 0 };
  assert.deepEqual(await place.end(), nothing);
  for (const text of ["", "{", "[]", "null", '{"v":2}', '{"v":1,"run_id":"x"}']) {
    await Deno.writeTextFile(place.dir.units, text);
    assert.deepEqual(await place.end(), nothing, text);
  }
});

test("endPredecessor does not look for a run that ended in order", async (place) => {
  const record = place.record();
  await record.begin();
  await record.end();
  const pid = place.spawn();
  assert.deepEqual(await place.end(), { runId: place.runId, provenDead: true, killed: 0 });
  assert.ok(alive(pid));
});

test("endPredecessor waits for the guard's lock, and says busy when it is not free in time", async (place) => {
  await place.record().begin();
  const lock = lockFolder(place.dir.guardLock);
  assert.ok(lock);
  await assert.rejects(place.end(100), { code: "busy" });
  let done = false;
  const ending = place.end().finally(() => done = true);
  await clock.sleep(100);
  assert.equal(done, false);
  lock.release();
  assert.equal((await ending).provenDead, true);
});

test("endPredecessor that waits ends with the signal", async (place) => {
  const lock = lockFolder(place.dir.guardLock);
  assert.ok(lock);
  const stop = new AbortController();
  const ending = place.end(20_000, stop.signal);
  stop.abort(new Error("asked to stop"));
  await assert.rejects(ending, /asked to stop/);
  lock.release();
});
