/**
 * The folder store with each of its file operations failed, and on a disk that loses power: what was acknowledged is
 * there, what failed is there whole or not at all, and a refused condition stays true.
 */

import assert from "node:assert/strict";
import { systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { faultyFiles, type FileFaultRule } from "../../src/platform/faulty_files.ts";
import type { LocalFiles } from "../../src/platform/local_files.ts";
import { MemoryDisk } from "../../src/platform/memory_disk.ts";
import { directoryStore, type ObjectStore, type PutOptions } from "../../src/storage/mod.ts";
import { testObjectStore } from "../contract/object_store_contract.ts";
import { randomOf } from "../support/seeded_random.ts";

const machineClock = systemClock();
const POWER_CUTS = 12;
/** More than the longest subject has. */
const MOST_OPERATIONS = 400;

/** Each write is a millisecond after the one before it, as on a disk, where a sync takes longer. */
function ticking(): () => number {
  let nowMs = Date.UTC(2030, 0, 1);
  return () => ++nowMs;
}

let storeCount = 0;

/** As a new process opens it. */
function storeOn(files: LocalFiles, wallMs: () => number): ObjectStore {
  const random = randomOf(++storeCount);
  return directoryStore({ path: "/store", clock: { ...machineClock, wallMs }, random, files });
}

testObjectStore({
  name: "folder store on a disk in memory",
  open() {
    const wallMs = ticking();
    return Promise.resolve({
      store: storeOn(new MemoryDisk(wallMs), wallMs),
      finish: () => Promise.resolve(),
    });
  },
});

const KEY = "some/where/object";
const bytes = (text: string) => new TextEncoder().encode(text);

async function contentOf(store: ObjectStore): Promise<string | null> {
  try {
    const { body, metadata } = await store.get(KEY);
    assert.deepEqual(metadata, { of: new TextDecoder().decode(body) });
    return new TextDecoder().decode(body);
  } catch (error) {
    if (isError(error, "object-not-found")) return null;
    throw error;
  }
}

const put = (store: ObjectStore, text: string) => store.put(KEY, bytes(text), { metadata: { of: text } });

async function putLarge(
  store: ObjectStore,
  text: string,
  condition?: PutOptions["condition"],
): Promise<void> {
  const pieces = async function* () {
    for (const letter of text) yield await Promise.resolve(bytes(letter));
  };
  await store.putLarge(KEY, pieces(), {
    sizeBytes: text.length,
    metadata: { of: text },
    ...(condition === undefined ? {} : { condition }),
  });
}

async function swap(store: ObjectStore, text: string): Promise<void> {
  const { etag } = await store.head(KEY);
  await store.put(KEY, bytes(text), { metadata: { of: text }, condition: { etag } });
}

interface Subject {
  readonly name: string;
  prepare(store: ObjectStore): Promise<unknown>;
  change(store: ObjectStore): Promise<unknown>;
  readonly old: string | null;
  readonly new: string | null;
}

const SUBJECTS: readonly Subject[] = [
  {
    name: "a create",
    prepare: async () => {},
    change: (store) => store.put(KEY, bytes("new"), { metadata: { of: "new" }, condition: { absent: true } }),
    old: null,
    new: "new",
  },
  {
    name: "a create of a large object",
    prepare: async () => {},
    change: (store) => putLarge(store, "new", { absent: true }),
    old: null,
    new: "new",
  },
  {
    name: "an overwrite by a large object",
    prepare: (store) => put(store, "old"),
    change: (store) => putLarge(store, "new"),
    old: "old",
    new: "new",
  },
  {
    name: "a first swap",
    prepare: (store) => put(store, "old"),
    change: (store) => swap(store, "new"),
    old: "old",
    new: "new",
  },
  {
    name: "a swap after many, which prunes",
    prepare: async (store) => {
      await put(store, "first");
      for (let n = 0; n < 9; n++) await swap(store, `n${n}`);
      await swap(store, "old");
    },
    change: (store) => swap(store, "new"),
    old: "old",
    new: "new",
  },
  {
    name: "an overwrite",
    prepare: (store) => put(store, "old"),
    change: (store) => put(store, "new"),
    old: "old",
    new: "new",
  },
  {
    name: "a delete of a plain object",
    prepare: (store) => put(store, "old"),
    change: (store) => store.delete(KEY),
    old: "old",
    new: null,
  },
  {
    name: "a delete of a swapped object",
    prepare: async (store) => {
      await put(store, "first");
      await swap(store, "old");
    },
    change: (store) => store.delete(KEY),
    old: "old",
    new: null,
  },
  {
    name: "a create after a delete",
    prepare: async (store) => {
      await put(store, "first");
      await swap(store, "second");
      await store.delete(KEY);
    },
    change: (store) => put(store, "new"),
    old: null,
    new: "new",
  },
];

async function run(subject: Subject, rule: FileFaultRule) {
  const wallMs = ticking();
  const disk = new MemoryDisk(wallMs);
  await subject.prepare(storeOn(disk, wallMs));
  const files = faultyFiles(disk);
  const fault = files.inject(rule);
  const error = await subject.change(storeOn(files, wallMs)).then(() => null, (error) => error);
  fault.end();
  return { disk, wallMs, error, hit: fault.hits > 0 };
}

const FAULTS: readonly FileFaultRule[] = [
  { errno: "EIO" },
  { errno: "EIO", when: "after" },
  { errno: "ENOSPC", changing: true },
  { errno: "ENOSPC", changing: true, takes: 2 },
];
const CRASHES: readonly FileFaultRule[] = [
  { crash: true, changing: true },
  { crash: true, changing: true, when: "after" },
  { crash: true, changing: true, takes: 2 },
];

for (const subject of SUBJECTS) {
  const { name } = subject;
  Deno.test(`${name} in a folder store is done or not when any of its file operations fails`, async () => {
    for (const rule of FAULTS) {
      for (let nth = 1;; nth++) {
        assert.ok(nth < MOST_OPERATIONS);
        const what = `${JSON.stringify(rule)} at operation ${nth}`;
        const { disk, wallMs, error, hit } = await run(subject, { ...rule, nth });
        if (!hit) break;
        const found = await contentOf(storeOn(disk, wallMs));
        assert.ok(found === subject.old || found === subject.new, `${what}: ${found}`);
        if (error === null) assert.equal(found, subject.new, what);
        else {assert.ok(
            isError(error) && error.code !== "internal" && error.hint !== undefined,
            `${what}: ${error}`,
          );}
        // A put that says why it failed did nothing; where that is not sure it says so. A delete is simply made again.
        if (subject.new !== null && isError(error, "store-full", "store-access-denied", "store-refused")) {
          if (rule.when !== "after") assert.equal(found, subject.old, `${what}: ${error}`);
        }
        await subject.change(storeOn(disk, wallMs)).catch((error) => {
          assert.ok(isError(error, "precondition-failed", "object-not-found"), `${what}: ${error}`);
        });
        assert.equal(await contentOf(storeOn(disk, wallMs)), subject.new, what);
      }
    }
  });

  Deno.test(`${name} in a folder store is durable once it is acknowledged, and never torn, when the power fails`, async () => {
    for (const rule of CRASHES) {
      for (let nth = 1, hit = true; hit; nth++) {
        assert.ok(nth < MOST_OPERATIONS);
        hit = false;
        for (let seed = 0; seed < POWER_CUTS; seed++) {
          const what = `${JSON.stringify(rule)} at operation ${nth}, seed ${seed}`;
          const outcome = await run(subject, { ...rule, nth });
          hit ||= outcome.hit;
          const store = () => storeOn(outcome.disk, outcome.wallMs);
          const before = await contentOf(store());
          assert.ok(before === subject.old || before === subject.new, `${what}: ${before}`);
          outcome.disk.powerCut(randomOf(seed));
          const found = await contentOf(store());
          assert.ok(found === subject.old || found === subject.new, `${what}, power cut: ${found}`);
          if (outcome.error === null) assert.equal(found, subject.new, what);
          await put(store(), "afterwards");
          assert.equal(await contentOf(store()), "afterwards", what);
          const { objects } = await store().list({ prefix: "" });
          assert.deepEqual(objects.map(({ key }) => key), [KEY], what);
        }
      }
    }
  });
}

Deno.test("a refused create stays refused: what is there survives the power cut that follows", async () => {
  for (let seed = 0; seed < 100; seed++) {
    const wallMs = ticking();
    const disk = new MemoryDisk(wallMs);
    // The first one dies right after its link, before it makes it durable.
    const files = faultyFiles(disk, { rules: [{ operation: "link", crash: true, when: "after" }] });
    await assert.rejects(storeOn(files, wallMs).put(KEY, bytes("first"), { condition: { absent: true } }));
    const second = storeOn(disk, wallMs).put(KEY, bytes("second"), { condition: { absent: true } });
    await assert.rejects(second, (error) => isError(error, "precondition-failed"));
    disk.powerCut(randomOf(seed));
    const { body } = await storeOn(disk, wallMs).get(KEY);
    assert.equal(new TextDecoder().decode(body), "first", `seed ${seed}`);
  }
});
