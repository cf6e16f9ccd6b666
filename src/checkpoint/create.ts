/**
 * Makes a checkpoint of files roots: scan, read what may have changed, store new chunks, then an index and a root
 * object. The head is not touched here: its holder commits the result under the lease. If we die at any point, or are
 * killed, only objects that nothing names are left.
 */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { ensureFolder } from "../platform/files.ts";
import { type Random, ulid } from "../platform/random.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { ChunkTable } from "./chunk_table.ts";
import { type Codec, loadCodec } from "./codec.ts";
import { idFromText, idToText, indexKey, rootKey, sha256, sha256Hex } from "./ids.ts";
import { encodeIndexes } from "./index_format.ts";
import { type IndexRef, keepCopy, type LoadedIndexes, loadIndexes } from "./index_store.ts";
import { ManifestWriter } from "./manifest.ts";
import { Pacer } from "./pacer.ts";
import { PackSender, type SentPack } from "./pack_sender.ts";
import { encodeJson, type FilesItem, FORMAT, ROOT_WARNINGS_LIMIT, type RootObject } from "./records.ts";
import { loadRoot } from "./root_reader.ts";
import { openScanCache } from "./scan_cache.ts";
import { TreeReader } from "./tree_reader.ts";
import type {
  ArchiveProgress,
  ArchiveTotals,
  CheckpointRecord,
  DatabasePosition,
  FilesRoot,
  FilesSummary,
  FileWarning,
} from "./types.ts";

/** What the archiver must know of the head. */
export interface HeadFacts {
  readonly repo_id: string;
  /** Ordinal that the new checkpoint gets. */
  readonly n: number;
  readonly current: CheckpointRecord | null;
  readonly indexes: readonly IndexRef[];
}

export interface CreateRequest {
  readonly id: string;
  readonly kind: CheckpointRecord["kind"];
  readonly time: number;
  readonly comment: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly token: number;
  readonly head: HeadFacts;
  readonly roots: readonly FilesRoot[];
  /** Where the replicated databases stand: all that the configuration names. Absent: there are none. */
  readonly databases?: Readonly<Record<string, DatabasePosition>>;
  /** Make a record of its own even when nothing changed. */
  readonly always: boolean;
  /** Device of each root at an earlier checkpoint, decimal; another one now is `source-missing`. */
  readonly devices: Readonly<Record<string, string>>;
}

export interface CreateResult {
  /** Null when nothing changed since the current checkpoint: nothing was written then. */
  readonly record: CheckpointRecord | null;
  /** All live indexes of the head that lists the record. */
  readonly indexes: readonly IndexRef[];
  readonly totals: ArchiveTotals;
  readonly warnings: readonly FileWarning[];
  readonly devices: Readonly<Record<string, string>>;
}

export interface CreateEnvironment {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly cacheFolder: string;
  /** Existing folder for database copies; what is left in it is removed by its owner. */
  readonly scratchFolder: string;
  readonly madeBy: string;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ArchiveProgress) => void;
  /** Everything was read; what follows only sends. */
  readonly onCaptured?: () => void;
}

/** With this many live indexes the small ones are written anew as one, so that their number stays bounded. */
const MERGE_FROM_INDEXES = 64;
/** Indexes from this size on are left alone by a merge. */
const LARGE_INDEX_RECORDS = 100_000;

export async function createCheckpoint(
  request: CreateRequest,
  environment: CreateEnvironment,
): Promise<CreateResult> {
  const codec = await loadCodec();
  const { store, signal, cacheFolder } = environment;
  const loaded = await loadIndexes(store, request.head.indexes, { codec, cacheFolder, signal });
  const sender = new PackSender({ ...environment, codec, token: request.token, table: loaded.table });
  try {
    return await new Creation(request, environment, codec, loaded, sender).run();
  } catch (error) {
    await sender.abandon(error);
    throw error;
  }
}

class Creation {
  readonly #request: CreateRequest;
  readonly #environment: CreateEnvironment;
  readonly #codec: Codec;
  readonly #loaded: LoadedIndexes;
  readonly #sender: PackSender;
  readonly #pacer: Pacer;
  readonly #warnings: FileWarning[] = [];
  readonly #startedMs: number;
  #otherBytesSent = 0;

  constructor(
    request: CreateRequest,
    environment: CreateEnvironment,
    codec: Codec,
    loaded: LoadedIndexes,
    sender: PackSender,
  ) {
    this.#request = request;
    this.#environment = environment;
    this.#codec = codec;
    this.#loaded = loaded;
    this.#sender = sender;
    this.#pacer = new Pacer(environment);
    this.#startedMs = environment.clock.monotonicMs();
  }

  async run(): Promise<CreateResult> {
    const { head, always } = this.#request;
    const readers = await this.#scan();
    const items: Record<string, FilesItem> = { ...await this.#carriedItems() };
    this.#pacer.begin("read", readers.reduce((sum, reader) => sum + reader.bytes, 0));
    // All databases first: programs mostly write a file before the row that names it.
    for (const reader of readers) await reader.readDatabases();
    for (const reader of readers) items[reader.root.name] = await this.#readTree(reader);
    this.#environment.onCaptured?.();
    const devices = Object.fromEntries(readers.map((reader) => [reader.root.name, reader.device]));
    const databases = { ...head.current?.databases, ...this.#request.databases };
    // A database has a history of its own, commit by commit: by the clock alone it needs no checkpoint.
    const samePlaces = this.#request.kind === "interval" || samePositions(databases, head.current);
    if (sameContent(items, head.current) && samePlaces && !always) {
      await this.#sender.abandon(new StateManagerError("cancelled", "send packs: nothing changed"));
      for (const reader of readers) await reader.saveCache();
      return {
        record: null,
        indexes: head.indexes,
        totals: this.#totals(readers),
        warnings: this.#warnings,
        devices,
      };
    }
    this.#pacer.begin("upload", null);
    const indexes = await this.#writeIndexes(await this.#sender.finish());
    // Chunks that the cache names are stored now; if the commit fails they are in no index and are stored again.
    for (const reader of readers) await reader.saveCache();
    const record = await this.#writeRoot(items, databases);
    this.#pacer.begin("finish", null);
    return { record, indexes, totals: this.#totals(readers), warnings: this.#warnings, devices };
  }

  async #scan(): Promise<TreeReader[]> {
    const { cacheFolder, clock } = this.#environment;
    const scans = `${cacheFolder}/scans`;
    await ensureFolder(scans, 0o700);
    this.#pacer.begin("scan", null);
    const readers: TreeReader[] = [];
    for (const root of this.#request.roots) {
      const reader = new TreeReader({
        root,
        cache: await openScanCache({ path: `${scans}/${root.name}`, rootPath: root.path, clock }),
        clock,
        scratchFile: `${this.#environment.scratchFolder}/database`,
        signal: this.#environment.signal,
        pacer: this.#pacer,
        warn: (warning) => void this.#warnings.push(warning),
        store: (chunk) => this.#storeData(chunk),
        stored: (id) => this.#table.has(idFromText(id)),
        room: () => this.#sender.room(),
        expectedDevice: this.#request.devices[root.name] ?? null,
      });
      await reader.scan();
      readers.push(reader);
    }
    return readers;
  }

  get #table(): ChunkTable {
    return this.#loaded.table;
  }

  #storeData(chunk: Uint8Array): string {
    const id = sha256(chunk);
    this.#sender.add(id, chunk, "data");
    return idToText(id);
  }

  /** Items of the current checkpoint that this run does not read stay as they are. */
  async #carriedItems(): Promise<Record<string, FilesItem>> {
    const { head, roots } = this.#request;
    const { store, signal } = this.#environment;
    const read = new Set(roots.map((root) => root.name));
    const current = head.current;
    if (current === null || Object.keys(current.files).every((name) => read.has(name))) return {};
    const root = await loadRoot(store, current, { signal });
    return Object.fromEntries(Object.entries(root.items.files).filter(([name]) => !read.has(name)));
  }

  async #readTree(reader: TreeReader): Promise<FilesItem> {
    const manifest: string[] = [];
    const writer = new ManifestWriter((piece) => {
      const id = sha256(piece);
      this.#sender.add(id, piece, "meta");
      manifest.push(idToText(id));
    });
    for await (const entry of reader.entries()) {
      writer.add(entry);
      const room = this.#sender.room();
      if (room !== null) await room;
    }
    return { ...writer.finish(), manifest };
  }

  /** Index objects for the new packs, and when there are too many live ones, for the small ones as well. */
  async #writeIndexes(sent: readonly SentPack[]): Promise<readonly IndexRef[]> {
    const live = this.#loaded.indexes;
    if (sent.length === 0) return live.map(({ ref }) => ref);
    const merged = live.length + 1 < MERGE_FROM_INDEXES
      ? []
      : live.filter(({ records }) => records < LARGE_INDEX_RECORDS);
    const objects = encodeIndexes(this.#codec, [
      ...this.#packsOf(merged.flatMap(({ packs }) => packs)),
      ...sent,
    ]);
    const written: IndexRef[] = [];
    for (const bytes of objects) {
      const ref = { key: indexKey(this.#request.token, this.#ulid()), sha256: sha256Hex(bytes) };
      await this.#put(ref.key, bytes);
      await keepCopy(`${this.#environment.cacheFolder}/indexes/${ref.sha256}`, bytes);
      written.push(ref);
    }
    const gone = new Set(merged);
    return [...live.filter((index) => !gone.has(index)).map(({ ref }) => ref), ...written];
  }

  /** What the table knows of these packs, in the form of packs that were just sent. */
  #packsOf(numbers: readonly number[]): SentPack[] {
    const entries = new Map(
      numbers.map((
        number,
      ) => [this.#table.packs[number]?.name ?? "", new Array<SentPack["entries"][number]>()]),
    );
    if (entries.size === 0) return [];
    for (const chunk of this.#table.all()) entries.get(chunk.pack.name)?.push(chunk);
    return numbers.flatMap((number) => {
      const pack = this.#table.packs[number];
      return pack === undefined ? [] : [{ pack, entries: entries.get(pack.name) ?? [] }];
    });
  }

  async #writeRoot(
    items: Readonly<Record<string, FilesItem>>,
    databases: Readonly<Record<string, DatabasePosition>>,
  ): Promise<CheckpointRecord> {
    const { id, kind, time, comment, labels, token, head } = this.#request;
    const root: RootObject = {
      format: FORMAT,
      repo_id: head.repo_id,
      id,
      time,
      made_by: this.#environment.madeBy,
      items: { files: items, ...databasesOf(databases) },
      warnings: this.#warnings.slice(0, ROOT_WARNINGS_LIMIT),
    };
    const bytes = encodeJson(root);
    const key = rootKey(token, id);
    await this.#put(key, bytes);
    return {
      id,
      n: head.n,
      time,
      token,
      parent: head.current?.id ?? null,
      kind,
      comment,
      labels,
      root: key,
      root_sha256: sha256Hex(bytes),
      files: summariesOf(items),
      ...databasesOf(databases),
      warnings: this.#warnings.length,
    };
  }

  async #put(key: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const { store, signal } = this.#environment;
    await store.put(key, bytes, { condition: { absent: true }, signal });
    this.#otherBytesSent += bytes.length;
  }

  #ulid(): string {
    return ulid(this.#environment.clock.wallMs(), this.#environment.random);
  }

  #totals(readers: readonly TreeReader[]): ArchiveTotals {
    const sum = (of: (reader: TreeReader) => number) => readers.reduce((all, reader) => all + of(reader), 0);
    return {
      entries: sum((reader) => reader.entryCount),
      bytes: sum((reader) => reader.bytes),
      bytesRead: sum((reader) => reader.bytesRead),
      bytesTransferred: this.#sender.bytesSent + this.#otherBytesSent,
      bytesReused: 0,
      durationMs: this.#environment.clock.monotonicMs() - this.#startedMs,
    };
  }
}

/** What the head says of the items of a root object. */
export function summariesOf(items: Readonly<Record<string, FilesItem>>): Record<string, FilesSummary> {
  return Object.fromEntries(
    Object.entries(items).map((
      [name, { entries, bytes, manifest_sha256 }],
    ) => [name, { entries, bytes, manifest_sha256 }]),
  );
}

/** Left out where there are none. */
export function databasesOf(
  databases: Readonly<Record<string, DatabasePosition>>,
): Pick<CheckpointRecord, "databases"> {
  return Object.keys(databases).length === 0 ? {} : { databases };
}

function samePositions(
  databases: Readonly<Record<string, DatabasePosition>>,
  current: CheckpointRecord | null,
): boolean {
  const known = current?.databases ?? {};
  return Object.keys(databases).every((name) => databases[name]?.txid === known[name]?.txid);
}

function sameContent(items: Readonly<Record<string, FilesItem>>, current: CheckpointRecord | null): boolean {
  if (current === null) return false;
  const names = Object.keys(items);
  return names.length === Object.keys(current.files).length &&
    names.every((name) => items[name]?.manifest_sha256 === current.files[name]?.manifest_sha256);
}
