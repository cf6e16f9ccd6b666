import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type EncryptionKey, openRepository, readRepository } from "../../src/checkpoint/mod.ts";
import { encodeJson } from "../../src/checkpoint/records.ts";
import { rekeyRepository, repositoryCipher } from "../../src/checkpoint/repository_cipher.ts";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { Secret } from "../../src/platform/secret.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { listAll, type ObjectStore } from "../../src/storage/object_store.ts";

const random = systemRandom();

function randomKey(): EncryptionKey {
  return { kind: "key", value: new Secret(Buffer.from(random.bytes(32)).toString("base64")) };
}

async function encrypted(key: EncryptionKey): Promise<ObjectStore> {
  const store = memoryStore();
  await openRepository(store, { name: "app", random, key });
  return store;
}

async function opens(store: ObjectStore, key: EncryptionKey): Promise<string | null> {
  try {
    return (await repositoryCipher(await readRepository(store), key, random)).forWorker()?.dataKey ?? null;
  } catch (error) {
    assert.ok(isError(error, "encryption-key-wrong"), String(error));
    return null;
  }
}

Deno.test("encrypted repository is made by a key and opened by that key alone", async () => {
  const key = randomKey();
  const store = await encrypted(key);
  const record = await readRepository(store);
  assert.deepEqual([record.format, record.min_reader, record.min_writer], [1, 2, 2]);
  assert.deepEqual(await openRepository(store, { name: "app", random, key }), record);
  assert.notEqual(await opens(store, key), null);
  assert.equal(await opens(store, randomKey()), null);
  await assert.rejects(
    repositoryCipher(record, null, random),
    (error) => isError(error, "encryption-key-missing") && /encryption_key_file/.test(error.hint ?? ""),
  );
  assert.equal((await Array.fromAsync(listAll(store, ""))).length, 1, "nothing else was written");
});

Deno.test("key for a repository that is not encrypted is refused", async () => {
  const store = memoryStore();
  const record = await openRepository(store, { name: "app", random });
  assert.equal((await repositoryCipher(record, null, random)).seals, false);
  for (
    const attempt of [
      () => repositoryCipher(record, randomKey(), random),
      () => rekeyRepository(store, { key: randomKey(), newKey: randomKey(), keepOthers: false, random }),
    ]
  ) {
    await assert.rejects(attempt, (error) => isError(error, "repository-not-encrypted"));
  }
  // Not even for one that was said to be plain after it had been encrypted.
  const key = randomKey();
  const { enc: _gone, ...bare } = await openRepository(await encrypted(key), { name: "app", random, key });
  await assert.rejects(
    repositoryCipher({ ...bare, min_reader: 1, min_writer: 1 }, key, random),
    (error) => isError(error, "repository-not-encrypted"),
  );
});

Deno.test("encrypted repository that asks for no newer reader is damaged", async () => {
  const store = await encrypted(randomKey());
  const record = await readRepository(store);
  await store.put("repo.json", encodeJson({ ...record, min_reader: 1 }));
  await assert.rejects(readRepository(store), (error) => isError(error, "data-damaged"));
});

Deno.test("rekey gives another key the same content, and the old one dies unless it is kept", async () => {
  const [first, second, third] = [randomKey(), randomKey(), randomKey()];
  const store = await encrypted(first);
  const dataKey = await opens(store, first);
  const rekey = (key: EncryptionKey, newKey: EncryptionKey, keepOthers: boolean) =>
    rekeyRepository(store, { key, newKey, keepOthers, random });
  assert.equal(await rekey(first, second, true), 2);
  assert.deepEqual([await opens(store, first), await opens(store, second)], [dataKey, dataKey]);
  assert.equal(await rekey(second, second, false), 1);
  assert.deepEqual([await opens(store, first), await opens(store, second)], [null, dataKey]);
  const before = (await store.get("repo.json")).body;
  await assert.rejects(rekey(first, third, false), (error) => isError(error, "encryption-key-wrong"));
  assert.deepEqual((await store.get("repo.json")).body, before, "nothing was written");
  for (let keys = 2; keys <= 8; keys++) assert.equal(await rekey(second, randomKey(), true), keys);
  await assert.rejects(rekey(second, third, true), (error) => isError(error, "invalid-request"));
  assert.equal(await rekey(second, third, false), 1);
});

Deno.test("rekey keeps what this version does not know in the record", async () => {
  const key = randomKey();
  const store = await encrypted(key);
  await store.put("repo.json", encodeJson({ ...await readRepository(store), later: { a: 1 } }));
  await rekeyRepository(store, { key, newKey: randomKey(), keepOthers: false, random });
  assert.deepEqual(JSON.parse(new TextDecoder().decode((await store.get("repo.json")).body)).later, { a: 1 });
});

class Killed extends Error {}

/** A store that dies before or after its n-th operation; whoever used it is gone. */
function dying(
  base: ObjectStore,
  at: number,
  when: "before" | "after",
): { store: ObjectStore; count: () => number } {
  let count = 0;
  const step = async <T>(work: () => Promise<T>): Promise<T> => {
    const mine = ++count;
    if (mine === at && when === "before") throw new Killed();
    const result = await work();
    if (mine === at) throw new Killed();
    return result;
  };
  const store: ObjectStore = {
    ...base,
    get: (key, options) => step(() => base.get(key, options)),
    put: (key, body, options) => step(() => base.put(key, body, options)),
  };
  return { store, count: () => count };
}

Deno.test("rekey that dies at any operation leaves a repository that exactly one of the keys opens", async () => {
  let steps = 0;
  for (const when of ["before", "after"] as const) {
    for (let at = 1;; at++) {
      const [old, next] = [randomKey(), randomKey()];
      const base = await encrypted(old);
      const dataKey = await opens(base, old);
      const { store, count } = dying(base, at, when);
      const died = await rekeyRepository(store, { key: old, newKey: next, keepOthers: false, random })
        .then(() => false, (error) => {
          assert.ok(error instanceof Killed, String(error));
          return true;
        });
      if (!died) break;
      steps++;
      assert.equal(count(), at);
      const found = [await opens(base, old), await opens(base, next)].filter((key) => key !== null);
      assert.deepEqual(found, [dataKey], `${when} operation ${at}`);
    }
  }
  assert.equal(steps, 4);
});

Deno.test("rekey whose answer was lost knows its own swap, and two at once both count", async () => {
  const [old, next, other] = [randomKey(), randomKey(), randomKey()];
  const base = await encrypted(old);
  let lost = 0;
  const store: ObjectStore = {
    ...base,
    async put(key, body, options) {
      const result = await base.put(key, body, options);
      if (lost++ > 0) return result;
      throw new StateManagerError("outcome-unknown", "put: the answer was lost");
    },
  };
  assert.equal(await rekeyRepository(store, { key: old, newKey: next, keepOthers: false, random }), 1);
  assert.equal(await opens(base, old), null);
  const rekey = (newKey: EncryptionKey) =>
    rekeyRepository(base, { key: next, newKey, keepOthers: true, random });
  await Promise.all([rekey(old), rekey(other)]);
  for (const key of [old, next, other]) assert.notEqual(await opens(base, key), null);
});
