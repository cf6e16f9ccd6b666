import assert from "node:assert/strict";
import { openRepository, readRepository } from "../../src/checkpoint/repository.ts";
import { encodeJson } from "../../src/checkpoint/records.ts";
import { isError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { listAll, type ObjectStore } from "../../src/storage/object_store.ts";

const random = systemRandom();

async function keysOf(store: ObjectStore): Promise<string[]> {
  return (await Array.fromAsync(listAll(store, ""))).map((object) => object.key);
}

async function put(
  store: ObjectStore,
  key: string,
  value: unknown,
): Promise<void> {
  await store.put(key, encodeJson(value));
}

const mismatch = (error: unknown) => isError(error, "repository-mismatch");

Deno.test("repository is made once and opened ever after", async () => {
  const store = memoryStore();
  const made = await openRepository(store, { name: "app", random });
  assert.deepEqual(await openRepository(store, { name: "app", random }), made);
  assert.deepEqual(await readRepository(store), made);
  assert.match(made.repo_id, /^[0-9a-f]{32}$/);
});

Deno.test("repository is one for all who make it at the same time", async () => {
  const store = memoryStore();
  const opened = await Promise.all(
    Array.from(
      { length: 8 },
      () => openRepository(store, { name: "app", random }),
    ),
  );
  assert.equal(new Set(opened.map((record) => record.repo_id)).size, 1);
});

Deno.test("repository with another name is refused", async () => {
  const store = memoryStore();
  await openRepository(store, { name: "app", random });
  await assert.rejects(
    openRepository(store, { name: "other", random }),
    mismatch,
  );
});

Deno.test("repository of a newer format is refused with nothing written", async () => {
  const store = memoryStore();
  const record = await openRepository(memoryStore(), { name: "app", random });
  await put(store, "repo.json", {
    ...record,
    min_writer: 3,
    chunker: { alg: "new" },
  });
  await assert.rejects(
    openRepository(store, { name: "app", random }),
    (error) => isError(error, "format-too-new"),
  );
  await assert.rejects(
    readRepository(store),
    (error) => isError(error, "format-too-new"),
  );
  assert.deepEqual(await keysOf(store), ["repo.json"]);
});

Deno.test("repository record that is damaged is said so and left alone", async () => {
  const store = memoryStore();
  await store.put("repo.json", new TextEncoder().encode("{"));
  await assert.rejects(
    openRepository(store, { name: "app", random }),
    (error) => isError(error, "data-damaged"),
  );
});

Deno.test("repository is not made in a prefix that holds something else", async () => {
  const store = memoryStore();
  await put(store, "holiday.jpg", {});
  await assert.rejects(
    openRepository(store, { name: "app", random }),
    mismatch,
  );
  assert.deepEqual(await keysOf(store), ["holiday.jpg"]);
});

Deno.test("repository is made beside a lease that somebody has just taken", async () => {
  const store = memoryStore();
  await put(store, "lease.json", {});
  await put(store, "hand-over.json", {});
  await openRepository(store, { name: "app", random });
});

Deno.test("repository is not made around or inside of another one", async () => {
  const outer = memoryStore();
  await put(outer, "deep/er/repo.json", {});
  await assert.rejects(
    openRepository(outer, { name: "app", random }),
    (error) => mismatch(error) && /deep\/er\/repo\.json/.test(String(error)),
  );
  const parent = memoryStore();
  await openRepository(parent, { name: "parent", random });
  const inner = memoryStore();
  await assert.rejects(
    openRepository(inner, {
      name: "app",
      random,
      parents: [memoryStore(), parent],
    }),
    mismatch,
  );
  assert.deepEqual(await keysOf(inner), []);
});

Deno.test("reading a repository that is not there says so and writes nothing", async () => {
  const store = memoryStore();
  await assert.rejects(
    readRepository(store),
    (error) => isError(error, "object-not-found") && error.hint !== undefined,
  );
  assert.deepEqual(await keysOf(store), []);
});
