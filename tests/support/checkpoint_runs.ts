/** Checkpoints made and restored in this process, on any store: the archiver's work without the archiver. */

import { type Cipher, plainCipher } from "../../src/checkpoint/cipher.ts";
import {
  createCheckpoint,
  type CreateRequest,
  type CreateResult,
  type HeadFacts,
} from "../../src/checkpoint/create.ts";
import { stageCheckpoint, type StageRequest, type StageResult } from "../../src/checkpoint/restore.ts";
import type { ArchiveProgress, CheckpointRecord, FilesRoot } from "../../src/checkpoint/types.ts";
import { type Clock, systemClock } from "../../src/platform/clock.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { systemRandom, ulid } from "../../src/platform/random.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import type { ObjectStore, StoredObject } from "../../src/storage/object_store.ts";

/** Made once: they load libc, which older runtimes count as a leak of the test that does it. */
const clock = systemClock();
const random = systemRandom();
isRoot();

export function filesRoot(name: string, path: string): FilesRoot {
  return { name, path, excludePaths: [], exclude: [], includeDatabases: true };
}

/** A store that tells of its puts and lets a test change what a get gives. */
export function watchedStore(base: ObjectStore = memoryStore()) {
  const puts: { key: string; bytes: number }[] = [];
  const watch = {
    beforePut: async (_key: string): Promise<void> => {},
    onGet: (object: StoredObject): StoredObject => object,
  };
  const store: ObjectStore = {
    ...base,
    async put(key, body, options) {
      await watch.beforePut(key);
      options?.signal?.throwIfAborted();
      puts.push({ key, bytes: body.length });
      return await base.put(key, body, options);
    },
    /** A change is one of the stored object, whatever part of it is asked for. */
    async get(key, { range, ...options } = {}) {
      const object = watch.onGet(await base.get(key, options));
      return range === undefined ? object : { ...object, body: object.body.slice(range.start, range.end) };
    },
  };
  return { store, puts, watch };
}

export class CheckpointRuns implements AsyncDisposable {
  readonly folder: string;
  readonly files: string;
  readonly store: ObjectStore;
  clock: Clock = clock;
  machine = { cores: 2, memoryLimitBytes: 2 ** 40 };
  readonly random = random;
  cipher: Cipher = plainCipher;
  head: HeadFacts = {
    repo_id: "ab".repeat(16),
    n: 1,
    current: null,
    indexes: [],
  };
  #stages = 0;

  constructor(
    store: ObjectStore,
    folder = Deno.makeTempDirSync({ prefix: "sm-checkpoint-" }),
  ) {
    this.folder = folder;
    this.files = `${folder}/files`;
    this.store = store;
    for (const name of ["files", "scratch"]) {
      Deno.mkdirSync(`${folder}/${name}`, { recursive: true });
    }
  }

  environment(signal = new AbortController().signal) {
    const { cipher, clock, machine, random, store } = this;
    const cacheFolder = `${this.folder}/cache`;
    const onProgress = (_: ArchiveProgress) => {};
    return {
      cipher,
      clock,
      machine,
      random,
      store,
      cacheFolder,
      signal,
      onProgress,
      scratchFolder: `${this.folder}/scratch`,
      madeBy: "test",
    };
  }

  /** Makes a checkpoint and takes it into the head, unless nothing changed. */
  async create(
    more: Partial<CreateRequest> & { signal?: AbortSignal } = {},
  ): Promise<CreateResult> {
    const { signal, ...request } = more;
    const result = await createCheckpoint({
      id: ulid(this.clock.wallMs(), this.random),
      kind: "interval",
      time: this.clock.wallMs(),
      comment: "",
      labels: {},
      token: 1,
      head: this.head,
      roots: [filesRoot("data", this.files)],
      always: false,
      devices: {},
      ...request,
    }, this.environment(signal));
    if (result.record !== null) {
      this.head = {
        ...this.head,
        n: this.head.n + 1,
        current: result.record,
        indexes: result.indexes,
      };
    }
    return result;
  }

  /** Restores files root `name` of a checkpoint into a new folder. */
  async stage(
    record: CheckpointRecord | null = this.head.current,
    name = "data",
    more: Pick<StageRequest, "batchEntries"> = {},
  ): Promise<StageResult & { path: string }> {
    if (record === null) throw new Error("no checkpoint to restore");
    const path = `${this.folder}/stage-${++this.#stages}`;
    const request = {
      record,
      indexes: this.head.indexes,
      roots: [{ name, stage: path }],
      ...more,
    };
    return { ...await stageCheckpoint(request, this.environment()), path };
  }

  /** From now on the wall clock is ten seconds ahead, so that the scan cache may believe the files' times. */
  later(): void {
    this.clock = { ...clock, wallMs: () => clock.wallMs() + 10_000 };
  }

  /** Sets all times back to one and the same. */
  async age(): Promise<void> {
    const script = 'find "$0" -depth -exec touch -h -d "2020-01-01 00:00:00.123456789" {} +';
    await new Deno.Command("sh", { args: ["-c", script, this.files] }).output();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}
