/**
 * Verifies that what was kept can be brought back: level by level from "the objects are there" to a restore to scratch
 * (verify_types.ts). Each missing or damaged object is named with the checkpoints and files that it hurts. Reads only:
 * nothing in the store changes, and nothing is believed from a cache.
 */

import { isError, StateManagerError } from "../platform/errors.ts";
import { showPath } from "../platform/libc_files.ts";
import type { Random } from "../platform/random.ts";
import { listAll } from "../storage/object_store.ts";
import { planFetch } from "./chunk_fetcher.ts";
import { ChunkTable } from "./chunk_table.ts";
import { type Codec, loadCodec } from "./codec.ts";
import { findCheckpoint, readHead } from "./head.ts";
import { idFromText, packKey, PACKS_PREFIX } from "./ids.ts";
import { decodeIndex, type IndexedPack } from "./index_format.ts";
import { fetchIndex, type IndexRef } from "./index_store.ts";
import { type LenientEntry, type LenientManifest, openLeniently } from "./lenient_manifest.ts";
import {
  eachInParallel,
  fetchFooter,
  fetchLeniently,
  footerMismatch,
  idsOf,
  type ObjectProblem,
  packProblemOf,
  problemOf,
  readWholePack,
} from "./pack_check.ts";
import { PackContents } from "./pack_contents.ts";
import { Pacer } from "./pacer.ts";
import type { FilesItem, RootObject } from "./records.ts";
import type { ReadEnvironment } from "./restore.ts";
import { BATCH_ENTRIES, loadRoot } from "./root_reader.ts";
import type { CheckpointRecord, TreeEntry } from "./types.ts";
import { Findings, type Suspect } from "./verify_findings.ts";
import { headInQuestion } from "./verify_head.ts";
import { allReadSince, choosePacks, loadPackMemory, savePackMemory } from "./verify_memory.ts";
import { tryRestore } from "./verify_scratch.ts";
import type { KnownHead, VerifyRequest, VerifyResult } from "./verify_types.ts";

export interface VerifyEnvironment extends ReadEnvironment {
  readonly random: Random;
  /** Level 4 restores into a folder in it. */
  readonly scratchFolder: string;
}

/** Small objects at one time: latency counts, not bytes. */
const SMALL_IN_FLIGHT = 8;
/** Packs of 16 MiB in memory at one time. */
const PACKS_IN_FLIGHT = 4;
/** How often what was read is written down: a run that is killed repeats no more than this. */
const KEEP_EACH_PACKS = 256;

export async function verifyRepository(
  request: VerifyRequest,
  environment: VerifyEnvironment,
): Promise<VerifyResult> {
  return await new Verification(request, environment, await loadCodec()).run();
}

class Verification {
  readonly #request: VerifyRequest;
  readonly #environment: VerifyEnvironment;
  readonly #codec: Codec;
  readonly #pacer: Pacer;
  readonly #findings = new Findings();
  readonly #table = new ChunkTable();
  readonly #contents = new PackContents();
  readonly #packsOfIndex = new Map<string, readonly IndexedPack[]>();
  readonly #lostIndexes: Suspect[] = [];
  readonly #roots = new Map<string, RootObject>();
  /** Sizes of the indexed packs in the store's listing. */
  readonly #sizes = new Map<string, number>();
  #records: readonly CheckpointRecord[] = [];
  #pieces: ReadonlyMap<string, Uint8Array | null> = new Map();
  readonly #manifests = new Map<string, { readonly sha256: string; readonly manifest: LenientManifest }>();
  #packsRead = 0;
  #bytesRead = 0;
  #databasesChecked = 0;

  constructor(request: VerifyRequest, environment: VerifyEnvironment, codec: Codec) {
    this.#request = request;
    this.#environment = environment;
    this.#codec = codec;
    this.#pacer = new Pacer(environment);
  }

  async run(): Promise<VerifyResult> {
    const { clock, store, cipher, signal } = this.#environment;
    const { checkpoint, level, known } = this.#request;
    const startedMs = clock.monotonicMs();
    this.#pacer.begin("plan", null);
    const question = await headInQuestion({ store, cipher, signal }, known, this.#findings);
    let packs: readonly IndexedPack[] = [];
    let allReadSinceMs: number | null = null;
    if (question !== null) {
      const { head } = question;
      this.#records = checkpoint === null ? question.records : [findCheckpoint(head, { checkpoint })];
      await this.#readRoots();
      await this.#readIndexes(head.indexes);
      await this.#listPacks();
      packs = checkpoint === null ? this.#contents.packs : await this.#packsInQuestion();
      this.#compareSizes(packs);
      if (level >= 2) await this.#readFooters(packs);
      if (level >= 3) allReadSinceMs = await this.#readPacks(packs, head.repo_id);
      else this.#loseWholePacks(packs);
      if (level >= 3 || !this.#findings.isEmpty) await this.#walk(this.#attribute);
      if (level === 4) await this.#tryRestores(head.indexes);
      if (!this.#findings.isEmpty) await this.#dropStale(head);
    }
    return {
      level,
      percent: level === 3 ? this.#request.percent : level === 4 ? 100 : 0,
      checkpoints: this.#records.length,
      packs: packs.length,
      packsRead: this.#packsRead,
      bytesRead: this.#bytesRead,
      allReadSinceMs,
      databasesChecked: this.#databasesChecked,
      positionsChecked: 0,
      ...this.#findings.told(),
      durationMs: clock.monotonicMs() - startedMs,
    };
  }

  // ---- level 1

  async #readRoots(): Promise<void> {
    const { store, cipher, signal } = this.#environment;
    await eachInParallel(this.#records, SMALL_IN_FLIGHT, signal, async (record, signal) => {
      try {
        const root = await loadRoot(store, record, { cipher, signal });
        const wrong = differsFromRecord(root, record);
        if (wrong !== null) throw new StateManagerError("data-damaged", `read ${record.root}: ${wrong}`);
        this.#roots.set(record.id, root);
      } catch (error) {
        const suspect = this.#findings.add(record.root, rootProblem(error));
        this.#findings.hurt(suspect, record);
        for (const root of Object.keys(record.files)) {
          this.#findings.hurt(suspect, record, { root, path: null });
        }
      }
      await this.#pacer.turn();
    });
  }

  async #readIndexes(refs: readonly IndexRef[]): Promise<void> {
    const { store, signal } = this.#environment;
    for (let i = 0; i < refs.length; i += SMALL_IN_FLIGHT) {
      const group = refs.slice(i, i + SMALL_IN_FLIGHT);
      const bodies = await Promise.all(
        group.map((ref) => fetchIndex(store, ref, signal).catch((error) => rootProblem(error))),
      );
      for (const [j, ref] of group.entries()) {
        const body = bodies[j];
        if (body instanceof Uint8Array) this.#addIndex(ref, body);
        else if (body !== undefined) this.#lostIndexes.push(this.#findings.add(ref.key, body));
        await this.#pacer.turn();
      }
    }
  }

  #addIndex(ref: IndexRef, bytes: Uint8Array): void {
    const numbers = new Map<IndexedPack, number>();
    try {
      const packs = decodeIndex(this.#codec, bytes, ref.key, (record, pack) => {
        const number = numbers.get(pack) ?? this.#table.addPack(pack);
        numbers.set(pack, number);
        this.#table.add(record, number);
        this.#contents.add(pack, record);
      });
      for (const pack of packs) this.#contents.addPack(pack);
      this.#packsOfIndex.set(ref.key, packs);
    } catch (error) {
      this.#lostIndexes.push(this.#findings.add(ref.key, problemOf(error)));
    }
  }

  async #listPacks(): Promise<void> {
    const { store, signal } = this.#environment;
    for await (const { key, sizeBytes } of listAll(store, PACKS_PREFIX, { signal })) {
      const name = key.slice(PACKS_PREFIX.length);
      if (this.#contents.find(name) !== null) this.#sizes.set(name, sizeBytes);
      await this.#pacer.turn();
    }
  }

  /** Packs that the checkpoint in question needs, its manifests' among them. */
  async #packsInQuestion(): Promise<readonly IndexedPack[]> {
    const packs = new Map<string, IndexedPack>();
    const need = (id: string) => {
      const chunk = this.#table.locate(id);
      if (chunk !== null) packs.set(chunk.pack.name, chunk.pack);
    };
    await this.#walk(async (_record, _name, item, entries) => {
      item.manifest.forEach(need);
      for (const { parts } of entries) {
        for (const part of parts) if (part.kind === "chunk") need(part.id);
        await this.#pacer.turn();
      }
    });
    return [...packs.values()];
  }

  #compareSizes(packs: readonly IndexedPack[]): void {
    for (const { name, sizeBytes } of packs) {
      const found = this.#sizes.get(name);
      if (found === sizeBytes) continue;
      this.#findings.add(
        packKey(name),
        found === undefined
          ? { problem: "missing", detail: "the object is not there" }
          : { problem: "damaged", detail: `${found} bytes, the index says ${sizeBytes}` },
      );
    }
  }

  // ---- level 2

  async #readFooters(packs: readonly IndexedPack[]): Promise<void> {
    const { store, signal } = this.#environment;
    this.#pacer.begin("check", null);
    const whole = packs.filter(({ name }) => !this.#findings.has(packKey(name)));
    await eachInParallel(whole, SMALL_IN_FLIGHT, signal, async (pack, signal) => {
      const indexed = this.#contents.entriesOf(pack.name);
      try {
        const wrong = footerMismatch(indexed, await fetchFooter(pack, indexed.length, { store, signal }));
        if (wrong !== null) this.#findings.add(packKey(pack.name), { problem: "damaged", detail: wrong });
      } catch (error) {
        this.#findings.add(packKey(pack.name), packProblemOf(error));
      }
      this.#pacer.count(1, 0);
      await this.#pacer.turn();
    });
  }

  /** Nobody looked into them: all that is in a pack of which anything is wrong counts as lost. */
  #loseWholePacks(packs: readonly IndexedPack[]): void {
    for (const { name } of packs) {
      if (!this.#findings.has(packKey(name))) continue;
      this.#lose(name, idsOf(this.#contents.entriesOf(name)));
    }
  }

  /** A chunk that is read from another pack is not lost with this one. */
  #lose(pack: string, ids: Iterable<string>, problem?: ObjectProblem): void {
    const suspect = this.#findings.add(
      packKey(pack),
      problem ?? { problem: "damaged", detail: "see the chunks" },
    );
    for (const id of ids) {
      if (this.#table.locate(id)?.pack.name === pack) this.#findings.lose(id, suspect);
    }
  }

  // ---- level 3

  /** Since when all of them were read. */
  async #readPacks(packs: readonly IndexedPack[], repoId: string): Promise<number | null> {
    const { cacheFolder, random, signal, clock } = this.#environment;
    const names = packs.map(({ name }) => name);
    const memory = await loadPackMemory(cacheFolder, repoId);
    const percent = this.#request.level === 4 ? 100 : this.#request.percent;
    const chosen = new Set(choosePacks(names, memory, { percent, random, isKept: cacheFolder !== null }));
    // What is wrong outside may leave every chunk readable: looked at, so that the files that are hurt can be named.
    for (const name of names) if (this.#findings.has(packKey(name))) chosen.add(name);
    const queue = packs.filter(({ name }) => chosen.has(name));
    this.#pacer.begin("check", queue.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
    const readMs = new Map(memory.readMs);
    const bad = new Set(memory.bad);
    // Of the packs of all checkpoints, those that are gone are forgotten; one checkpoint says nothing of the others.
    const keep = async () => {
      const isLive = (name: string) => this.#contents.find(name) !== null || this.#lostIndexes.length > 0;
      for (const name of [...readMs.keys()]) if (!isLive(name)) readMs.delete(name);
      for (const name of [...bad]) if (!isLive(name)) bad.delete(name);
      await savePackMemory(cacheFolder, repoId, { readMs, bad });
    };
    await eachInParallel(queue, PACKS_IN_FLIGHT, signal, async (pack, signal) => {
      await this.#readPack(pack, signal);
      readMs.set(pack.name, clock.wallMs());
      if (this.#findings.has(packKey(pack.name))) bad.add(pack.name);
      else bad.delete(pack.name);
      if (this.#packsRead % KEEP_EACH_PACKS === 0) await keep();
    });
    await keep();
    return allReadSince(names, { readMs, bad });
  }

  async #readPack(pack: IndexedPack, signal: AbortSignal): Promise<void> {
    const indexed = this.#contents.entriesOf(pack.name);
    const { problem, lost, bytes } = await readWholePack(pack, indexed, {
      store: this.#environment.store,
      codec: this.#codec,
      cipher: this.#environment.cipher,
      signal,
      pace: () => this.#pacer.turn(),
    });
    this.#packsRead++;
    this.#bytesRead += bytes;
    this.#pacer.count(1, bytes);
    if (problem !== null) this.#findings.add(packKey(pack.name), problem);
    if (lost.size > 0) this.#lose(pack.name, lost, problem ?? undefined);
  }

  // ---- manifests

  /** Each files root of each checkpoint in question, as far as its manifest can be read. */
  async #walk(
    visit: (
      record: CheckpointRecord,
      name: string,
      item: FilesItem,
      entries: Iterable<LenientEntry>,
    ) => Promise<void>,
  ): Promise<void> {
    for (const record of this.#records) {
      const root = this.#roots.get(record.id);
      for (const [name, item] of Object.entries(root?.items.files ?? {})) {
        await this.#readManifest(record, name, item, (entries) => visit(record, name, item, entries));
      }
    }
  }

  /** `read` takes the entries one by one: all of them together may be more than the heap holds. */
  async #readManifest(
    record: CheckpointRecord,
    name: string,
    item: FilesItem,
    read: (entries: Iterable<LenientEntry>) => Promise<void>,
  ): Promise<void> {
    try {
      await read(entriesIn(await this.#manifestOf(name, item)));
    } catch (error) {
      const suspect = this.#findings.add(record.root, problemOf(error));
      this.#findings.hurt(suspect, record, { root: name, path: null });
    }
  }

  async #manifestOf(name: string, item: FilesItem): Promise<LenientManifest> {
    const last = this.#manifests.get(name);
    // Successive checkpoints mostly share it; pieces that were lost since are found by their packs.
    if (last?.sha256 === item.manifest_sha256) return last.manifest;
    this.#pieces = await this.#fetchPieces(item.manifest);
    const manifest = openLeniently(item, name, this.#pieces, this.#environment.cipher);
    this.#manifests.set(name, { sha256: item.manifest_sha256, manifest });
    return manifest;
  }

  /** Pieces by id, null for those that cannot be read. Those of the manifest before are kept. */
  async #fetchPieces(ids: readonly string[]): Promise<ReadonlyMap<string, Uint8Array | null>> {
    const { store, cipher, signal } = this.#environment;
    const pieces = new Map<string, Uint8Array | null>();
    const wanted = new Set<string>();
    for (const id of ids) {
      const known = this.#pieces.get(id);
      if (known !== undefined) pieces.set(id, known);
      else if (this.#table.has(idFromText(id))) wanted.add(id);
      else pieces.set(id, null);
    }
    const lost = await fetchLeniently(planFetch(this.#table, wanted), {
      store,
      codec: this.#codec,
      cipher,
      signal,
      // A copy: the chunk is a view of its whole pack.
      deliver: (id, bytes) => void pieces.set(id, bytes.slice()),
      pace: () => this.#pacer.turn(),
    });
    for (const [id, reason] of lost) {
      pieces.set(id, null);
      this.#lose(reason.pack, [id], reason);
    }
    return pieces;
  }

  readonly #attribute = async (
    record: CheckpointRecord,
    root: string,
    item: FilesItem,
    entries: Iterable<LenientEntry>,
  ): Promise<void> => {
    // A restore reads all indexes: without one of them none is possible until it is made anew.
    for (const suspect of this.#lostIndexes) this.#findings.hurt(suspect, record);
    for (const id of item.manifest) {
      for (const suspect of this.#suspectsOf(id)) this.#findings.hurt(suspect, record, { root, path: null });
    }
    for (const { entry, parts } of entries) {
      for (const part of parts) {
        if (part.kind === "hole") continue;
        for (const suspect of this.#suspectsOf(part.id)) {
          this.#findings.hurt(suspect, record, { root, path: showPath(entry.path) });
        }
      }
      await this.#pacer.turn();
    }
  };

  /** Empty when the chunk can be read, as far as it was looked at. */
  #suspectsOf(id: string): readonly Suspect[] {
    const known = this.#findings.lostBy(id);
    if (known !== null) return [known];
    if (this.#table.has(idFromText(id))) return [];
    // A lost index may have known it, and nobody can say which one.
    if (this.#lostIndexes.length > 0) return this.#lostIndexes;
    const suspect = this.#findings.add(`chunk ${id}`, { problem: "missing", detail: "no index knows it" });
    this.#findings.lose(id, suspect);
    return [suspect];
  }

  // ---- level 4

  async #tryRestores(indexes: readonly IndexRef[]): Promise<void> {
    const folder = `${this.#environment.scratchFolder}/verify`;
    for (const record of this.#records) {
      if (this.#findings.isHurt(record)) continue; // it would fail at what is told already
      try {
        const { databases, problems } = await tryRestore({
          record,
          indexes,
          folder,
          environment: this.#environment,
          databasesOf: (name) => this.#databasesOf(record, name),
        });
        this.#databasesChecked += databases;
        for (const { root, path, detail } of problems) {
          const suspect = this.#findings.add(`${record.root} ${root}/${path}`, {
            problem: "damaged",
            detail,
          });
          this.#findings.hurt(suspect, record, { root, path });
        }
      } catch (error) {
        this.#findings.hurt(this.#findings.add(record.root, problemOf(error)), record);
      }
    }
  }

  async #databasesOf(record: CheckpointRecord, name: string): Promise<readonly TreeEntry[]> {
    const item = this.#roots.get(record.id)?.items.files[name];
    const databases: TreeEntry[] = [];
    if (item === undefined) return databases;
    await this.#readManifest(record, name, item, async (entries) => {
      for (const { entry } of entries) {
        if (entry.sqlite === true) databases.push(entry);
        await this.#pacer.turn();
      }
    });
    return databases;
  }

  // ---- the end

  /** Garbage collection may have taken objects while we looked for them: only what the newest head names counts. */
  async #dropStale(before: KnownHead): Promise<void> {
    const { store, cipher, signal } = this.#environment;
    const now = await readHead(store, { cipher, signal }).catch(() => null);
    if (now === null || now.head.seq <= before.seq || now.head.repo_id !== before.repo_id) return;
    const { checkpoints, indexes, intent } = now.head;
    const records = [...checkpoints, ...(intent === null ? [] : [intent.record])];
    const gone = new Set([
      ...this.#records.map(({ root }) => root),
      ...before.indexes.map(({ key }) => key),
      ...this.#contents.packs.map(({ name }) => packKey(name)),
    ]);
    for (const { root } of records) gone.delete(root);
    for (const ref of indexes) {
      gone.delete(ref.key);
      const packs = this.#packsOfIndex.get(ref.key) ?? await this.#packsOf(ref);
      for (const { name } of packs ?? this.#contents.packs) gone.delete(packKey(name));
    }
    this.#findings.keepOnly((object) => !gone.has(object));
  }

  /** Null when it cannot be read: then any pack may be in it. */
  async #packsOf(ref: IndexRef): Promise<readonly IndexedPack[] | null> {
    const { store, signal } = this.#environment;
    try {
      return decodeIndex(this.#codec, await fetchIndex(store, ref, signal), ref.key, () => {});
    } catch (error) {
      problemOf(error);
      return null;
    }
  }
}

function* entriesIn(manifest: LenientManifest): Generator<LenientEntry> {
  for (const batch of manifest.batches(BATCH_ENTRIES)) yield* batch;
}

/** The readers of root objects and indexes tell a missing one as damaged; here the difference counts. */
function rootProblem(error: unknown): ObjectProblem {
  return isError(error) && isError(error.cause, "object-not-found")
    ? problemOf(error.cause)
    : problemOf(error);
}

/** The head's summary of a checkpoint and its root object were written together. */
function differsFromRecord({ items }: RootObject, record: CheckpointRecord): string | null {
  const names = Object.keys(items.files);
  const same = names.length === Object.keys(record.files).length && names.every((name) => {
    const [item, summary] = [items.files[name], record.files[name]];
    return item?.manifest_sha256 === summary?.manifest_sha256 && item?.bytes === summary?.bytes &&
      item?.entries === summary?.entries;
  });
  if (!same) return "its files are not those that the head says";
  const [databases, known] = [items.databases ?? {}, record.databases ?? {}];
  const positions = Object.keys({ ...databases, ...known });
  return positions.every((name) => databases[name]?.txid === known[name]?.txid)
    ? null
    : "its databases are not those that the head says";
}
