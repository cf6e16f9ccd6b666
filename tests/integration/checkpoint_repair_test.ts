/** Repair of damage inside of packs: what can be read is kept, what is lost comes back with the next checkpoint. */

import assert from "node:assert/strict";
import { rebuildIndexes } from "../../src/checkpoint/mod.ts";
import { stageCheckpoint } from "../../src/checkpoint/restore.ts";
import { salvageTo } from "../../src/checkpoint/salvage.ts";
import {
  damagedObjects,
  type KeptRepository,
  keptRepository,
  noise,
  storeOf,
  TOKEN,
  verifyStore,
} from "../support/kept_repository.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";

async function repair(repository: KeptRepository, store: ObjectStore, readPacks: boolean) {
  const { head } = repository.head;
  return await rebuildIndexes(
    { head, token: TOKEN, readPacks, dryRun: false },
    { ...repository.runs.environment(), store },
  );
}

/** Puts the damaged objects in place of the real ones. */
async function putBack(repository: KeptRepository, objects: ReadonlyMap<string, Uint8Array<ArrayBuffer>>) {
  for (const key of (await repository.objects()).keys()) {
    if (!objects.has(key)) await repository.store.delete(key);
  }
  for (const [key, body] of objects) await repository.store.put(key, body);
}

/** The largest pack: the data of the first checkpoint. */
async function dataPack(repository: KeptRepository): Promise<string> {
  const packs = [...await repository.objects()].filter(([key]) => key.startsWith("checkpoints/packs/"));
  return packs.sort(([, a], [, b]) => b.length - a.length)[0]?.[0] ?? "";
}

Deno.test("a damaged pack is emptied of what can be read, and the next checkpoint heals the others", async () => {
  for (const damage of ["flipped", "truncated", "deleted"] as const) {
    await using repository = await keptRepository(2);
    const pack = await dataPack(repository);
    const objects = damagedObjects(await repository.objects(), pack, damage, { at: 300_000 });
    await putBack(repository, objects);
    const result = await repair(repository, repository.store, true);
    assert.deepEqual(result.damaged.map(({ object }) => object), [pack]);
    assert.ok(result.lostChunks.length > 0);
    assert.equal(result.savedChunks > 0, damage !== "deleted", "something of it can be read");
    await repository.head.commit((head) => ({ ...head, indexes: result.indexes }));
    repository.runs.head = { ...repository.runs.head, indexes: result.indexes };
    const after = await verifyStore(repository.store, repository);
    assert.ok(
      after.findings.every(({ object }) => object.startsWith("chunk ")),
      JSON.stringify(after.findings),
    );
    assert.ok(after.findings.length > 0 && after.findings.length <= result.lostChunks.length);
    // The files are all still there: what is lost is stored again, and with it the old checkpoints are whole.
    await Deno.writeTextFile(`${repository.runs.files}/new`, "one more");
    await repository.checkpoint();
    const healed = await verifyStore(repository.store, repository);
    const changed = healed.findings.flatMap(({ files }) => files.map(({ path }) => path));
    // Only what the live files have no more (an old state of `changing`) cannot come back.
    assert.ok(changed.every((path) => path === "changing"), `${damage}: ${changed}`);
    const last = repository.records.at(-1);
    assert.ok(last !== undefined);
    const stage = `${repository.runs.folder}/healed`;
    const request = { record: last, indexes: repository.head.head.indexes, roots: [{ name: "data", stage }] };
    await stageCheckpoint(request, { ...repository.runs.environment(), cacheFolder: null });
    assert.deepEqual(await Deno.readFile(`${stage}/large`), noise(1, 700_000));
  }
});

Deno.test("repair leaves doomed packs and those of later terms alone", async () => {
  await using repository = await keptRepository(2);
  const objects = await repository.objects();
  const later = [...objects].find(([key]) => key.startsWith("checkpoints/packs/00000001/"));
  assert.ok(later !== undefined);
  const stranger = later[0].replace("/00000001/", "/00000002/");
  const doomed = later[0].replace(/.$/, (last) => (last === "0" ? "1" : "0"));
  await repository.store.put(stranger, later[1]);
  await repository.store.put(doomed, later[1]);
  await repository.head.commit((head) => ({
    ...head,
    doomed: [{ pack: doomed.slice("checkpoints/packs/".length), since: 0 }],
  }));
  for (const { key } of repository.head.head.indexes) await repository.store.delete(key);
  const result = await repair(repository, repository.store, false);
  assert.equal(result.recoveredPacks, 4);
  await repository.head.commit((head) => ({ ...head, indexes: result.indexes }));
  assert.deepEqual((await verifyStore(repository.store, repository)).findings, []);
  const packs = (await verifyStore(repository.store, repository)).packs;
  assert.equal(packs, 4);
});

Deno.test("salvage loses the same files that verification names, and brings all others", async () => {
  await using repository = await keptRepository(2);
  const objects = await repository.objects();
  let runs = 0;
  for (const key of objects.keys()) {
    if (!key.startsWith("checkpoints/packs/")) continue;
    for (const damage of ["deleted", "truncated", "flipped"] as const) {
      const store = await storeOf(damagedObjects(objects, key, damage, { at: 30 }));
      const { findings } = await verifyStore(store, repository);
      const record = repository.records[1];
      assert.ok(record !== undefined);
      const folder = `${repository.runs.folder}/salvage-${++runs}`;
      const { head } = repository.head;
      const result = await salvageTo(
        { record, head, indexes: head.indexes, names: null, folder },
        { ...repository.runs.environment(), store },
      );
      const hurts = findings[0]?.checkpoints.some(({ id }) => id === record.id) ?? false;
      const named = hurts ? findings[0]?.files ?? [] : [];
      const lostLists = named.filter(({ path }) => path === null).length;
      assert.equal(result.lostLists.length, lostLists, `${key} ${damage}`);
      if (lostLists > 0) continue;
      // A finding names files of any checkpoint: those that the second one has as well.
      const ofSecond = (path: string | null) => path !== null && path !== "sub/of-3";
      const expected = named.map(({ path }) => path).filter(ofSecond);
      for (const { path } of result.lost) assert.ok(expected.includes(path), `${path} of ${expected}`);
      for (const name of ["large", "same", "changing", "sub/of-1", "sub/of-2"]) {
        const isLost = result.lost.some(({ path }) => path === name);
        const there = await Deno.readFile(`${folder}/data/${name}`).then(() => true, () => false);
        assert.equal(there, !isLost, `${name}, ${key} ${damage}`);
      }
      if (damage === "flipped") assert.ok(result.lost.length <= 2, "one chunk");
    }
  }
});

Deno.test("of a list of files with a lost piece, salvage brings what the other pieces name", async () => {
  await using repository = await keptRepository(0);
  const folder = `${repository.runs.files}/many`;
  await Deno.mkdir(folder);
  const long = "x".repeat(100);
  for (let i = 0; i < 1500; i++) {
    await Deno.writeTextFile(`${folder}/${long}-${String(i).padStart(5, "0")}`, `${i}`);
  }
  const record = await repository.checkpoint();
  const objects = await repository.objects();
  const [meta] = await metaPacks(objects);
  assert.ok(meta !== undefined);
  const store = await storeOf(damagedObjects(objects, meta, "flipped", { at: 40 }));
  const { head } = repository.head;
  const target = `${repository.runs.folder}/left`;
  const result = await salvageTo(
    { record, head, indexes: head.indexes, names: null, folder: target },
    { ...repository.runs.environment(), store },
  );
  const [list] = result.lostLists;
  assert.ok(list !== undefined && list.known > 500 && list.known < list.entries, JSON.stringify(list));
  const names = [...Deno.readDirSync(`${target}/data/many`)].map(({ name }) => name);
  assert.ok(names.length > 500 && names.length < 1500);
  for (const name of names) {
    assert.equal(await Deno.readTextFile(`${target}/data/many/${name}`), String(Number(name.slice(-5))));
  }
});

/** Packs with pieces of manifests. */
async function metaPacks(objects: ReadonlyMap<string, Uint8Array<ArrayBuffer>>): Promise<string[]> {
  const { FLAG_META, readPackEntries } = await import("../../src/checkpoint/pack.ts");
  return [...objects].flatMap(([key, body]) =>
    key.startsWith("checkpoints/packs/") &&
      [...readPackEntries(body, key)].some(({ flags }) => (flags & FLAG_META) !== 0)
      ? [key]
      : []
  );
}
