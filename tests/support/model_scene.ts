/**
 * One repository and one files root under random steps: edits, checkpoints, prunes, verifications, restores, each of which
 * may be cut off by the death of its process at any request to the store, and is then done again by the next one.
 */

import assert from "node:assert/strict";
import { composeRestoreRoot, type ComposeResult } from "../../src/checkpoint/compose.ts";
import { nextOrdinal } from "../../src/checkpoint/head.ts";
import { openRepository, repositoryCipher } from "../../src/checkpoint/mod.ts";
import { INDEX_PREFIX, PACKS_PREFIX } from "../../src/checkpoint/ids.ts";
import type { KeepRules } from "../../src/checkpoint/keep_rules.ts";
import { stageCheckpoint } from "../../src/checkpoint/restore.ts";
import { findSwapPlace } from "../../src/checkpoint/swap_place.ts";
import { finishSwaps, swapIn } from "../../src/checkpoint/swap.ts";
import type { CheckpointRecord } from "../../src/checkpoint/types.ts";
import { verifyRepository } from "../../src/checkpoint/verify.ts";
import type { VerifyLevel, VerifyResult } from "../../src/checkpoint/verify_types.ts";
import type { EncryptionKey } from "../../src/checkpoint/mod.ts";
import { changeHead } from "../../src/manager/head_changes.ts";
import { isError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { ulid } from "../../src/platform/random.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { listAll, type ObjectStore } from "../../src/storage/object_store.ts";
import { type Damage, damagedObjects, knownHead, storeOf } from "./kept_repository.ts";
import { filesRoot } from "./checkpoint_runs.ts";
import { applyEdit, type Edit, modelOf, rowsAt, rowsOf, withoutGroups } from "./model_edits.ts";
import { type Death, mortalStore } from "./mortal_store.ts";
import { assertSameLines, PruneScene } from "./prune_scene.ts";
import { byteTextOf, listRows } from "./tree_listing.ts";
import { makeTree, removeTree } from "./tree_model.ts";
import { giveXattrs, python } from "./xattr_model.ts";

export type Step =
  | { readonly do: "edit"; readonly edits: readonly Edit[] }
  | {
    readonly do: "checkpoint";
    readonly pinned: boolean;
    readonly death: Death | null;
    readonly moved: boolean;
  }
  | { readonly do: "prune"; readonly keep: KeepRules; readonly death: Death | null; readonly moved: boolean }
  | { readonly do: "pass"; readonly hours: number }
  | { readonly do: "verify"; readonly level: VerifyLevel }
  | { readonly do: "restore"; readonly which: number; readonly death: Death | null }
  | { readonly do: "restore-path"; readonly which: number; readonly path: number }
  /** The same into the living tree. */
  | { readonly do: "put-back"; readonly which: number; readonly path: number; readonly death: Death | null };

export interface Harm {
  /** Which object of all. */
  readonly which: number;
  readonly damage: Exclude<Damage, "replaced">;
  /** Byte that is flipped, of 0 to 2³⁰ parts. */
  readonly at: number;
  readonly level: VerifyLevel;
}

const HOUR_MS = 3_600_000;
/** So far ahead of the files' times that they count as old, by the clock that the scan cache believes. */
const AHEAD_MS = 600_000;
const PARTS = 2 ** 30;

export class ModelScene extends PruneScene {
  readonly #whole: ObjectStore;
  readonly #counts: Map<string, number>;
  #restores = 0;

  private constructor(seed: number, store: ObjectStore, counts: Map<string, number>) {
    super(seed, store);
    this.#whole = store;
    this.#counts = counts;
  }

  static async create(
    seed: number,
    { files, key, counts }: {
      readonly files: number;
      readonly key: EncryptionKey | null;
      readonly counts: Map<string, number>;
    },
  ): Promise<ModelScene> {
    const scene = new ModelScene(seed, memoryStore(), counts);
    scene.pass(Date.now() + AHEAD_MS - scene.clock.wallMs());
    scene.repo = await openRepository(scene.store, { name: "model", random: scene.random, key });
    scene.cipher = await repositoryCipher(scene.repo, key, scene.random);
    makeTree(scene.files, { seed, files, asRoot: isRoot() });
    if (python !== null) await giveXattrs(scene.files, seed, isRoot());
    await scene.takeOver();
    return scene;
  }

  override listing(root: string): Promise<readonly string[]> {
    return modelOf(root);
  }

  #count(what: string): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1);
  }

  async perform(step: Step): Promise<void> {
    this.#count(step.do);
    switch (step.do) {
      case "edit":
        for (const edit of step.edits) await applyEdit(this.files, edit);
        return;
      case "checkpoint":
        return await this.#mortally(step, () => this.checkpoint(step.pinned ? { pinned: true } : {}));
      case "prune":
        this.keep = step.keep;
        return await this.#mortally(step, () => this.pruner().prune({ dryRun: false }));
      case "pass":
        return this.pass(step.hours * HOUR_MS);
      case "verify":
        return assert.deepEqual((await this.#verify(this.#whole, step.level)).findings, []);
      case "restore":
        return await this.#restore(step);
      case "restore-path":
        return await this.#restorePath(step);
      case "put-back":
        return await this.#putBack(step);
    }
  }

  /** The work by a process that may die in it; then by the one after it, of a new term, perhaps on another machine. */
  async #mortally(
    { do: what, death, moved }: {
      readonly do: string;
      readonly death: Death | null;
      readonly moved: boolean;
    },
    work: () => Promise<unknown>,
  ): Promise<void> {
    if (death === null) return void await work();
    const store = this.store = mortalStore(this.#whole, death);
    try {
      await this.takeOver();
      await work();
    } catch (error) {
      if (!store.isDead) throw error;
    }
    this.store = this.#whole;
    await this.takeOver();
    if (!store.isDead) return;
    this.#count(`${what} that died`);
    if (moved) await this.#forget();
    await work();
  }

  /** What another machine does not have. */
  async #forget(): Promise<void> {
    for (const name of ["cache", "scratch"]) {
      await removeTree(`${this.folder}/${name}`);
      await Deno.mkdir(`${this.folder}/${name}`);
    }
  }

  #record(which: number): CheckpointRecord | undefined {
    const { checkpoints } = this.head;
    return checkpoints[which % Math.max(1, checkpoints.length)];
  }

  async #restore({ which, death }: { readonly which: number; readonly death: Death | null }): Promise<void> {
    const record = this.#record(which);
    if (record === undefined) return;
    const store = this.store = mortalStore(this.#whole, death);
    try {
      await this.restores(record, this.head);
      return;
    } catch (error) {
      if (!store.isDead) throw error;
    } finally {
      this.store = this.#whole;
    }
    this.#count("restore that died");
    await this.restores(record, this.head);
  }

  async #restorePath({ which, path }: { readonly which: number; readonly path: number }): Promise<void> {
    const record = this.#record(which);
    if (record === undefined) return;
    const rows = rowsOf(this.model.get(record.id) ?? []).filter(([each = ""]) => !/^db\d/.test(each));
    const [chosen = ""] = rows[path % rows.length] ?? [];
    if (chosen === "") return;
    const stage = `${this.folder}/part-${++this.#restores}`;
    await stageCheckpoint(
      { record, indexes: this.head.indexes, roots: [{ name: "data", stage, paths: [byteTextOf(chosen)] }] },
      this.environment(),
    );
    const found = (await listRows(stage)).map((row) => JSON.stringify(row));
    assertSameLines(found, rowsAt(rows, chosen), `${JSON.stringify(chosen)} of checkpoint ${record.n}`);
    await removeTree(stage);
  }

  /** A path as it once was into the tree as it is, in the steps of a manager; then it is what the new checkpoint says. */
  async #putBack(
    { which, path, death }: { readonly which: number; readonly path: number; readonly death: Death | null },
  ): Promise<void> {
    const record = this.#record(which);
    const then = rowsOf(this.model.get(record?.id ?? "") ?? []);
    const [chosen = ""] = then[path % Math.max(1, then.length)] ?? [];
    if (record === undefined || chosen === "") return;
    const safety = await this.checkpoint();
    const paths = [byteTextOf(chosen)];
    const compose = () => this.#compose(record, paths);
    let composed: ComposeResult;
    try {
      composed = await this.#composedMortally(compose, death);
    } catch (error) {
      if (!isError(error, "invalid-request")) throw error;
      return this.#count("put-back with a file in the way");
    }
    const root = filesRoot("data", this.files);
    const place = await findSwapPlace(root, record.id);
    const { stage, former, live } = place;
    await stageCheckpoint(
      { record, indexes: this.head.indexes, roots: [{ name: "data", stage, former, live, paths }] },
      this.environment(),
    );
    const { record: made, indexes } = composed;
    const intent = { kind: "set-intent", record: made, indexes, onStart: null, files: ["data"] } as const;
    await this.session?.commit((before) => changeHead(before, intent));
    const journalPath = `${this.folder}/swap.json`;
    await swapIn({ journalPath, id: made.id, roots: [{ root, place, paths }] });
    await finishSwaps(journalPath, { keepOld: false });
    const now = await this.listing(this.files);
    this.model.set(made.id, now);
    await this.session?.commit((before) => changeHead(before, { kind: "finish-intent" }));
    await this.restores(made, this.head);
    const before = rowsOf(this.model.get(safety.id) ?? []);
    const added = before.some(([each]) => each === chosen) ? [] : foldersAbove(chosen);
    const inside = (each = "") => each === chosen || each.startsWith(`${chosen}/`);
    const beside = (each = "") => !inside(each) && !added.includes(each);
    const what = `${JSON.stringify(chosen)} of checkpoint ${record.n}`;
    const lines = (rows: readonly string[][], where: (path?: string) => boolean) =>
      withoutGroups(rows).filter(([each]) => where(each)).map((row) => JSON.stringify(row));
    assertSameLines(lines(rowsOf(now), inside), lines(then, inside), what);
    assertSameLines(lines(rowsOf(now), beside), lines(before, beside), `beside ${what}`);
  }

  async #composedMortally(
    compose: () => Promise<ComposeResult>,
    death: Death | null,
  ): Promise<ComposeResult> {
    const store = this.store = mortalStore(this.#whole, death);
    try {
      return await compose();
    } catch (error) {
      if (!store.isDead) throw error;
    } finally {
      this.store = this.#whole;
    }
    this.#count("put-back that died");
    await this.takeOver();
    return await compose();
  }

  #compose(source: CheckpointRecord, paths: readonly string[]): Promise<ComposeResult> {
    const { repo_id, current, checkpoints, indexes, doomed } = this.head;
    return composeRestoreRoot({
      id: ulid(this.clock.wallMs(), this.random),
      time: this.clock.wallMs(),
      token: this.token,
      head: {
        repo_id,
        n: nextOrdinal(this.head),
        current: checkpoints.find(({ id }) => id === current) ?? null,
        indexes,
        doomed: doomed.map(({ pack }) => pack),
      },
      source,
      names: ["data"],
      paths: { data: paths },
      comment: "",
      labels: {},
    }, this.environment());
  }

  #verify(store: ObjectStore, level: VerifyLevel): Promise<VerifyResult> {
    return verifyRepository(
      { checkpoint: null, level, percent: 100, known: knownHead(this.head) },
      { ...this.environment(), store, cacheFolder: null },
    );
  }

  /** Every listed checkpoint, by a process that knows nothing; and the store is whole. */
  async isWhole(): Promise<void> {
    await this.#forget();
    await this.restoresAll();
    assert.deepEqual((await this.#verify(this.#whole, 4)).findings, []);
  }

  /** A harmed object is named by verify, alone, at each level from the one that promises it; garbage is not. */
  async findsHarm(harm: Harm): Promise<void> {
    const objects = new Map<string, Uint8Array<ArrayBuffer>>();
    for await (const { key } of listAll(this.#whole, "")) {
      objects.set(key, (await this.#whole.get(key)).body.slice());
    }
    const keys = [...objects.keys()];
    const key = keys[harm.which % keys.length] ?? "";
    const garbage = new Set(await this.unnamed());
    const size = objects.get(key)?.length ?? 0;
    // The records in the open have no sum of their own: one that is no JSON any more is found.
    const isSummed = key.startsWith("checkpoints/");
    const at = isSummed ? Math.floor(harm.at / PARTS * size) : 0;
    const isDeep = key.startsWith(PACKS_PREFIX) && harm.damage === "flipped";
    const level = isDeep ? Math.max(3, harm.level) as VerifyLevel : harm.level;
    const { findings } = await this.#verify(
      await storeOf(damagedObjects(objects, key, harm.damage, { at })),
      level,
    );
    const what = `${key}, ${size} bytes, ${harm.damage} at ${at}, level ${level}: ${
      JSON.stringify(findings)
    }`;
    this.#count(garbage.has(key) ? "garbage harmed" : `${harm.damage} ${kindOf(key)}`);
    assert.deepEqual(findings.map(({ object }) => object), garbage.has(key) ? [] : [key], what);
  }
}

function foldersAbove(path: string): string[] {
  return [...path.matchAll(/\//g)].map(({ index }) => path.slice(0, index));
}

function kindOf(key: string): string {
  if (key.startsWith(PACKS_PREFIX)) return "pack";
  if (key.startsWith(INDEX_PREFIX)) return "index";
  return key.startsWith("checkpoints/") ? "root object" : key;
}
