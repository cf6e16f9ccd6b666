/**
 * Makes the indexes right again: what a missing or damaged one said is read from the footers of the packs, chunks that
 * can still be read in a damaged pack are stored anew, and what cannot be read is named by no index any more, so that
 * the next checkpoint stores it again where the live files have it. Old objects stay; garbage collection removes them.
 * Nothing counts until the caller commits the new list of indexes into the head: if we die before, only garbage is left.
 */

import type { Clock } from "../platform/clock.ts";
import { type Random, ulid } from "../platform/random.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { ChunkTable } from "./chunk_table.ts";
import type { Cipher } from "./cipher.ts";
import { type Codec, loadCodec } from "./codec.ts";
import { idFromText, idToText, indexKey, packKey, sha256Hex } from "./ids.ts";
import { encodeIndexes, type IndexedPack, type PackToIndex } from "./index_format.ts";
import type { IndexRef } from "./index_store.ts";
import {
  listPackSizes,
  type ReadIndexes,
  readIndexes,
  readUnknownPacks,
  type RecoveredPack,
  type RecoveryOptions,
} from "./index_recovery.ts";
import { FLAG_META, type PackEntry } from "./pack.ts";
import { eachInParallel, fetchLeniently, type ObjectProblem, readWholePack } from "./pack_check.ts";
import { PackSender, type SentPack } from "./pack_sender.ts";
import { Pacer } from "./pacer.ts";
import type { ArchiveProgress, Head } from "./types.ts";

export interface RepairRequest {
  readonly head: Pick<Head, "epoch" | "doomed"> & { readonly indexes: readonly IndexRef[] };
  /** Fencing token of our term. */
  readonly token: number;
  /** Read every pack: also chunks that went bad inside of packs that look right are found. */
  readonly readPacks: boolean;
  /** Say what would be done; nothing is written. */
  readonly dryRun: boolean;
}

export interface RepairEnvironment {
  readonly store: ObjectStore;
  readonly cipher: Cipher;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ArchiveProgress) => void;
}

export interface RepairResult {
  /** What was wrong, by key. Empty: nothing. */
  readonly damaged: readonly (ObjectProblem & { readonly object: string })[];
  /** The list for the head; the one that was given when nothing was wrong. */
  readonly indexes: readonly IndexRef[];
  /** Packs that a lost index named, or garbage: their footers are in the new index. */
  readonly recoveredPacks: number;
  /** Chunks of damaged packs that were stored anew. */
  readonly savedChunks: number;
  /** Ids of chunks that are in no index any more. */
  readonly lostChunks: readonly string[];
}

/** Ids told one by one. */
const LOST_LIMIT = 1000;

export async function rebuildIndexes(
  request: RepairRequest,
  environment: RepairEnvironment,
): Promise<RepairResult> {
  const codec = await loadCodec();
  const pacer = new Pacer(environment);
  pacer.begin("check", null);
  return await new Repair(request, environment, codec, pacer).run();
}

class Repair {
  readonly #request: RepairRequest;
  readonly #environment: RepairEnvironment;
  readonly #codec: Codec;
  readonly #reading: RecoveryOptions;
  readonly #damaged: (ObjectProblem & { readonly object: string })[] = [];
  /** Everything that can be read, in the order in which it is written. */
  readonly #table = new ChunkTable();

  constructor(request: RepairRequest, environment: RepairEnvironment, codec: Codec, pacer: Pacer) {
    this.#request = request;
    this.#environment = environment;
    this.#codec = codec;
    this.#reading = { ...environment, codec, pacer };
  }

  async run(): Promise<RepairResult> {
    const { head } = this.#request;
    const read = await readIndexes(head.indexes, this.#reading);
    for (const { key, problem } of read.lost) this.#damaged.push({ ...problem, object: key });
    const sizes = await listPackSizes(this.#reading);
    const bad = await this.#badPacks(read, sizes);
    if (read.lost.length === 0 && bad.size === 0) {
      return { damaged: [], indexes: head.indexes, recoveredPacks: 0, savedChunks: 0, lostChunks: [] };
    }
    const isGood = (packs: readonly IndexedPack[]) => packs.every(({ name }) => !bad.has(name));
    const kept = head.indexes.filter((ref) => isGood(read.packsOf.get(ref) ?? []) && read.packsOf.has(ref));
    const keptPacks = new Set(kept.flatMap((ref) => (read.packsOf.get(ref) ?? []).map(({ name }) => name)));
    for (const name of keptPacks) this.#take(read, name);
    const rewritten = read.contents.packs
      .filter(({ name }) => !keptPacks.has(name) && !bad.has(name))
      .map(({ name }) => this.#take(read, name));
    const recovered = read.lost.length === 0 ? [] : await this.#unknownPacks(read, sizes);
    const { sent, saved, lost } = await this.#save(read, bad);
    const packs = [...rewritten, ...recovered, ...sent].filter(({ entries }) => entries.length > 0);
    return {
      damaged: this.#damaged,
      indexes: [...kept, ...await this.#write(packs)],
      recoveredPacks: recovered.length,
      savedChunks: saved,
      lostChunks: lost.slice(0, LOST_LIMIT),
    };
  }

  /** Packs that are not there, or of which anything is wrong, as far as it is looked at. */
  async #badPacks(read: ReadIndexes, sizes: ReadonlyMap<string, number>): Promise<Set<string>> {
    const bad = new Set<string>();
    const found = (name: string, problem: ObjectProblem) => {
      bad.add(name);
      this.#damaged.push({ ...problem, object: packKey(name) });
    };
    const { signal, pacer } = this.#reading;
    await eachInParallel(read.contents.packs, PACKS_IN_FLIGHT, signal, async (pack, signal) => {
      const size = sizes.get(pack.name);
      if (size === undefined) {
        return found(pack.name, { problem: "missing", detail: "the object is not there" });
      }
      if (size !== pack.sizeBytes) {
        return found(pack.name, {
          problem: "damaged",
          detail: `${size} bytes, the index says ${pack.sizeBytes}`,
        });
      }
      if (!this.#request.readPacks) return;
      const pace = () => pacer.turn();
      const reading = await readWholePack(pack, read.contents.entriesOf(pack.name), {
        ...this.#reading,
        signal,
        pace,
      });
      pacer.count(1, reading.bytes);
      if (reading.problem !== null) found(pack.name, reading.problem);
    });
    return bad;
  }

  /** A pack with those of its chunks that no pack before it has: an index names each chunk once. */
  #take(read: ReadIndexes, name: string): RecoveredPack {
    const pack = read.contents.find(name) ?? { name, sizeBytes: 0 };
    return this.#add({ pack, entries: read.contents.entriesOf(name) });
  }

  #add({ pack, entries }: RecoveredPack): RecoveredPack {
    return { pack, entries: this.#table.addAll(entries, this.#table.addPack(pack)) };
  }

  async #unknownPacks(read: ReadIndexes, sizes: ReadonlyMap<string, number>): Promise<RecoveredPack[]> {
    const { head } = this.#request;
    const limits = { doomed: new Set(head.doomed.map(({ pack }) => pack)), epoch: head.epoch };
    const { found, unreadable } = await readUnknownPacks(sizes, read.contents, limits, this.#reading);
    for (const { key, problem } of unreadable) this.#damaged.push({ ...problem, object: key });
    return found.map((pack) => this.#add(pack));
  }

  /** Stores anew what can be read in damaged packs and is nowhere else. */
  async #save(
    read: ReadIndexes,
    bad: ReadonlySet<string>,
  ): Promise<
    { readonly sent: readonly SentPack[]; readonly saved: number; readonly lost: readonly string[] }
  > {
    const { dryRun, token } = this.#request;
    const wanted = new Map<string, PackEntry & { readonly pack: IndexedPack }>();
    for (const name of bad) {
      const pack = read.contents.find(name) ?? { name, sizeBytes: 0 };
      for (const entry of read.contents.entriesOf(name)) {
        const id = idToText(entry.id);
        if (!this.#table.has(entry.id) && !wanted.has(id)) wanted.set(id, { ...entry, pack });
      }
    }
    const sender = new PackSender({
      ...this.#environment,
      codec: this.#codec,
      compression: "fast",
      token,
      table: this.#table,
    });
    let saved = 0;
    try {
      for (const name of bad) {
        const chunks = [...wanted.values()].filter(({ pack }) => pack.name === name);
        const first = chunks[0];
        if (first === undefined) continue;
        const range = {
          pack: first.pack,
          start: 0,
          end: Math.max(...chunks.map((each) => each.offset + each.storedLength)),
          chunks: chunks.map((each) => ({ ...each, id: idToText(each.id) })),
        };
        const plan = { ranges: [range], bytes: range.end };
        const room = sender.room();
        if (room !== null) await room;
        await fetchLeniently(plan, {
          ...this.#reading,
          // No more than one pack's chunks are added before there is room again.
          deliver: (id, bytes) => {
            const flags = wanted.get(id)?.flags ?? 0;
            wanted.delete(id);
            saved++;
            if (!dryRun) sender.add(idFromText(id), bytes, (flags & FLAG_META) === 0 ? "data" : "meta");
          },
        });
      }
      return { sent: await sender.finish(), saved, lost: [...wanted.keys()] };
    } catch (error) {
      await sender.abandon(error);
      throw error;
    }
  }

  async #write(packs: readonly PackToIndex[]): Promise<IndexRef[]> {
    const { store, clock, random, signal } = this.#environment;
    if (this.#request.dryRun) return [];
    const refs: IndexRef[] = [];
    for (const bytes of encodeIndexes(this.#codec, packs)) {
      const key = indexKey(this.#request.token, ulid(clock.wallMs(), random));
      await store.put(key, bytes, { condition: { absent: true }, signal });
      refs.push({ key, sha256: sha256Hex(bytes) });
    }
    return refs;
  }
}

/** 64 MiB of packs in memory at one time. */
const PACKS_IN_FLIGHT = 4;
