/** A repository in memory with a few checkpoints of a growing tree, made in this process, and ways to damage it. */

import { type EncryptionKey, openRepository, repositoryCipher } from "../../src/checkpoint/mod.ts";
import type { HeadSession } from "../../src/checkpoint/mod.ts";
import type { CheckpointRecord, Head } from "../../src/checkpoint/types.ts";
import { verifyRepository } from "../../src/checkpoint/verify.ts";
import type { VerifyRequest, VerifyResult } from "../../src/checkpoint/verify_types.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { listAll, type ObjectStore } from "../../src/storage/object_store.ts";
import { CheckpointRuns } from "./checkpoint_runs.ts";
import { seededRandom } from "./tree_model.ts";
import { takeOverHead } from "./take_over_head.ts";

export const TOKEN = 1;

export class KeptRepository implements AsyncDisposable {
  readonly runs: CheckpointRuns;
  readonly head: HeadSession;

  constructor(runs: CheckpointRuns, head: HeadSession) {
    this.runs = runs;
    this.head = head;
  }

  get store(): ObjectStore {
    return this.runs.store;
  }

  get records(): readonly CheckpointRecord[] {
    return this.head.head.checkpoints;
  }

  /** A checkpoint of what is in `runs.files` now, committed. */
  async checkpoint(more: { readonly labels?: Record<string, string>; readonly comment?: string } = {}) {
    const { record, indexes } = await this.runs.create({ always: true, token: TOKEN, ...more });
    if (record === null) throw new Error("a checkpoint was expected");
    await this.head.commit((head) => ({
      ...head,
      checkpoints: [...head.checkpoints, record],
      current: record.id,
      indexes,
    }));
    return record;
  }

  /** Every object as it is. */
  async objects(): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
    const objects = new Map<string, Uint8Array<ArrayBuffer>>();
    for await (const { key } of listAll(this.store, "")) {
      objects.set(key, (await this.store.get(key)).body.slice());
    }
    return objects;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.runs[Symbol.asyncDispose]();
  }
}

/** Reproducible bytes that no compression makes smaller. */
export function noise(seed: number, length: number): Uint8Array<ArrayBuffer> {
  const float = seededRandom(seed);
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = Math.floor(float() * 256);
  return bytes;
}

/** Encrypted where a key is given. */
export async function keptRepository(
  checkpoints = 2,
  store = memoryStore(),
  key: EncryptionKey | null = null,
): Promise<KeptRepository> {
  const runs = new CheckpointRuns(store);
  const repo = await openRepository(store, { name: "kept", random: runs.random, key });
  const cipher = await repositoryCipher(repo, key, runs.random);
  runs.cipher = cipher;
  runs.head = { ...runs.head, repo_id: repo.repo_id };
  const head = await takeOverHead(store, { repo, cipher, token: TOKEN, assertHeld: () => {} });
  const repository = new KeptRepository(runs, head);
  await Deno.mkdir(`${runs.files}/sub`);
  await Deno.writeFile(`${runs.files}/large`, noise(1, 700_000));
  await Deno.writeTextFile(`${runs.files}/same`, "the same in all of them");
  for (let i = 1; i <= checkpoints; i++) {
    await Deno.writeFile(`${runs.files}/sub/of-${i}`, noise(10 + i, 3000));
    await Deno.writeTextFile(`${runs.files}/changing`, `as of ${i}\n`.repeat(50));
    await repository.checkpoint();
  }
  return repository;
}

/** A store with these objects. */
export async function storeOf(objects: ReadonlyMap<string, Uint8Array<ArrayBuffer>>): Promise<ObjectStore> {
  const store = memoryStore();
  for (const [key, body] of objects) await store.put(key, body);
  return store;
}

export function verifyStore(
  store: ObjectStore,
  { runs }: KeptRepository,
  request: Partial<VerifyRequest> & {
    readonly cacheFolder?: string | null;
    readonly scratchFolder?: string;
  } = {},
): Promise<VerifyResult> {
  const { cacheFolder = null, scratchFolder = `${runs.folder}/scratch`, ...wish } = request;
  return verifyRepository(
    { checkpoint: null, level: 3, percent: 100, known: null, ...wish },
    { ...runs.environment(), store, cacheFolder, scratchFolder },
  );
}

export type Damage = "deleted" | "truncated" | "flipped" | "replaced";

/** The objects with one of them damaged. Flipped: one bit of the byte at `at`, counted from the end when negative. */
export function damagedObjects(
  objects: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
  key: string,
  damage: Damage,
  { at = 0, by }: { readonly at?: number; readonly by?: Uint8Array<ArrayBuffer> } = {},
): Map<string, Uint8Array<ArrayBuffer>> {
  const changed = new Map(objects);
  const body = objects.get(key) ?? new Uint8Array();
  if (damage === "deleted") changed.delete(key);
  else if (damage === "truncated") changed.set(key, body.slice(0, Math.floor(body.length / 2)));
  else if (damage === "replaced") changed.set(key, by ?? new Uint8Array());
  else {
    const copy = body.slice();
    const index = at < 0 ? copy.length + at : at;
    copy[index] = (copy[index] ?? 0) ^ 0x10;
    changed.set(key, copy);
  }
  return changed;
}

export function knownHead({ repo_id, seq, current, checkpoints, indexes }: Head) {
  return { repo_id, seq, current, checkpoints, indexes };
}
