/** A store that takes nothing for long: what waits on the disk stays bounded, and all of it is there in the end. */

import assert from "node:assert/strict";
import { FollowParts } from "../../src/database/follow_parts.ts";
import { Places } from "../../src/database/follow_places.ts";
import type { FollowEvent } from "../../src/database/follow_protocol.ts";
import { FollowUnit } from "../../src/database/follow_unit.ts";
import { SendWindow } from "../../src/database/replica_window.ts";
import { restoreDatabaseTo } from "../../src/database/restore_database.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { directoryStore, type ObjectStore, withOperations } from "../../src/storage/mod.ts";
import { assertSameBytes, committedState, FollowedDatabase, rows } from "../support/followed_database.ts";
import { waitFor } from "../support/manager_process.ts";
import { say } from "../support/say.ts";

const clock = systemClock();
const MOST_BYTES = 400_000;
/** Each changes all of a database of some 120 kB. */
const CHANGES = 30;

function refusing(store: ObjectStore, isFull: () => boolean): ObjectStore {
  const refuse = () => Promise.reject(new StateManagerError("store-full", "put: the store is full"));
  return withOperations(store, {
    put: (key, body, options) => isFull() ? refuse() : store.put(key, body, options),
    putLarge: (key, pieces, options) => isFull() ? refuse() : store.putLarge(key, pieces, options),
  });
}

/** Of each file its size; the key tells one from a later one of the same name. */
function filesIn(folder: string): Map<string, number> {
  const files = new Map<string, number>();
  for (const { name } of Deno.readDirSync(folder)) {
    try {
      const { size, mtime, ino } = Deno.statSync(`${folder}/${name}`);
      files.set(`${name} ${ino} ${mtime?.getTime()} ${size}`, size);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // given up meanwhile
    }
  }
  return files;
}

Deno.test("local files stay bounded while the store takes nothing, and every barrier keeps its word after", async () => {
  await using scene = await FollowedDatabase.wal();
  await scene.program.run("app", rows(100, 1000));
  const directory = `${scene.folder}/store`;
  await Deno.mkdir(directory);
  let isFull = false;
  const store = refusing(directoryStore({ path: directory, clock, random: systemRandom() }), () => isFull);
  const events: FollowEvent[] = [];
  const parts = new FollowParts({
    ...{ store, plainStore: store, layout: "folder", token: 1, clock, random: systemRandom() },
    ...{ window: new SendWindow(clock, Number.MAX_SAFE_INTEGER), dataFolder: scene.folder },
    ...{ compactions: new Places(1), onEvent: (event: FollowEvent) => events.push(event) },
  });
  const day = 24 * 3_600_000;
  const unit: FollowUnit = new FollowUnit(
    {
      ...{ name: "app", path: scene.path, journal: "follow", syncIntervalMs: 50, baseline: null, pins: [] },
      ...{ snapshotIntervalMs: day, retentionMs: day },
    },
    null,
    {
      ...{ parts, clock, places: new Places(2), backlogMostBytes: MOST_BYTES, onChange: () => {} },
      onDurable: () => {},
      backlogBytes: () => unit.waitingBytes,
      onEvent: (event) => events.push(event),
      onFenced: (error) => assert.fail(error),
    },
  );
  unit.start();
  const ticking = setInterval(() => unit.tick(clock.monotonicMs()), 10);
  try {
    const before = await unit.barrier() ?? 0;
    isFull = true;
    const local = `${scene.stateFolder}/ltx/0`;
    let mostBytes = 0;
    const barriers: Promise<number | null>[] = [];
    for (let n = 0; n < CHANGES; n++) {
      // Before the change, which may be captured while it is told; not by TXID, which comes again after a backlog was given up.
      const known = filesIn(local);
      await scene.program.run("app", "UPDATE t SET b=randomblob(1000)");
      const barrier = unit.barrier();
      barrier.catch(() => {}); // where the test fails before it looks
      barriers.push(barrier);
      const captured = () =>
        unit.status().waitingFiles > 0 && [...filesIn(local).keys()].some((file) => !known.has(file));
      await waitFor(`change ${n} in a local file`, captured);
      mostBytes = Math.max(mostBytes, [...filesIn(local).values()].reduce((sum, size) => sum + size, 0));
    }
    const isGivenUp = ({ message }: FollowEvent) => message.includes("a snapshot takes their place");
    const times = events.filter(isGivenUp).length;
    const databaseBytes = (await scene.program.run("app", "PRAGMA page_count"))
      .reduce((sum, row) => sum + Number(row["page_count"]) * 4096, 0);
    say(`at most ${mostBytes} bytes, of a database of ${databaseBytes}; given up ${times} times`);
    assert.ok(times >= 2, `given up ${times} times`);
    assert.ok(mostBytes <= MOST_BYTES + 4 * databaseBytes, `${mostBytes} bytes`);
    assert.ok(CHANGES * databaseBytes > 2 * (MOST_BYTES + 4 * databaseBytes), "unbounded it would be more");
    assert.equal(unit.status().durableTxid, before, "what was durable still is");

    isFull = false;
    const durable = await Promise.all(barriers);
    assert.ok(durable.every((txid) => txid !== null && txid > before), `${durable}`);
    await unit.barrier();
    const { state, counts } = unit.status();
    assert.equal(state, "following");
    assert.ok(counts.snapshots > times, "the counts of former loops stay");
  } finally {
    clearInterval(ticking);
    await unit.stop();
  }
  const file = `${scene.folder}/restored.db`;
  await restoreDatabaseTo(
    {
      ...{ place: { layout: "folder", name: "app" }, target: { kind: "newest" }, file, owner: null },
      ...{ mode: 0o600, check: "full" },
    },
    { store, clock, signal: new AbortController().signal },
  );
  assertSameBytes(await Deno.readFile(file), await committedState(scene.path, scene.folder), "restored");
});
