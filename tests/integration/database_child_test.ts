/** The database child as the manager uses it: each operation, errors over the pipe, and its end by abort or kill. */

import assert from "node:assert/strict";
import { childrenAtOnce, DatabaseChildren } from "../../src/database/database_client.ts";
import { stagePathOf, swapDatabases } from "../../src/database/database_swap.ts";
import { finishDatabaseSwaps } from "../../src/database/database_swap.ts";
import type { ReplicaPlace } from "../../src/database/replica_layout.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { directoryStore } from "../../src/storage/directory_store.ts";
import { ReplicaBuilder } from "../support/replica_builder.ts";
import { timeOf } from "../support/replica_model.ts";
import { randomOf } from "../support/seeded_random.ts";
import { scratchFolder } from "../support/tree_model.ts";

const place: ReplicaPlace = { layout: "folder", name: "app" };
const clock = systemClock();

/** TXID 1 to 12 as L0 files in a folder store. */
async function scene(folder: string) {
  const directory = `${folder}/store`;
  const store = directoryStore({ path: directory, clock, random: systemRandom() });
  const builder = new ReplicaBuilder({ store, place, folder });
  await builder.commitRandom(randomOf(3).float, 11);
  return { builder, store, options: { store: { kind: "directory", directory }, clock } as const };
}

Deno.test("the database child restores, plans, lists points and drills", async () => {
  await using folder = scratchFolder("database-child-");
  const { builder, options } = await scene(folder.path);
  using _builder = builder;
  const children = new DatabaseChildren(options);
  const live = `${folder.path}/live.db`;
  const stage = stagePathOf(live);
  Deno.writeTextFileSync(live, "old");
  Deno.writeTextFileSync(`${live}-wal`, "old log");

  const target = { kind: "txid", txid: 7 } as const;
  const plan = await children.plan({ place, target });
  assert.deepEqual(plan.files.map((file) => file.maxTxid), [1, 2, 3, 4, 5, 6, 7]);

  const progress: number[] = [];
  const request = { place, target, file: stage, owner: null, mode: 0o640, check: "full" } as const;
  const result = await children.restore(request, { onProgress: ({ bytes }) => progress.push(bytes) });
  assert.equal(result.txid, 7);
  assert.equal(result.timestampMs, timeOf(7));
  assert.equal(progress.at(-1), result.fetchBytes);
  assert.equal(Deno.readTextFileSync(live), "old", "nothing live changes");

  const journalPath = `${folder.path}/swap.json`;
  const aside = `${folder.path}/stale/then/app`;
  const { movedAside } = await swapDatabases({
    journalPath,
    id: "r",
    items: [{ name: "app", live, stage, aside }],
  });
  await finishDatabaseSwaps(journalPath);
  assert.deepEqual(movedAside, { app: aside });
  assert.deepEqual(Deno.readFileSync(live), builder.bytesAt(7));
  assert.equal(Deno.readTextFileSync(`${aside}/live.db-wal`), "old log");
  assert.throws(() => Deno.statSync(`${live}-wal`), Deno.errors.NotFound);

  const points = await children.points({ place, after: 10 });
  assert.deepEqual(points.points.map(({ txid }) => txid), [11, 12]);
  const drill = await children.drill({ place, file: `${folder.path}/drill.db` });
  assert.equal(drill.outcome, "passed");
  await children.close();
});

Deno.test("an error in the database child comes back with its code and hint", async () => {
  await using folder = scratchFolder("database-child-");
  const { builder, options } = await scene(folder.path);
  using _builder = builder;
  await builder.remove({ level: 0, minTxid: 5, maxTxid: 5 });
  const children = new DatabaseChildren(options);
  const target = { kind: "newest" } as const;
  await assert.rejects(children.plan({ place, target }), (error) => {
    assert.ok(isError(error, "data-damaged"), `${error}`);
    assert.match(error.message, /no file of the replica holds TXID 5/);
    assert.match(error.hint ?? "", /TXID 4/);
    return true;
  });
  await assert.rejects(children.plan({ place: { layout: "folder", name: "none" }, target }), {
    code: "not-found",
  });
  await children.close();
});

Deno.test("an aborted or killed database child is gone, and a later restore replaces what it left", async () => {
  await using folder = scratchFolder("database-child-");
  const { builder, options } = await scene(folder.path);
  using _builder = builder;
  const pids: number[] = [];
  const children = new DatabaseChildren({
    ...options,
    watchChild: () => ({
      env: {},
      started: (pid) => void pids.push(pid),
      gone: (pid) => void pids.splice(pids.indexOf(pid), 1),
    }),
  });
  const file = `${folder.path}/restored.db`;
  const request = {
    place,
    target: { kind: "newest" },
    file,
    owner: null,
    mode: 0o600,
    check: "quick",
  } as const;
  const abort = new AbortController();
  const reason = new StateManagerError("cancelled", "test: not wanted any more");
  const aborted = children.restore(request, { signal: abort.signal, onProgress: () => abort.abort(reason) });
  await assert.rejects(aborted, reason);
  assert.deepEqual(pids, []);

  const killed = children.restore(request, {
    onProgress: () => pids.forEach((pid) => Deno.kill(pid, "SIGKILL")),
  });
  const outcome = await killed.then(() => null, (error) => error);
  // It may have been done in the moment of the kill.
  if (outcome !== null) {
    assert.ok(isError(outcome, "internal") && /SIGKILL/.test(outcome.message), `${outcome}`);
  }
  assert.deepEqual(pids, []);

  Deno.writeTextFileSync(file, "half of a database");
  Deno.writeTextFileSync(`${file}-wal`, "half of a log");
  await children.restore(request);
  assert.deepEqual(Deno.readFileSync(file), builder.bytesAt(12));
  assert.throws(() => Deno.statSync(`${file}-wal`), Deno.errors.NotFound);

  const late = children.restore(request);
  await Promise.all([children.close(), assert.rejects(late, { code: "cancelled" })]);
  assert.deepEqual(pids, []);
});

Deno.test("plans of many databases start no more children at a time than the machine has room for", async () => {
  await using folder = scratchFolder("database-child-");
  const { builder, options } = await scene(folder.path);
  using _builder = builder;
  let [running, most, all] = [0, 0, 0];
  const children = new DatabaseChildren({
    ...options,
    machine: { cores: 2, memoryLimitBytes: 4 * 2 ** 30 },
    watchChild: () => ({
      env: {},
      started: () => {
        all++;
        most = Math.max(most, ++running);
      },
      gone: () => void running--,
    }),
  });
  const target = { kind: "newest" } as const;
  const abort = new AbortController();
  const plans = Array.from({ length: 5 }, () => children.plan({ place, target }));
  const unwanted = children.plan({ place, target }, { signal: abort.signal });
  const points = children.points({ place, after: 10 });
  abort.abort(new StateManagerError("cancelled", "test: not wanted any more"));
  await assert.rejects(unwanted, { code: "cancelled" });
  for (const { txid } of await Promise.all(plans)) assert.equal(txid, 12);
  assert.equal((await points).points.length, 2);
  assert.deepEqual({ most, all, running }, { most: 2, all: 6, running: 0 });
  await children.close();
});

Deno.test("children that run at a time go by cores and memory, and are never none", () => {
  const of = (cores: number, gibibytes: number) =>
    childrenAtOnce({ cores, memoryLimitBytes: gibibytes * 2 ** 30 });
  assert.deepEqual([of(1, 64), of(2, 64), of(64, 64)], [1, 2, 4]);
  assert.deepEqual([of(64, 0.1), of(64, 0.5), of(64, 1)], [1, 1, 2]);
});
