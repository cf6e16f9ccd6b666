/** Checkpoints of an encrypted repository: the trees come back, the store tells nothing, and nothing can be changed in it. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type Cipher, plainCipher, sealingCipher } from "../../src/checkpoint/cipher.ts";
import { loadCodec } from "../../src/checkpoint/codec.ts";
import { composeRestoreRoot } from "../../src/checkpoint/compose.ts";
import { sha256Hex } from "../../src/checkpoint/ids.ts";
import { encodeIndexes } from "../../src/checkpoint/index_format.ts";
import { FLAG_SEALED, FLAG_ZSTD, type PackEntry, readPackEntries } from "../../src/checkpoint/pack.ts";
import { rebuildIndexes } from "../../src/checkpoint/mod.ts";
import { salvageTo } from "../../src/checkpoint/salvage.ts";
import { isError } from "../../src/platform/errors.ts";
import { systemRandom, ulid } from "../../src/platform/random.ts";
import { Secret } from "../../src/platform/secret.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { listAll, type ObjectStore } from "../../src/storage/object_store.ts";
import { CheckpointRuns, watchedStore } from "../support/checkpoint_runs.ts";
import { entryList } from "../support/entry_list.ts";
import { damagedObjects, keptRepository, storeOf, TOKEN, verifyStore } from "../support/kept_repository.ts";
import { PruneScene } from "../support/prune_scene.ts";
import { listTree } from "../support/tree_listing.ts";

const random = systemRandom();
const repoId = "ab".repeat(16);
const isDamage = (error: unknown) => isError(error, "data-damaged");

function newCipher(): Cipher {
  return sealingCipher({
    repoId,
    dataKey: new Secret(Buffer.from(random.bytes(32)).toString("base64")),
  }, random);
}

function runsWith(cipher: Cipher) {
  const watched = watchedStore();
  const runs = new CheckpointRuns(watched.store);
  runs.cipher = cipher;
  return { ...watched, runs };
}

const NAME = "marker-file-name";
/** Does not compress, so that it stands in an unencrypted store as it is. */
const NOISE = random.bytes(60_000);
const TEXT = "marker-content\n".repeat(200);

async function fill(folder: string): Promise<void> {
  await Deno.mkdir(`${folder}/marker-folder`);
  await Deno.writeTextFile(`${folder}/marker-folder/${NAME}`, TEXT);
  await Deno.symlink("marker-target", `${folder}/marker-link`);
  await Deno.writeFile(`${folder}/noise`, NOISE);
  await Deno.writeTextFile(`${folder}/secret.pem`, "");
}

async function objectsOf(store: ObjectStore): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
  const objects = new Map<string, Uint8Array<ArrayBuffer>>();
  for await (const { key } of listAll(store, "")) objects.set(key, (await store.get(key)).body);
  return objects;
}

/** What in `objects` somebody without the key can read of the markers, blobs of packs unpacked where they can be. */
async function readable(objects: ReadonlyMap<string, Uint8Array<ArrayBuffer>>): Promise<string[]> {
  const codec = await loadCodec();
  const noise = Buffer.from(NOISE.subarray(1000, 1032));
  const found: string[] = [];
  const look = (bytes: Uint8Array, where: string) => {
    const buffer = Buffer.from(bytes);
    for (const marker of ["marker-", "secret.pem", noise]) {
      if (buffer.includes(marker)) found.push(`${typeof marker === "string" ? marker : "noise"} in ${where}`);
    }
  };
  for (const [key, bytes] of objects) {
    look(bytes, key);
    if (!key.startsWith("checkpoints/packs/")) continue;
    for (const { offset, storedLength, length, flags } of readPackEntries(bytes, key)) {
      if ((flags & FLAG_ZSTD) === 0) continue;
      try {
        look(codec.decompress(bytes.slice(offset, offset + storedLength), length), `${key} unpacked`);
      } catch {
        // no frame: nothing to read
      }
    }
  }
  return found;
}

Deno.test("encrypted checkpoints come back byte for byte, and only what is new is stored", async () => {
  const { runs, puts } = runsWith(newCipher());
  await using _ = runs;
  await fill(runs.files);
  const first = await runs.create();
  assert.ok(first.record !== null);
  assert.deepEqual(await listTree((await runs.stage()).path), await listTree(runs.files));
  assert.equal((await runs.create()).record, null, "nothing changed, nothing written");
  await Deno.writeTextFile(`${runs.files}/later`, "new");
  const count = puts.length;
  const second = await runs.create();
  const sent = puts.slice(count).reduce((sum, { bytes }) => sum + bytes, 0);
  assert.ok(sent < 10_000, `${sent} bytes for one small file`);
  assert.deepEqual(await listTree((await runs.stage()).path), await listTree(runs.files));
  // A restore to the past writes a root object as well: sealed under its own key.
  const request = {
    ...{ id: ulid(Date.now(), random), time: Date.now(), token: 1, head: runs.head, source: first.record },
    ...{ names: ["data"], comment: "", labels: {} },
  };
  const { record: composed } = await composeRestoreRoot(request, runs.environment());
  const { path } = await runs.stage(composed);
  await assert.rejects(Deno.stat(`${path}/later`), Deno.errors.NotFound);
  assert.equal(await Deno.readTextFile(`${path}/marker-folder/${NAME}`), TEXT);
  assert.ok(second.record !== null);
});

Deno.test("encrypted store tells neither names nor content, where a plain one does", async () => {
  for (const cipher of [plainCipher, newCipher()]) {
    const { runs, store } = runsWith(cipher);
    await using _ = runs;
    await fill(runs.files);
    const { record } = await runs.create();
    assert.ok(record !== null);
    const objects = await objectsOf(store);
    const kinds = new Set([...objects.keys()].map((key) => key.split("/")[1]));
    assert.deepEqual([...kinds].sort(), ["index", "packs", "roots"]);
    const found = await readable(objects);
    const entries = [...objects].filter(([key]) => /packs/.test(key)).flatMap((
      [key, pack],
    ) => [...readPackEntries(pack, key)]);
    assert.ok(entries.every(({ flags }) => ((flags & FLAG_SEALED) !== 0) === cipher.seals));
    if (cipher.seals) assert.deepEqual(found, []);
    else {for (const word of [/marker-.*unpacked/, /secret\.pem.*unpacked/, /noise/]) {
        assert.match(found.join("\n"), word);
      }}
    // Equal content under another key has other names: nothing can be looked for.
    const ids = entries.map(({ id }) => Buffer.from(id).toString("hex"));
    assert.equal(ids.includes(sha256Hex(NOISE)), !cipher.seals);
    assert.equal(JSON.stringify(record).includes(sha256Hex(NOISE)), false);
  }
});

Deno.test("encrypted checkpoint is not read with another key, nor without one", async () => {
  const { runs } = runsWith(newCipher());
  await using _ = runs;
  await fill(runs.files);
  await runs.create();
  for (const cipher of [newCipher(), plainCipher]) {
    runs.cipher = cipher;
    await assert.rejects(runs.stage(), isDamage);
  }
});

Deno.test("whatever is changed in an encrypted store is found, or changes nothing", async () => {
  const { runs, store, watch } = runsWith(newCipher());
  await using _ = runs;
  await Deno.writeTextFile(`${runs.files}/a`, "marker ".repeat(30));
  await Deno.writeFile(`${runs.files}/b`, random.bytes(200));
  await runs.create();
  const wanted = await listTree(runs.files);
  let refused = 0;
  for (const [key, bytes] of await objectsOf(store)) {
    const isPack = key.includes("/packs/");
    const blobs = isPack ? [...readPackEntries(bytes, key)] : [];
    const inBlob = (at: number) =>
      !isPack || blobs.some(({ offset, storedLength }) => at >= offset && at < offset + storedLength);
    const stride = Math.max(1, Math.floor(bytes.length / 40));
    for (let at = 0; at < bytes.length; at += stride) {
      watch.onGet = (object) => {
        if (object.key !== key) return object;
        const body = object.body.slice();
        body[at] = (body[at] ?? 0) ^ 0x10;
        return { ...object, body };
      };
      // A copy of the index would be taken instead of the damaged one.
      await Deno.remove(`${runs.folder}/cache`, { recursive: true }).catch(() => {});
      const result = await runs.stage().then(({ path }) => path, (error) => {
        assert.ok(isDamage(error), `${key} ${at}: ${error}`);
        return null;
      });
      if (result === null) refused++;
      else {
        // Magic and footer of a pack are not what a restore reads.
        assert.ok(!inBlob(at), `${key} ${at} was not noticed`);
        assert.deepEqual(await listTree(result), wanted);
      }
    }
  }
  assert.ok(refused > 60, `${refused} refusals`);
});

Deno.test("encrypted checkpoint that threads read comes back, and every blob of theirs is sealed", async () => {
  const { runs, store } = runsWith(newCipher());
  await using _ = runs;
  runs.machine = { cores: 3, memoryLimitBytes: 2 ** 40 };
  for (const name of ["a", "b"]) {
    const noise = new Uint8Array(14_000_000);
    for (let at = 0; at < noise.length; at += 50_000) noise.set(random.bytes(50_000), at);
    await Deno.writeFile(`${runs.files}/${name}`, noise);
    await Deno.writeTextFile(`${runs.files}/text-${name}`, `marker-${name}\n`.repeat(100_000));
  }
  await runs.create();
  const packs = [...await objectsOf(store)].filter(([key]) => key.includes("/packs/"));
  assert.ok(packs.length > 3, `${packs.length} packs`);
  for (const [key, pack] of packs) {
    for (const { flags, offset, storedLength } of readPackEntries(pack, key)) {
      assert.ok((flags & FLAG_SEALED) !== 0);
      const name = key.slice("checkpoints/packs/".length);
      runs.cipher.openBlob({ pack: name, offset }, pack.subarray(offset, offset + storedLength)); // throws otherwise
    }
  }
  assert.deepEqual(await listTree((await runs.stage()).path), await listTree(runs.files));
});

Deno.test("prune of an encrypted repository repacks what is half empty, and all that is kept comes back", async () => {
  await using scene = new PruneScene(7);
  scene.cipher = newCipher();
  const bytes = 400_000;
  for (const name of ["a", "b", "c"]) scene.write(name, bytes);
  await scene.checkpoint();
  for (const name of ["a", "b"]) scene.remove(name);
  await scene.checkpoint();
  scene.write("d", bytes);
  await scene.checkpoint();
  const { report } = await scene.pruner().prune({ dryRun: false });
  assert.ok(report !== null && report.repackedPacks > 0);
  scene.pass(3_600_000);
  await scene.pruner().prune({ dryRun: false });
  await scene.restoresAll();
  assert.deepEqual(await scene.unnamed(), []);
  for (const [key, pack] of await objectsOf(scene.store)) {
    if (!key.includes("/packs/")) continue;
    assert.ok([...readPackEntries(pack, key)].every(({ flags }) => (flags & FLAG_SEALED) !== 0));
  }
});

Deno.test("encrypted repository is verified, repaired and salvaged as any other", async () => {
  const key = { kind: "key", value: new Secret(Buffer.from(random.bytes(32)).toString("base64")) } as const;
  await using repository = await keptRepository(2, memoryStore(), key);
  const objects = await repository.objects();
  const whole = await verifyStore(repository.store, repository, { level: 4 });
  assert.deepEqual([whole.findings, whole.checkpoints], [[], 2]);
  const [pack] = [...objects].filter(([each]) => each.includes("/packs/"))
    .sort(([, a], [, b]) => b.length - a.length).map(([each]) => each);
  assert.ok(pack !== undefined);
  const hurt = await storeOf(damagedObjects(objects, pack, "flipped", { at: 300_000 }));
  const { findings } = await verifyStore(hurt, repository);
  assert.deepEqual(findings.map(({ object }) => object), [pack]);
  const environment = { ...repository.runs.environment(), store: hurt, cacheFolder: null };
  const { head } = repository.head;
  const [record] = head.checkpoints;
  assert.ok(record !== undefined);
  const folder = `${repository.runs.folder}/salvaged`;
  const salvaged = await salvageTo({ record, head, indexes: head.indexes, names: null, folder }, environment);
  assert.deepEqual(salvaged.lost.map(({ path }) => path), ["large"]);
  const repair = { head, token: TOKEN, readPacks: true, dryRun: false };
  const repaired = await rebuildIndexes(repair, environment);
  assert.ok(repaired.savedChunks > 0 && repaired.lostChunks.length > 0);
  // What was saved lies in another place, sealed for that.
  const stage = `${repository.runs.folder}/stage`;
  const request = { record, indexes: repaired.indexes, names: null, folder: stage };
  const again = await salvageTo({ ...request, head }, environment);
  assert.deepEqual(again.lost.map(({ path }) => path), ["large"]);
  assert.equal(await Deno.readTextFile(`${stage}/data/same`), "the same in all of them");
});

/** One checkpoint of two files whose blobs are of equal length, and the pack that holds them. */
async function withTwins() {
  const scene = runsWith(newCipher());
  const { runs, store } = scene;
  for (const name of ["a", "b"]) await Deno.writeFile(`${runs.files}/${name}`, random.bytes(500));
  await runs.create();
  const packs = [...await objectsOf(store)].filter(([key]) => key.includes("/packs/"));
  const [data] = packs.filter(([key, bytes]) => readPackEntries(bytes, key).length === 2);
  assert.ok(data !== undefined && packs.length === 2);
  const [key, bytes] = data;
  const [first, second] = readPackEntries(bytes, key);
  assert.ok(first !== undefined && second !== undefined && first.storedLength === second.storedLength);
  return { ...scene, key, bytes, first, second, packs };
}

Deno.test("blobs that change places in a pack, or packs that change names, are found", async () => {
  const { runs, watch, key, bytes, first, second, packs } = await withTwins();
  await using _ = runs;
  const swapped = bytes.slice();
  swapped.set(bytes.subarray(second.offset, second.offset + second.storedLength), first.offset);
  swapped.set(bytes.subarray(first.offset, first.offset + first.storedLength), second.offset);
  watch.onGet = (object) => object.key === key ? { ...object, body: swapped } : object;
  await assert.rejects(runs.stage(), isDamage);
  watch.onGet = (object) => {
    const other = packs.find(([name]) => name !== object.key);
    return object.key.includes("/packs/") && other !== undefined
      ? { ...object, body: other[1], sizeBytes: object.sizeBytes }
      : object;
  };
  await assert.rejects(runs.stage(), isDamage);
});

Deno.test("index that was written anew to send a reader to another blob, or to one in clear, is of no use", async () => {
  const { runs, store, watch, key, bytes, first, second, packs } = await withTwins();
  await using _ = runs;
  const codec = await loadCodec();
  const packOf = (name: string, entries: readonly PackEntry[]) => ({
    pack: {
      name: name.replace("checkpoints/packs/", ""),
      sizeBytes: packs.find(([each]) => each === name)?.[1].length ?? 0,
    },
    entries: entryList(entries),
  });
  const others = packs.filter(([name]) => name !== key)
    .map(([name, body]) => packOf(name, [...readPackEntries(body, name)]));
  /** The head names it by its new hash: whoever can write the bucket can do that as well. */
  const forge = async (entries: readonly PackEntry[]) => {
    const [index] = encodeIndexes(codec, [packOf(key, entries), ...others]);
    const [ref] = runs.head.indexes;
    assert.ok(index !== undefined && ref !== undefined);
    await store.put(ref.key, index);
    runs.head = { ...runs.head, indexes: [{ key: ref.key, sha256: sha256Hex(index) }] };
  };
  await forge([first, second]);
  assert.deepEqual(
    await listTree((await runs.stage()).path),
    await listTree(runs.files),
    "the forging itself works",
  );
  await forge([{ ...first, id: second.id }, { ...second, id: first.id }]);
  await assert.rejects(runs.stage(), (error) => isDamage(error) && /other bytes/.test(String(error)));
  const content = await Deno.readFile(`${runs.files}/a`);
  watch.onGet = (object) => {
    if (object.key !== key) return object;
    const body = bytes.slice();
    body.set(content, first.offset);
    return { ...object, body };
  };
  await forge([{ ...first, flags: 0, storedLength: 500 }, second]);
  await assert.rejects(
    runs.stage(),
    (error) => isDamage(error) && /is not encrypted/.test(String((error as Error).cause)),
  );
});
