/**
 * The reading half of garbage collection: marks the chunks that kept checkpoints need, lists what is in the store, and
 * writes half-empty packs anew. prune_rules.ts decides. Whatever could not be read or listed ends it with an error, and
 * then nothing is deleted: where a repository is damaged, the bytes that look like garbage may be the last copy.
 *
 * It deletes and commits nothing. What it writes (packs, then indexes) nobody names until the manager's swap: if we die
 * before it, that is garbage for the next run.
 */

import type { Clock } from "../platform/clock.ts";
import { type Random, ulid } from "../platform/random.ts";
import { listAll, type ObjectStore } from "../storage/object_store.ts";
import { ChunkMarks } from "./chunk_marks.ts";
import { ChunkTable } from "./chunk_table.ts";
import { fetchChunks, planFetch } from "./chunk_fetcher.ts";
import type { Cipher } from "./cipher.ts";
import { type Codec, damaged, loadCodec } from "./codec.ts";
import {
  idFromText,
  idToText,
  INDEX_PREFIX,
  indexKey,
  isIndexKey,
  isPackName,
  isRootKey,
  PACKS_PREFIX,
  ROOTS_PREFIX,
  sha256Hex,
} from "./ids.ts";
import { encodeIndexes, withoutPacks } from "./index_format.ts";
import { type IndexRef, keepCopy, type LoadedIndexes, loadIndexes, readIndex } from "./index_store.ts";
import { LineProblem, parseLine } from "./manifest_line.ts";
import { Pacer } from "./pacer.ts";
import { FLAG_META } from "./pack.ts";
import { PackSender } from "./pack_sender.ts";
import { type CollectionPlan, type DoomBasis, type IndexedPackUse, planCollection } from "./prune_rules.ts";
import { loadRoot, type RootRef } from "./root_reader.ts";
import type { ArchiveProgress, Head } from "./types.ts";

export interface CollectRequest {
  /** Fencing token of our term. */
  readonly token: number;
  readonly head: Pick<Head, "doomed" | "doomed_objects" | "indexes">;
  /** Every checkpoint whose chunks must stay. */
  readonly roots: readonly RootRef[];
  /** Only say what would be done. */
  readonly dryRun: boolean;
}

export interface CollectResult {
  /** Of `Doom`, without its basis. */
  readonly packs: readonly string[];
  readonly objects: readonly string[];
  readonly indexes: readonly IndexRef[];
  readonly report: CollectReport;
}

/** For people. Bytes are those of stored objects. */
export interface CollectReport {
  /** Packs in the live indexes, and what of them kept checkpoints need. */
  readonly packs: number;
  readonly packBytes: number;
  readonly liveBytes: number;
  readonly deadPacks: number;
  readonly deadBytes: number;
  readonly orphanPacks: number;
  readonly orphanBytes: number;
  /** Half-empty packs that are written anew, and what that costs. */
  readonly repackedPacks: number;
  readonly repackedBytes: number;
  readonly rewrittenBytes: number;
  /** Index and root objects that nothing names. */
  readonly objects: number;
  /** Bytes of packs that go, less those that were written for them. */
  readonly freedBytes: number;
}

export interface CollectEnvironment {
  readonly store: ObjectStore;
  readonly cipher: Cipher;
  readonly clock: Clock;
  readonly random: Random;
  readonly cacheFolder: string;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ArchiveProgress) => void;
}

/** Pieces of manifests fetched in one go: 64 KiB each as a rule, and none is kept. */
const PIECES_AT_ONCE = 2048;
/** Root objects read at one time. */
const ROOTS_IN_FLIGHT = 8;

export async function collectGarbage(
  request: CollectRequest,
  environment: CollectEnvironment,
): Promise<CollectResult> {
  const codec = await loadCodec();
  return await new Collection(request, environment, codec).run();
}

export function doomOf({ packs, objects, indexes }: CollectResult, basis: DoomBasis) {
  return { packs, objects, indexes, basis };
}

class Collection {
  readonly #request: CollectRequest;
  readonly #environment: CollectEnvironment;
  readonly #codec: Codec;
  readonly #pacer: Pacer;

  constructor(request: CollectRequest, environment: CollectEnvironment, codec: Codec) {
    this.#request = request;
    this.#environment = environment;
    this.#codec = codec;
    this.#pacer = new Pacer(environment);
  }

  async run(): Promise<CollectResult> {
    const { head, roots, token } = this.#request;
    const { store, cacheFolder, signal } = this.#environment;
    const doomed = new Set(head.doomed.map(({ pack }) => pack));
    const loaded = await loadIndexes(store, head.indexes, {
      codec: this.#codec,
      cacheFolder,
      signal,
      doomed,
    });
    const live = await this.#mark(loaded.table);
    const packs = usesOf(loaded.table, live);
    const { listedPacks, listedObjects } = await this.#list();
    const rootKeys = roots.map(({ root }) => root);
    const plan = planCollection({ token, head, roots: rootKeys, packs, listedPacks, listedObjects });
    const [missing] = plan.missing;
    if (missing !== undefined) {
      throw damaged(PACKS_PREFIX + missing, "the object is not there, and a kept checkpoint needs it");
    }
    const sizes = (names: readonly string[]) =>
      names.reduce((sum, name) => sum + (listedPacks.get(name) ?? 0), 0);
    const gone = [...plan.dead, ...plan.repack];
    const rewritten = this.#request.dryRun ? null : await this.#rewrite(loaded, live, plan);
    const sum = (of: (pack: IndexedPackUse) => number) => packs.reduce((all, pack) => all + of(pack), 0);
    const repacked = new Set(plan.repack);
    const rewrittenBytes = rewritten?.bytes ??
      sum(({ name, liveBytes }) => repacked.has(name) ? liveBytes : 0);
    return {
      packs: [...gone, ...plan.orphans],
      objects: plan.objects,
      indexes: rewritten?.indexes ?? head.indexes,
      report: {
        packs: packs.length,
        packBytes: sum(({ sizeBytes }) => sizeBytes),
        liveBytes: sum(({ liveBytes }) => liveBytes),
        deadPacks: plan.dead.length,
        deadBytes: sizes(plan.dead),
        orphanPacks: plan.orphans.length,
        orphanBytes: sizes(plan.orphans),
        repackedPacks: plan.repack.length,
        repackedBytes: sizes(plan.repack),
        rewrittenBytes,
        objects: plan.objects.length,
        freedBytes: sizes([...gone, ...plan.orphans]) - rewrittenBytes,
      },
    };
  }

  // ---- mark

  /** One bit for each chunk of the table. */
  async #mark(table: ChunkTable): Promise<Marks> {
    const { store, cipher, signal } = this.#environment;
    const { roots } = this.#request;
    const live = new Marks(table);
    this.#pacer.begin("plan", null);
    const pieces = new Set<string>();
    for (let i = 0; i < roots.length; i += ROOTS_IN_FLIGHT) {
      const group = roots.slice(i, i + ROOTS_IN_FLIGHT);
      for (const root of await Promise.all(group.map((ref) => loadRoot(store, ref, { cipher, signal })))) {
        for (const [name, item] of Object.entries(root.items.files)) {
          for (const id of item.manifest) {
            if (live.need(id, () => `the manifest of "${name}"`)) pieces.add(id);
          }
        }
      }
      this.#pacer.count(group.length, 0);
      await this.#pacer.turn();
    }
    const wanted = [...pieces];
    for (let i = 0; i < wanted.length; i += PIECES_AT_ONCE) {
      await fetchChunks(planFetch(table, wanted.slice(i, i + PIECES_AT_ONCE)), {
        store,
        cipher,
        codec: this.#codec,
        signal,
        deliver: (id, bytes) => markPiece(id, bytes, live),
        onFetched: (bytes) => this.#pacer.count(0, bytes),
        pace: () => this.#pacer.turn(),
      });
    }
    return live;
  }

  // ---- list

  async #list() {
    const { store, signal } = this.#environment;
    const listedPacks = new Map<string, number>();
    const listedObjects: string[] = [];
    for await (const { key, sizeBytes } of listAll(store, PACKS_PREFIX, { signal })) {
      const name = key.slice(PACKS_PREFIX.length);
      // What is not named as ours are is none of ours: it is left alone.
      if (isPackName(name)) listedPacks.set(name, sizeBytes);
    }
    for (const prefix of [INDEX_PREFIX, ROOTS_PREFIX]) {
      for await (const { key } of listAll(store, prefix, { signal })) {
        if (isIndexKey(key) || isRootKey(key)) listedObjects.push(key);
      }
    }
    return { listedPacks, listedObjects };
  }

  // ---- rewrite

  /** New packs for what is live in half-empty ones, and every live index without the packs that go. */
  async #rewrite(
    loaded: LoadedIndexes,
    live: Marks,
    plan: CollectionPlan,
  ): Promise<{ readonly indexes: readonly IndexRef[]; readonly bytes: number }> {
    const { store, cacheFolder, signal } = this.#environment;
    const gone = new Set([...plan.dead, ...plan.repack]);
    const doomed = new Set(this.#request.head.doomed.map(({ pack }) => pack));
    const repacked = await this.#repack(loaded.table, live, new Set(plan.repack));
    const indexes: IndexRef[] = [];
    for (const { ref, packs, namesDoomed } of loaded.indexes) {
      // Rule A: no live index names a doomed pack.
      if (!namesDoomed && packs.every((number) => !gone.has(loaded.table.packs[number]?.name ?? ""))) {
        indexes.push(ref);
        continue;
      }
      const bytes = await readIndex(store, ref, { cacheFolder, signal });
      const isGone = (name: string) => gone.has(name) || doomed.has(name);
      const rest = withoutPacks(this.#codec, bytes, ref.key, isGone);
      if (rest !== null) indexes.push(await this.#writeIndex(rest));
      await this.#pacer.turn();
    }
    for (const bytes of encodeIndexes(this.#codec, repacked.packs)) {
      indexes.push(await this.#writeIndex(bytes));
    }
    return { indexes, bytes: repacked.bytes };
  }

  async #writeIndex(bytes: Uint8Array<ArrayBuffer>): Promise<IndexRef> {
    const { store, clock, random, cacheFolder, signal } = this.#environment;
    const key = indexKey(this.#request.token, ulid(clock.wallMs(), random));
    const ref = { key, sha256: sha256Hex(bytes) };
    await store.put(key, bytes, { condition: { absent: true }, signal });
    await keepCopy(`${cacheFolder}/indexes/${ref.sha256}`, bytes);
    return ref;
  }

  /** Every chunk is verified on its way, and packed as a new one would be. */
  async #repack(table: ChunkTable, live: Marks, names: ReadonlySet<string>) {
    const { store, cipher, signal } = this.#environment;
    const ids: string[] = [];
    const meta = new Set<string>();
    if (names.size === 0) return { packs: [], bytes: 0 };
    for (const { id, flags, pack } of live.marked()) {
      if (!names.has(pack.name)) continue;
      const text = idToText(id);
      ids.push(text);
      if ((flags & FLAG_META) !== 0) meta.add(text);
    }
    this.#pacer.begin("fetch", null);
    const sender = new PackSender({
      ...this.#environment,
      codec: this.#codec,
      compression: "auto",
      token: this.#request.token,
      table: new ChunkTable(),
    });
    try {
      await fetchChunks(planFetch(table, ids), {
        store,
        cipher,
        codec: this.#codec,
        signal,
        deliver: (id, bytes) => sender.add(idFromText(id), bytes, meta.has(id) ? "meta" : "data"),
        onFetched: (bytes) => this.#pacer.count(0, bytes),
        pace: () => sender.room() ?? this.#pacer.turn(),
      });
      const packs = await sender.finish();
      return { packs, bytes: sender.bytesSent };
    } catch (error) {
      await sender.abandon(error);
      throw error;
    }
  }
}

/** Which chunks of a table are needed. */
class Marks extends ChunkMarks {
  readonly #table: ChunkTable;

  constructor(table: ChunkTable) {
    super(table);
    this.#table = table;
  }

  /** False when it was marked before. `data-damaged` when no index knows it: `user` says who needs it. */
  need(id: string, user: () => string): boolean {
    const number = this.#table.numberOf(idFromText(id));
    if (number === null) throw damaged("the indexes", `none knows chunk ${id}, needed by ${user()}`);
    return this.add(number);
  }
}

/** How much of each pack is needed. */
function usesOf(table: ChunkTable, live: Marks): IndexedPackUse[] {
  const liveBytes = new Map<string, number>();
  for (const { pack, storedLength } of live.marked()) {
    liveBytes.set(pack.name, (liveBytes.get(pack.name) ?? 0) + storedLength);
  }
  return table.packs.map((pack) => ({ ...pack, liveBytes: liveBytes.get(pack.name) ?? 0 }));
}

/** Marks the chunks of the files in one piece of a manifest. Pieces end at line ends, so each reads by itself. */
function markPiece(id: string, piece: Uint8Array, live: Marks): void {
  let start = 0;
  while (start < piece.length) {
    const end = piece.indexOf(0x0a, start);
    if (end < 0) throw damaged(`manifest piece ${id}`, "line is not ended");
    try {
      const { parts } = parseLine(piece.subarray(start, end));
      for (const part of parts) {
        if (part.kind === "chunk") live.need(part.id, () => `manifest piece ${id}`);
      }
    } catch (error) {
      throw error instanceof LineProblem ? damaged(`manifest piece ${id}`, error.message) : error;
    }
    start = end + 1;
  }
}
