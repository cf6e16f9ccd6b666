/** Prunes of real repositories in this process: what is kept comes back equal to the model, what is not goes. */

import assert from "node:assert/strict";
import { idToText, PACKS_PREFIX, ROOTS_PREFIX } from "../../src/checkpoint/ids.ts";
import { FLAG_META, readPackEntries } from "../../src/checkpoint/pack.ts";
import { loadRoot } from "../../src/checkpoint/root_reader.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { faulty } from "../../src/storage/faulty_store.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { listAll, withOperations } from "../../src/storage/object_store.ts";
import { copyOf, KEEP_NOTHING, PruneScene } from "../support/prune_scene.ts";
import { say } from "../support/say.ts";

isRoot(); // loads libc once, which older runtimes count as a leak of the test that does it

const FILE_BYTES = 30_000;
const HOUR_MS = 3_600_000;

/** Five checkpoints: of the first packs less than half is needed in the end, of one of them nothing. */
async function history(scene: PruneScene): Promise<void> {
  for (let i = 0; i < 8; i++) scene.write(`a${i}`, FILE_BYTES);
  await scene.checkpoint();
  for (let i = 0; i < 5; i++) scene.remove(`a${i}`);
  scene.write("b", FILE_BYTES);
  await scene.checkpoint();
  scene.write("b", FILE_BYTES);
  await scene.checkpoint();
  scene.remove("b");
  for (let i = 0; i < 3; i++) scene.write(`c${i}`, FILE_BYTES);
  await scene.checkpoint();
  scene.write("d", FILE_BYTES);
  await scene.checkpoint();
}

Deno.test("prune frees what only forgotten checkpoints needed, after the grace", async () => {
  await using scene = new PruneScene(1);
  await history(scene);
  const before = await scene.keys();
  const first = await scene.pruner().prune({ dryRun: false });
  assert.equal(first.forgotten.length, 4);
  assert.equal(scene.head.checkpoints.length, 1);
  assert.ok(first.report !== null && first.report.deadPacks > 0 && first.report.repackedPacks > 0);
  // Doomed, and still there for those who are reading.
  const there = new Set(await scene.keys());
  assert.deepEqual(before.filter((key) => !there.has(key)), []);
  assert.equal(first.deletedObjects, 0);
  await scene.restoresAll();
  scene.pass(HOUR_MS);
  const second = await scene.pruner().prune({ dryRun: false });
  assert.equal(second.waitingObjects, 0);
  assert.deepEqual(await scene.unnamed(), []);
  assert.ok((await scene.keys()).length < before.length);
  assert.deepEqual([scene.head.doomed, scene.head.doomed_objects], [[], undefined]);
  await scene.restoresAll();
  // Nothing is left to do, so nothing is written.
  const { seq } = scene.head;
  await scene.pruner().prune({ dryRun: false });
  assert.equal(scene.head.seq, seq);
});

Deno.test("prune by a machine whose clock is far ahead goes by the store's, in what it keeps and in the grace", async () => {
  const monthMs = 30 * 24 * HOUR_MS;
  const storeMs = { now: Date.UTC(2026, 5, 1) };
  await using scene = new PruneScene(1, withOperations(memoryStore(), { clockMs: () => storeMs.now }));
  await history(scene);
  scene.pass(monthMs);
  scene.keep = { ...KEEP_NOTHING, withinMs: 48 * HOUR_MS };
  assert.equal((await scene.pruner().prune({ dryRun: false })).forgotten.length, 0);
  // Doomed by another machine, whose clock is right.
  scene.pass(-monthMs);
  scene.keep = KEEP_NOTHING;
  assert.equal((await scene.pruner().prune({ dryRun: false })).forgotten.length, 4);
  scene.pass(monthMs);
  const early = await scene.pruner().prune({ dryRun: false });
  assert.ok(early.deletedObjects === 0 && early.waitingObjects > 0);
  storeMs.now += HOUR_MS + 60_000;
  assert.equal((await scene.pruner().prune({ dryRun: false })).waitingObjects, 0);
  await scene.restoresAll();
});

Deno.test("prune takes the manifests and root objects of deleted checkpoints, and leaves those of kept ones", async () => {
  await using scene = new PruneScene(10);
  await history(scene);
  const manifests = async () => {
    const pieces: string[] = [];
    for (const key of (await scene.keys()).filter((key) => key.startsWith(PACKS_PREFIX))) {
      const entries = readPackEntries((await scene.store.get(key)).body, key);
      for (const { id, flags } of entries) if ((flags & FLAG_META) !== 0) pieces.push(idToText(id));
    }
    return pieces.sort();
  };
  const roots = async () => (await scene.keys()).filter((key) => key.startsWith(ROOTS_PREFIX));
  assert.deepEqual([(await manifests()).length, (await roots()).length], [5, 5]);
  await scene.pruner().remove("2", { force: false });
  scene.keep = { ...KEEP_NOTHING, last: 2 };
  for (let i = 0; i < 2; i++) {
    await scene.pruner().prune({ dryRun: false });
    scene.pass(HOUR_MS);
  }
  const kept = scene.head.checkpoints;
  assert.deepEqual(kept.map(({ n }) => n), [4, 5]);
  const needed: string[] = [];
  for (const record of kept) {
    const { items } = await loadRoot(scene.store, record, scene.environment());
    needed.push(...items.files["data"]?.manifest ?? []);
  }
  assert.deepEqual(await manifests(), needed.sort());
  assert.deepEqual(await roots(), kept.map(({ root }) => root));
  await scene.restoresAll();
});

Deno.test("prune that only tells changes nothing and says what a real one does", async () => {
  await using scene = new PruneScene(2);
  await history(scene);
  const before = await scene.keys();
  const { seq } = scene.head;
  const told = await scene.pruner().prune({ dryRun: true });
  assert.deepEqual([await scene.keys(), scene.head.seq], [before, seq]);
  const done = await scene.pruner().prune({ dryRun: false });
  assert.deepEqual(told.forgotten.map(({ n }) => n), done.forgotten.map(({ n }) => n));
  const [a, b] = [told.report, done.report];
  assert.ok(a !== null && b !== null);
  assert.deepEqual([a.deadPacks, a.repackedPacks, a.deadBytes], [b.deadPacks, b.repackedPacks, b.deadBytes]);
  // What is written anew also has footers and other frames: about the same.
  assert.ok(Math.abs(a.freedBytes - b.freedBytes) < 4096, `${a.freedBytes} and ${b.freedBytes}`);
});

Deno.test("checkpoint after a prune refers to nothing that is doomed", async () => {
  await using scene = new PruneScene(3);
  await history(scene);
  const content = Deno.readFileSync(`${scene.files}/d`);
  scene.remove("d");
  await scene.checkpoint();
  await scene.pruner().prune({ dryRun: false });
  const doomed = new Set(scene.head.doomed.map(({ pack }) => pack));
  assert.ok(doomed.size > 0);
  // The same bytes as those in a doomed pack.
  Deno.writeFileSync(`${scene.files}/d-again`, content);
  await scene.checkpoint();
  scene.pass(HOUR_MS);
  await scene.pruner().prune({ dryRun: false });
  await scene.restoresAll();
});

Deno.test("prune deletes nothing when a listing or a read fails, or when a pack is missing", async () => {
  for (
    const [operation, keyPrefix] of [["list", ""], ["get", "checkpoints/roots/"], [
      "get",
      "checkpoints/packs/",
    ]] as const
  ) {
    await using scene = new PruneScene(4);
    await history(scene);
    await scene.pruner().prune({ dryRun: false });
    scene.pass(HOUR_MS);
    scene.write("e", FILE_BYTES);
    await scene.checkpoint();
    const before = await scene.keys();
    const whole = scene.store;
    scene.store = faulty(whole, {
      clock: systemClock(),
      rules: [{ operation, keyPrefix, error: "store-unreachable", count: Infinity }],
    });
    await assert.rejects(
      scene.pruner().prune({ dryRun: false }),
      (error) => isError(error, "store-unreachable"),
    );
    scene.store = whole;
    assert.deepEqual(await scene.keys(), before);
  }
  await using scene = new PruneScene(5);
  await history(scene);
  await scene.pruner().prune({ dryRun: false });
  scene.pass(HOUR_MS);
  const live = new Set((await scene.keys()).filter((key) => key.startsWith(PACKS_PREFIX)));
  for (const { pack } of scene.head.doomed) live.delete(PACKS_PREFIX + pack);
  const [lost] = live;
  assert.ok(lost !== undefined);
  await scene.store.delete(lost);
  const before = await scene.keys();
  await assert.rejects(scene.pruner().prune({ dryRun: false }), (error) => isError(error, "data-damaged"));
  assert.deepEqual(await scene.keys(), before);
});

Deno.test("prune removes what a killed upload left, but nothing of a later term", async () => {
  await using scene = new PruneScene(6);
  await history(scene);
  const name = (token: string, letter: string) => `${token}/${letter.repeat(26)}`;
  const bytes = new Uint8Array(1000);
  for (
    const key of [
      `checkpoints/packs/${name("00000001", "1")}`,
      `checkpoints/packs/${name("00000009", "2")}`,
      `checkpoints/index/00000001-${"3".repeat(26)}`,
      `checkpoints/roots/00000001-${"4".repeat(26)}.json`,
      "checkpoints/packs/README",
    ]
  ) await scene.store.put(key, bytes);
  const { report } = await scene.pruner().prune({ dryRun: false });
  assert.equal(report?.orphanPacks, 1);
  scene.pass(HOUR_MS);
  await scene.pruner().prune({ dryRun: false });
  assert.deepEqual(await scene.unnamed(), [
    `checkpoints/packs/${name("00000009", "2")}`,
    "checkpoints/packs/README",
  ]);
});

Deno.test("delete takes one checkpoint off the list, and refuses the current one and a pinned one", async () => {
  await using scene = new PruneScene(7);
  await history(scene);
  const pruner = scene.pruner();
  const refused = (reference: string) =>
    assert.rejects(pruner.remove(reference, { force: false }), (error) => isError(error, "wrong-state"));
  await refused("latest");
  await pruner.annotate("v2", { pinned: true });
  await refused("v2");
  assert.equal(scene.changes, 1, "databases hear of it");
  await pruner.remove("3", { force: false });
  assert.equal(scene.changes, 2, "what it held may go");
  assert.deepEqual(scene.head.checkpoints.map(({ n, pinned }) => [n, pinned ?? false]), [
    [1, false],
    [2, true],
    [4, false],
    [5, false],
  ]);
  await assert.rejects(
    pruner.remove("3", { force: false }),
    (error) => isError(error, "checkpoint-not-found"),
  );
  assert.deepEqual((await pruner.prune({ dryRun: false })).forgotten.map(({ n }) => n), [1, 4]);
  await pruner.remove("2", { force: true });
  await pruner.prune({ dryRun: false });
  scene.pass(HOUR_MS);
  await pruner.prune({ dryRun: false });
  assert.deepEqual(await scene.unnamed(), []);
  await scene.restoresAll();
});

Deno.test("prune by itself comes a while after the start, deletes an hour later, and never fails the checkpoint", async () => {
  await using scene = new PruneScene(9);
  await history(scene);
  const pruner = scene.pruner();
  const listed = () => scene.head.checkpoints.length;
  await pruner.turn();
  assert.equal(listed(), 5, "not at once");
  scene.pass(HOUR_MS / 4);
  const whole = scene.store;
  scene.store = faulty(whole, {
    clock: systemClock(),
    rules: [{ operation: "list", error: "store-unreachable", count: Infinity }],
  });
  await pruner.turn();
  scene.store = whole;
  assert.deepEqual(
    [listed(), scene.head.doomed],
    [1, []],
    "what goes left the list, what cannot be listed stays",
  );
  await pruner.turn();
  assert.deepEqual(scene.head.doomed, [], "what failed is not tried again at once");
  scene.write("z", FILE_BYTES);
  await scene.checkpoint();
  scene.pass(6 * HOUR_MS);
  await pruner.turn();
  assert.ok(scene.head.doomed.length > 0);
  const there = (await scene.keys()).length;
  scene.pass(HOUR_MS);
  await pruner.turn();
  assert.ok(
    (await scene.keys()).length < there,
    "the next checkpoint deletes what nobody can be reading any more",
  );
  assert.deepEqual(await scene.unnamed(), []);
  await scene.restoresAll();
});

/** One more operation than a prune with everything in it needs. */
const OPERATIONS_LIMIT = 200;

for (const when of ["before", "after"] as const) {
  Deno.test(`prune that dies ${when} any store operation loses nothing, and the next one ends its work`, async () => {
    await using scene = new PruneScene(8);
    await history(scene);
    scene.keep = { ...KEEP_NOTHING, last: 2 };
    await scene.pruner().prune({ dryRun: false });
    scene.pass(HOUR_MS);
    scene.keep = KEEP_NOTHING;
    const whole = scene.store;
    let points = 0;
    for (let nth = 1; nth < OPERATIONS_LIMIT; nth++) {
      const store = await copyOf(whole);
      scene.store = store;
      await scene.takeOver();
      // It forgets, repacks, dooms, and sweeps what was doomed an hour ago.
      const broken = faulty(store, {
        clock: systemClock(),
        rules: [
          { nth, error: "store-unreachable", when },
          { nth: nth + 1, error: "store-unreachable", count: Infinity },
        ],
      });
      scene.store = broken;
      await scene.takeOver().catch(() => {});
      const ended = await scene.pruner().prune({ dryRun: false }).then(() => true, () => false);
      const struck = broken.hits > 0;
      scene.store = store;
      await scene.takeOver();
      await scene.restoresAll();
      await scene.pruner().prune({ dryRun: false });
      scene.pass(HOUR_MS);
      await scene.pruner().prune({ dryRun: false });
      assert.deepEqual(await scene.unnamed(), [], `operation ${nth}`);
      await scene.restoresAll();
      if (ended && !struck) break;
      points++;
    }
    assert.ok(points > 20 && points < OPERATIONS_LIMIT - 1, `${points} operations`);
    say(`${points} operations`);
  });
}

async function bytesOf(scene: PruneScene): Promise<number> {
  let bytes = 0;
  for await (const { sizeBytes } of listAll(scene.store, "checkpoints/")) bytes += sizeBytes;
  return bytes;
}

Deno.test("prunes between random edits and checkpoints keep every kept checkpoint as it was, and the store small", async () => {
  const seed = Number(Deno.env.get("STATE_MANAGER_TEST_SEED") ?? Date.now() % 1_000_000);
  say(`seed ${seed}`);
  await using scene = new PruneScene(seed);
  const below = (limit: number) => Math.floor(scene.random.float() * limit);
  scene.keep = { ...KEEP_NOTHING, last: 3 };
  scene.graceMs = 60_000;
  const names = new Set<string>();
  for (let round = 0; round < 40; round++) {
    for (let edit = below(4); edit >= 0; edit--) {
      const name = `f${below(12)}`;
      if (names.has(name) && below(3) === 0) {
        scene.remove(name);
        names.delete(name);
      } else {
        scene.write(name, 1000 + below(60_000));
        names.add(name);
      }
    }
    await scene.checkpoint(below(8) === 0 ? { pinned: true } : {});
    scene.pass(below(100_000));
    if (below(5) === 0) await scene.takeOver();
    if (below(2) === 0) await scene.pruner().prune({ dryRun: false });
    if (below(6) === 0) await scene.restoresAll();
  }
  for (const { id } of scene.head.checkpoints.filter(({ pinned }) => pinned)) {
    await scene.pruner().annotate(id, { pinned: false });
  }
  for (let i = 0; i < 2; i++) {
    await scene.pruner().prune({ dryRun: false });
    scene.pass(60_000);
  }
  await scene.pruner().prune({ dryRun: false });
  await scene.restoresAll();
  assert.deepEqual(await scene.unnamed(), []);
  const trees = scene.head.checkpoints.reduce((sum, { files }) => sum + (files["data"]?.bytes ?? 0), 0);
  assert.ok(await bytesOf(scene) < trees * 2 + 100_000, `${await bytesOf(scene)} stored for ${trees}`);
});
