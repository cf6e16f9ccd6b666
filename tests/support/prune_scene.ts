/**
 * A repository with checkpoints of a small tree, made and pruned in this process on any store, and the listing of the tree
 * at each of them: whatever is kept must come back equal to it.
 */

import assert from "node:assert/strict";
import { type Cipher, plainCipher } from "../../src/checkpoint/cipher.ts";
import { collectGarbage } from "../../src/checkpoint/collect.ts";
import { createCheckpoint } from "../../src/checkpoint/create.ts";
import { type HeadSession, nextOrdinal } from "../../src/checkpoint/head.ts";
import { INDEX_PREFIX, packKey, PACKS_PREFIX, ROOTS_PREFIX } from "../../src/checkpoint/ids.ts";
import { loadIndexes } from "../../src/checkpoint/index_store.ts";
import { loadCodec } from "../../src/checkpoint/codec.ts";
import type { KeepRules } from "../../src/checkpoint/keep_rules.ts";
import { stageCheckpoint } from "../../src/checkpoint/restore.ts";
import { sweepNames } from "../../src/checkpoint/sweep.ts";
import type { CheckpointRecord, Head, RepositoryRecord } from "../../src/checkpoint/types.ts";
import { Checkpointer, type CheckpointerOptions } from "../../src/manager/checkpointer.ts";
import { changeHead } from "../../src/manager/head_changes.ts";
import { Pruner } from "../../src/manager/pruner.ts";
import { type Clock, systemClock } from "../../src/platform/clock.ts";
import { ulid } from "../../src/platform/random.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { listAll, type ObjectStore } from "../../src/storage/object_store.ts";
import { filesRoot } from "./checkpoint_runs.ts";
import { randomOf } from "./seeded_random.ts";
import { listTree } from "./tree_listing.ts";
import { removeTree } from "./tree_model.ts";
import { takeOverHead } from "./take_over_head.ts";

export const KEEP_NOTHING: KeepRules = {
  last: 1,
  hourly: 0,
  daily: 0,
  weekly: 0,
  monthly: 0,
  withinMs: 0,
  labels: [],
};

const REPO: RepositoryRecord = {
  repo_id: "ab".repeat(16),
  name: "test",
  format: 1,
  min_reader: 1,
  min_writer: 1,
  chunker: { alg: "fastcdc32", min: 65536, avg: 262144, max: 1048576 },
  hash: "sha256",
};

const realClock = systemClock();
const noSignal = () => new AbortController().signal;

export class PruneScene implements AsyncDisposable {
  readonly folder = Deno.makeTempDirSync({ prefix: "sm-prune-" });
  readonly files = `${this.folder}/files`;
  readonly random;
  graceMs = 3_600_000;
  keep: KeepRules = KEEP_NOTHING;
  store: ObjectStore;
  session: HeadSession | null = null;
  cipher: Cipher = plainCipher;
  repo: RepositoryRecord = REPO;
  /** Listing of the tree at each checkpoint, by id. */
  readonly model: Map<string, readonly string[]>;
  /** Only its place for a checkpoint or a prune is used. */
  readonly #place = new Checkpointer({} as unknown as CheckpointerOptions);
  #token = 0;
  #nowMs = Date.UTC(2026, 5, 1);
  #stages = 0;
  /** Times that the list of checkpoints, or a pin, was changed by a pruner. */
  changes = 0;
  readonly clock: Clock = {
    wallMs: () => this.#nowMs++,
    monotonicMs: () => this.#nowMs,
    // Truly: whoever watches Workers would else keep their messages from coming.
    sleep: (ms, options) => realClock.sleep(ms, options),
  };

  constructor(
    seed: number,
    store: ObjectStore = memoryStore(),
    model: Map<string, readonly string[]> = new Map(),
  ) {
    this.random = randomOf(seed);
    this.store = store;
    this.model = model;
    for (const name of ["files", "scratch", "cache"]) Deno.mkdirSync(`${this.folder}/${name}`);
  }

  pass(ms: number): void {
    this.#nowMs += ms;
  }

  /** A new term, as after a crash or on another machine: after `former`, that other machine's. */
  async takeOver(former = this.#token): Promise<HeadSession> {
    this.#token = Math.max(this.#token, former) + 1;
    const { cipher } = this;
    const repo: RepositoryRecord = cipher.seals && this.repo.enc === undefined
      ? { ...this.repo, enc: { alg: "aes-256-gcm", wraps: [] } }
      : this.repo;
    this.session = await takeOverHead(this.store, { repo, cipher, token: this.#token, assertHeld: () => {} });
    return this.session;
  }

  get token(): number {
    return this.#token;
  }

  get head() {
    assert.ok(this.session !== null, "the head is taken over");
    return this.session.head;
  }

  environment(signal = noSignal()) {
    return {
      store: this.store,
      cipher: this.cipher,
      clock: this.clock,
      random: this.random,
      cacheFolder: `${this.folder}/cache`,
      scratchFolder: `${this.folder}/scratch`,
      madeBy: "test",
      signal,
      onProgress: () => {},
      machine: { cores: 1, memoryLimitBytes: 2 ** 30 },
    };
  }

  /** What a tree holds, one line for each thing. */
  listing(root: string): Promise<readonly string[]> {
    return listTree(root);
  }

  write(name: string, bytes: number): void {
    Deno.writeFileSync(`${this.files}/${name}`, this.random.bytes(bytes));
  }

  remove(name: string): void {
    Deno.removeSync(`${this.files}/${name}`);
  }

  async checkpoint(change: Partial<CheckpointRecord> = {}): Promise<CheckpointRecord> {
    const session = this.session ?? await this.takeOver();
    this.#place.endPrune("a checkpoint comes first");
    await this.#place.idle();
    const { head } = session;
    const tree = await this.listing(this.files);
    const { record, indexes } = await createCheckpoint({
      id: ulid(this.clock.wallMs(), this.random),
      kind: "interval",
      time: this.clock.wallMs(),
      comment: "",
      labels: {},
      token: this.#token,
      head: {
        repo_id: head.repo_id,
        n: nextOrdinal(head),
        current: head.checkpoints.find(({ id }) => id === head.current) ?? null,
        indexes: head.indexes,
        doomed: head.doomed.map(({ pack }) => pack),
      },
      roots: [filesRoot("data", this.files)],
      always: true,
      devices: {},
    }, this.environment());
    assert.ok(record !== null);
    const whole = { ...record, ...change };
    // Before the commit, which may succeed and not be told.
    this.model.set(record.id, tree);
    await session.commit((before) => changeHead(before, { kind: "current", record: whole, indexes }));
    return whole;
  }

  pruner(): Pruner {
    assert.ok(this.session !== null, "the head is taken over");
    const quiet = () => {};
    return new Pruner({
      archiver: {
        collect: ({ token, head, keep, dryRun }, work = {}) =>
          collectGarbage({ token, head, roots: keep, dryRun }, this.environment(work.signal)),
        sweep: (names, work = {}) =>
          sweepNames(names, { store: this.store, signal: work.signal ?? noSignal() }),
      },
      store: this.store,
      head: this.session,
      lease: { assertHeld: () => {} },
      checkpointer: this.#place,
      keep: this.keep,
      graceMs: this.graceMs,
      clock: this.clock,
      log: { debug: quiet, info: quiet, warn: quiet, error: quiet },
      onChanged: () => void this.changes++,
      onFinished: () => {},
    });
  }

  /** All that is listed comes back as it was. */
  async restoresAll(): Promise<void> {
    for (const record of this.head.checkpoints) await this.restores(record, this.head);
  }

  /** `record` comes back as it was, read by way of `head`. */
  async restores(record: CheckpointRecord, head: Pick<Head, "indexes">): Promise<void> {
    const stage = `${this.folder}/stage-${++this.#stages}`;
    await stageCheckpoint(
      { record, indexes: head.indexes, roots: [{ name: "data", stage }] },
      this.environment(),
    );
    assertSameLines(await this.listing(stage), this.model.get(record.id) ?? [], `checkpoint ${record.n}`);
    await removeTree(stage);
  }

  /** Keys of packs, indexes and root objects that are there and that nothing names, doomed ones included. */
  async unnamed(): Promise<string[]> {
    const { head } = this;
    const codec = await loadCodec();
    const { table } = await loadIndexes(this.store, head.indexes, {
      codec,
      cacheFolder: null,
      signal: noSignal(),
    });
    const named = new Set([
      ...table.packs.map(({ name }) => packKey(name)),
      ...head.indexes.map(({ key }) => key),
      ...head.checkpoints.map(({ root }) => root),
    ]);
    return (await this.keys()).filter((key) => !named.has(key));
  }

  async keys(): Promise<string[]> {
    const keys: string[] = [];
    for (const prefix of [PACKS_PREFIX, INDEX_PREFIX, ROOTS_PREFIX]) {
      for await (const { key } of listAll(this.store, prefix)) keys.push(key);
    }
    return keys;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await removeTree(this.folder);
  }
}

/** As deepEqual, whose difference of two long listings would take gigabytes. */
export function assertSameLines(found: readonly string[], wanted: readonly string[], what: string): void {
  const at = wanted.findIndex((line, i) => line !== found[i]);
  const differs = at !== -1 ? at : found.length > wanted.length ? wanted.length : -1;
  assert.equal(
    differs,
    -1,
    `${what}: line ${differs} is ${found[differs]}, wanted ${
      wanted[differs]
    }; ${found.length} lines, wanted ${wanted.length}`,
  );
}

/** The same objects in another store in memory. */
export async function copyOf(store: ObjectStore): Promise<ObjectStore> {
  const copy = memoryStore();
  for await (const { key } of listAll(store, "")) await copy.put(key, (await store.get(key)).body);
  return copy;
}
