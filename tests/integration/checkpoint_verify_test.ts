/** Every object of a small repository damaged in every way, one by one: verification names it, and whom it hurts. */

import assert from "node:assert/strict";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { DatabaseSync } from "node:sqlite";
import { packName } from "../../src/checkpoint/ids.ts";
import { stageCheckpoint } from "../../src/checkpoint/restore.ts";
import type { CheckpointRecord } from "../../src/checkpoint/types.ts";
import type { VerifyLevel, VerifyResult } from "../../src/checkpoint/verify_types.ts";
import { isError } from "../../src/platform/errors.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import {
  type Damage,
  damagedObjects,
  type KeptRepository,
  keptRepository,
  knownHead,
  storeOf,
  TOKEN,
  verifyStore,
} from "../support/kept_repository.ts";

function objectsIn({ findings }: VerifyResult): string[] {
  return findings.map(({ object }) => object);
}

const isPack = (key: string) => key.startsWith("checkpoints/packs/");

/** Level at which this damage is promised to be found. `flipped` packs: in the blobs, unless it is their footer. */
function promised(key: string, damage: Damage): VerifyLevel {
  return isPack(key) && damage === "flipped" ? 3 : 1;
}

let stages = 0;

/** True when the checkpoint can be restored from this store, which is the only judge. */
async function restores(store: ObjectStore, repository: KeptRepository, record: CheckpointRecord) {
  const stage = `${repository.runs.folder}/stage-of-${++stages}`;
  const request = { record, indexes: repository.head.head.indexes, roots: [{ name: "data", stage }] };
  try {
    await stageCheckpoint(request, { ...repository.runs.environment(), store, cacheFolder: null });
    return true;
  } catch (error) {
    assert.ok(isError(error, "data-damaged"), `threw ${error}`);
    return false;
  }
}

Deno.test("a whole repository passes every level, and each level says what it looked at", async () => {
  await using repository = await keptRepository(3);
  const { store } = repository;
  for (const level of [1, 2, 3, 4] as const) {
    const result = await verifyStore(store, repository, { level });
    assert.deepEqual(result.findings, []);
    assert.equal(result.checkpoints, 3);
    assert.equal(result.packs, 6);
    assert.equal(result.packsRead, level >= 3 ? 6 : 0);
  }
  const first = await verifyStore(store, repository, { checkpoint: repository.records[0]?.id ?? "" });
  assert.deepEqual([first.checkpoints, first.packs, first.findingsTotal], [1, 2, 0], "only what it needs");
});

Deno.test("each object that is deleted, cut, changed or replaced is named at the level that promises it", async () => {
  await using repository = await keptRepository();
  const objects = await repository.objects();
  const kinds = ["repo.json", "head.json", "checkpoints/roots/", "checkpoints/index/", "checkpoints/packs/"];
  for (const kind of kinds) assert.ok([...objects.keys()].some((key) => key.startsWith(kind)), kind);
  const known = knownHead(repository.head.head);
  for (const [key, body] of objects) {
    for (const damage of ["deleted", "truncated", "flipped", "replaced"] as const) {
      // By another object of its kind where there is one, else by one of another kind.
      const folder = key.slice(0, key.lastIndexOf("/") + 1);
      const other = [...objects.keys()].find((each) => each !== key && each.startsWith(folder)) ?? "";
      const by = key === "repo.json" ? objects.get("head.json") : objects.get(other);
      const at = isPack(key) ? 40 : 0;
      const store = await storeOf(
        damagedObjects(objects, key, damage, { at, ...(by === undefined ? {} : { by }) }),
      );
      const what = `${key} (${body.length} bytes) ${damage}`;
      for (const level of [1, 2, 3] as const) {
        if (level < promised(key, damage)) continue;
        const result = await verifyStore(store, repository, { level, known });
        assert.deepEqual(
          objectsIn(result),
          [key],
          `${what}, level ${level}: ${JSON.stringify(result.findings)}`,
        );
        assert.equal(result.findings[0]?.problem, damage === "deleted" ? "missing" : "damaged", what);
      }
    }
  }
});

Deno.test("what a damaged object hurts is what cannot be restored any more", async () => {
  await using repository = await keptRepository(3);
  const objects = await repository.objects();
  for (const key of objects.keys()) {
    if (!key.startsWith("checkpoints/")) continue;
    const store = await storeOf(damagedObjects(objects, key, "deleted"));
    const result = await verifyStore(store, repository, { level: 1 });
    const hurt = result.findings[0]?.checkpoints.map(({ id }) => id) ?? [];
    for (const record of repository.records) {
      const isHurt = !await restores(store, repository, record);
      assert.equal(hurt.includes(record.id), isHurt, `${key}: v${record.n}`);
      const one = await verifyStore(store, repository, { level: 1, checkpoint: record.id });
      assert.equal(one.findingsTotal > 0, isHurt, `v${record.n} of ${key}`);
    }
  }
});

Deno.test("a pack that lost its last byte hurts whoever needs it, though every chunk in it is whole", async () => {
  await using repository = await keptRepository(3);
  const objects = await repository.objects();
  for (const [key, body] of objects) {
    if (!isPack(key)) continue;
    const store = await storeOf(new Map(objects).set(key, body.slice(0, -1)));
    for (const level of [1, 2, 3, 4] as const) {
      const result = await verifyStore(store, repository, { level });
      assert.deepEqual(objectsIn(result), [key], `level ${level}: ${JSON.stringify(result.findings)}`);
      const hurt = result.findings[0]?.checkpoints.map(({ id }) => id) ?? [];
      for (const record of repository.records) {
        assert.equal(hurt.includes(record.id), !await restores(store, repository, record), `v${record.n}`);
      }
    }
  }
});

Deno.test("a changed blob hurts the files that have it, by name, and no others", async () => {
  await using repository = await keptRepository();
  const objects = await repository.objects();
  const [first] = [...objects].filter(([key, body]) => isPack(key) && body.length > 100_000);
  assert.ok(first !== undefined);
  // `large` is read first and comes in several chunks: the first blob is of it.
  const store = await storeOf(damagedObjects(objects, first[0], "flipped", { at: 100_000 }));
  const { findings } = await verifyStore(store, repository);
  assert.equal(findings.length, 1);
  assert.deepEqual(findings[0]?.files, [{ root: "data", path: "large" }]);
  assert.deepEqual(findings[0]?.checkpoints.map(({ n }) => n), [1, 2]);
  const footers = await verifyStore(store, repository, { level: 2 });
  assert.deepEqual(footers.findings, [], "footers say nothing of blobs");
});

Deno.test("a footer that is damaged or another pack's is found without reading the pack", async () => {
  await using repository = await keptRepository();
  const objects = await repository.objects();
  for (const [key, body] of objects) {
    if (!isPack(key)) continue;
    for (const at of [-1, -45, -(40 + 44)]) {
      const store = await storeOf(damagedObjects(objects, key, "flipped", { at }));
      assert.deepEqual((await verifyStore(store, repository, { level: 1 })).findings, []);
      assert.deepEqual(objectsIn(await verifyStore(store, repository, { level: 2 })), [key]);
      const { findings } = await verifyStore(store, repository, { level: 3 });
      assert.deepEqual(
        findings.map(({ object, filesTotal }) => [object, filesTotal]),
        [[key, 0]],
        "every chunk is there",
      );
    }
    // A pack of the same size, whole in itself, with other chunks.
    const twin = new Map(objects);
    twin.set(key, await otherPackOf(body.length));
    assert.deepEqual(objectsIn(await verifyStore(await storeOf(twin), repository, { level: 2 })), [key]);
  }
});

/** A pack in itself right, of this size. */
async function otherPackOf(sizeBytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const { PackBuilder } = await import("../../src/checkpoint/pack.ts");
  const { sha256 } = await import("../../src/checkpoint/ids.ts");
  const builder = new PackBuilder({ name: "00000001/other", cipher: plainCipher });
  const chunk = new Uint8Array(sizeBytes - 5 - 44 - 40).fill(7);
  builder.add(sha256(chunk), chunk, chunk.length, 0);
  const { bytes } = builder.finish();
  assert.equal(bytes.length, sizeBytes);
  return bytes.slice();
}

Deno.test("level 3 finds a change of any byte of a pack", async () => {
  await using repository = await keptRepository(1);
  const objects = await repository.objects();
  for (const [key, body] of objects) {
    if (!isPack(key)) continue;
    const step = Math.max(1, Math.floor(body.length / 23));
    for (let at = 0; at < body.length; at += step) {
      const store = await storeOf(damagedObjects(objects, key, "flipped", { at }));
      assert.deepEqual(
        objectsIn(await verifyStore(store, repository)),
        [key],
        `byte ${at} of ${body.length}`,
      );
    }
  }
});

Deno.test("runs of a few percent read every pack once before any twice, and damaged ones each time", async () => {
  await using repository = await keptRepository(5);
  const objects = await repository.objects();
  const cacheFolder = `${repository.runs.folder}/verify-cache`;
  const reads: string[] = [];
  const watched = (base: ObjectStore): ObjectStore => ({
    ...base,
    get(key, options) {
      if (isPack(key) && options?.range === undefined) reads.push(key);
      return base.get(key, options);
    },
  });
  const run = async (store: ObjectStore) => {
    reads.length = 0;
    return await verifyStore(watched(store), repository, { percent: 20, cacheFolder });
  };
  const seen: string[] = [];
  for (let i = 1; i <= 5; i++) {
    const result = await run(repository.store);
    assert.equal(reads.length, 2, "20 % of ten packs");
    assert.equal(result.allReadSinceMs !== null, i === 5);
    seen.push(...reads);
  }
  assert.equal(new Set(seen).size, 10);
  const [broken = ""] = seen;
  const damaged = await storeOf(damagedObjects(objects, broken, "flipped", { at: 60 }));
  assert.deepEqual(objectsIn(await run(damaged)), [broken], "the one that was read longest ago");
  for (let i = 0; i < 3; i++) {
    assert.deepEqual(objectsIn(await run(damaged)), [broken]);
    assert.equal(reads.length, 3, "besides two others");
  }
  assert.deepEqual((await run(repository.store)).findings, [], "it was brought back");
});

Deno.test("level 4 finds a database that was broken before it was kept", async () => {
  await using repository = await keptRepository(1);
  const path = `${repository.runs.files}/app.db`;
  const database = new DatabaseSync(path);
  database.exec("CREATE TABLE t(x); CREATE INDEX i ON t(x);");
  database.exec("BEGIN");
  for (let i = 0; i < 500; i++) database.exec(`INSERT INTO t VALUES('${String(i).padStart(100, "x")}')`);
  database.exec("COMMIT");
  database.close();
  await repository.checkpoint();
  assert.equal((await verifyStore(repository.store, repository, { level: 4 })).databasesChecked, 1);
  await breakIndex(path, "x499");
  await repository.checkpoint();
  assert.deepEqual(
    (await verifyStore(repository.store, repository)).findings,
    [],
    "every byte is as it was kept",
  );
  const { findings } = await verifyStore(repository.store, repository, { level: 4 });
  assert.deepEqual(findings.map(({ checkpoints }) => checkpoints.map(({ n }) => n)), [[3]]);
  assert.deepEqual(findings[0]?.files, [{ root: "data", path: "app.db" }]);
  assert.match(findings[0]?.detail ?? "", /SQLite says/);
  assert.deepEqual([...Deno.readDirSync(`${repository.runs.folder}/scratch`)], [], "nothing is left");
});

/** Changes one key of an index: pages are well formed (which is looked at when it is kept), but rows are not found. */
async function breakIndex(path: string, text: string): Promise<void> {
  const whole = await Deno.readFile(path);
  const finds = (pragma: string) => {
    const database = new DatabaseSync(path, { readOnly: true });
    try {
      return Object.values(database.prepare(`PRAGMA ${pragma}`).get() ?? {})[0] !== "ok";
    } finally {
      database.close();
    }
  };
  const wanted = new TextEncoder().encode(text);
  for (let at = 0; at < whole.length; at++) {
    if (!wanted.every((byte, i) => whole[at + i] === byte)) continue;
    const changed = whole.slice();
    changed[at + wanted.length - 1] = (changed[at + wanted.length - 1] ?? 0) ^ 1;
    await Deno.writeFile(path, changed);
    if (finds("integrity_check") && !finds("quick_check")) return;
  }
  assert.fail("no index was found");
}

Deno.test("a head that is older than the manager's, or other than it, is named; without a manager so is none at all", async () => {
  await using repository = await keptRepository(1);
  const older = (await repository.store.get("head.json")).body.slice();
  await repository.checkpoint();
  const objects = await repository.objects();
  const known = knownHead(repository.head.head);
  const rolledBack = await storeOf(damagedObjects(objects, "head.json", "replaced", { by: older }));
  const result = await verifyStore(rolledBack, repository, { known });
  assert.deepEqual(objectsIn(result), ["head.json"]);
  assert.equal(result.checkpoints, 2, "the rest is verified by what the manager knows");
  const text = new TextDecoder().decode(objects.get("head.json")).replace('"comment":""', '"comment":"x"');
  const changed = damagedObjects(objects, "head.json", "replaced", { by: new TextEncoder().encode(text) });
  assert.deepEqual(objectsIn(await verifyStore(await storeOf(changed), repository, { known })), [
    "head.json",
  ]);
  const none = await storeOf(damagedObjects(objects, "head.json", "deleted"));
  assert.deepEqual(objectsIn(await verifyStore(none, repository)), ["head.json"]);
  await assert.rejects(verifyStore(memoryStore(), repository), (error) => isError(error, "object-not-found"));
});

Deno.test("what garbage collection removes while it is looked at is not damage", async () => {
  await using repository = await keptRepository(2);
  const before = (await repository.store.get("head.json")).body.slice();
  const [first, second] = repository.records;
  assert.ok(first !== undefined && second !== undefined);
  await repository.head.commit((head) => ({ ...head, checkpoints: [second] }));
  await repository.store.delete(first.root);
  let isFirst = true;
  const racing: ObjectStore = {
    ...repository.store,
    async get(key, options) {
      const object = await repository.store.get(key, options);
      if (key !== "head.json" || !isFirst) return object;
      isFirst = false;
      return { ...object, body: before };
    },
  };
  assert.deepEqual((await verifyStore(racing, repository)).findings, []);
  isFirst = true;
  await repository.store.delete(second.root);
  assert.deepEqual(objectsIn(await verifyStore(racing, repository)), [second.root], "what is still named is");
});

Deno.test("a damaged pack that no checkpoint needs is named, too: the next checkpoint would build on it", async () => {
  await using repository = await keptRepository(2);
  const [, second] = repository.records;
  assert.ok(second !== undefined);
  await repository.head.commit((head) => ({ ...head, checkpoints: [second] }));
  const objects = await repository.objects();
  const only = [...objects.keys()].filter(isPack).sort()[1] ?? "";
  const result = await verifyStore(await storeOf(damagedObjects(objects, only, "deleted")), repository, {
    level: 1,
  });
  assert.deepEqual(objectsIn(result), [only]);
  assert.ok(only.includes(packName(TOKEN, "").slice(0, 8)));
});
