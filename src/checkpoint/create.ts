/**
 * Makes a checkpoint of files roots: scan, read what may have changed, store new chunks, then an index and a root
 * object. The head is not touched here: its holder commits the result under the lease. If we die at any point, or are
 * killed, only objects that nothing names are left.
 */

import type { Clock } from "../platform/clock.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { ensureFolder } from "../platform/files.ts";
import { mappedInodes } from "../platform/mapped_files.ts";
import { type Random, ulid } from "../platform/random.ts";
import { settleAll } from "../platform/settle.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { CopyFolder } from "./captured_files.ts";
import type { ChunkTable } from "./chunk_table.ts";
import type { Cipher } from "./cipher.ts";
import { ClaimTable } from "./claim_table.ts";
import { type Codec, loadCodec } from "./codec.ts";
import type { Compression } from "./compression.ts";
import { type ContentPool, LocalPool, WorkerPool } from "./content_pool.ts";
import { idFromText, idToText, indexKey, rootKey, sha256Hex } from "./ids.ts";
import { encodeIndexes } from "./index_format.ts";
import { openRootFolder } from "./file_reader.ts";
import type { Hold, Released } from "./hold.ts";
import { type IndexRef, keepCopy, type LoadedIndexes, loadIndexes } from "./index_store.ts";
import { ManifestWriter } from "./manifest.ts";
import { Pacer } from "./pacer.ts";
import { PackSender, type SentPack } from "./pack_sender.ts";
import { EntryList } from "./pack.ts";
import { type Machine, planReading, type ReadingNeed } from "./reading_plan.ts";
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
  /** Packs that no new checkpoint may refer to (prune_rules.ts, rule A). Absent: none. */
  readonly doomed?: readonly string[];
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
  /** Of the current checkpoint, but gone for good: no checkpoint names them from here on. Absent: none. */
  readonly goneDatabases?: readonly string[];
  /** Make a record of its own even when nothing changed. */
  readonly always: boolean;
  /** Device of each root at an earlier checkpoint, decimal; another one now is `source-missing`. */
  readonly devices: Readonly<Record<string, string>>;
  /** The programs can be made to stand still: the archiver asks for it. */
  readonly held?: boolean;
  /** Of chunks of files; the default is "auto". */
  readonly compression?: Compression;
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
  readonly cipher: Cipher;
  readonly clock: Clock;
  readonly random: Random;
  readonly cacheFolder: string;
  /** Existing folder for database copies; what is left in it is removed by its owner. */
  readonly scratchFolder: string;
  readonly madeBy: string;
  readonly machine: Machine;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ArchiveProgress) => void;
  /** The content is fixed: it was read, or with a hold copied. */
  readonly onCaptured?: () => void;
  readonly hold?: Hold;
}

/** In the cache folder: what the last scan of each root saw. Without it all files are read anew. */
export const SCANS_FOLDER = "scans";

/** With this many live indexes the small ones are written anew as one, so that their number stays bounded. */
const MERGE_FROM_INDEXES = 64;
/** Indexes from this size on are left alone by a merge. */
const LARGE_INDEX_RECORDS = 100_000;
/** Half the average chunk: what is to be read has hardly more chunks than its bytes divided by this, and one a file. */
const CHUNK_ESTIMATE_BYTES = 128 * 1024;

export async function createCheckpoint(
  request: CreateRequest,
  environment: CreateEnvironment,
): Promise<CreateResult> {
  const creation = new Creation(request, environment);
  try {
    return await creation.run();
  } catch (error) {
    await creation.abandon(error);
    throw error;
  }
}

/** What is needed to store chunks; opened when something may have changed. */
interface Writing {
  readonly codec: Codec;
  readonly loaded: LoadedIndexes;
  readonly sender: PackSender;
}

class Creation {
  readonly #request: CreateRequest;
  readonly #environment: CreateEnvironment;
  readonly #pacer: Pacer;
  readonly #warnings: FileWarning[] = [];
  readonly #startedMs: number;
  #writing: Writing | null = null;
  #mapped: ReadonlySet<bigint> | null = null;
  #pool: ContentPool | null = null;
  #readers: readonly TreeReader[] = [];
  #otherBytesSent = 0;

  constructor(request: CreateRequest, environment: CreateEnvironment) {
    this.#request = request;
    this.#environment = environment;
    this.#pacer = new Pacer(environment);
    this.#startedMs = environment.clock.monotonicMs();
  }

  async run(): Promise<CreateResult> {
    const { head, always } = this.#request;
    const scans = `${this.#environment.cacheFolder}/${SCANS_FOLDER}`;
    await ensureFolder(scans, 0o700);
    const readers = this.#readers = await this.#open(scans);
    this.#pacer.begin("scan", null);
    for (const reader of readers) await reader.scan();
    let databases = { ...withoutGone(head.current, this.#request), ...this.#request.databases };
    // A database has a history of its own, commit by commit: by the clock alone it needs no checkpoint.
    const mayOmit = () =>
      !always && (this.#request.kind === "interval" || samePositions(databases, head.current));
    let unchanged = this.#unchanged(readers);
    const isWhole = unchanged.length === readers.length && sameNames(readers, head.current);
    if (isWhole && mayOmit()) {
      this.#environment.onCaptured?.();
      return this.#nothingNew(readers);
    }
    // Nothing changed while it was looked at: that is of one moment, too, and nobody need be held.
    const hold = isWhole && Object.keys(databases).length === 0 ? undefined : this.#environment.hold;
    const released = hold === undefined ? null : await this.#capture(readers, hold);
    if (released !== null) databases = { ...databases, ...released.databases };
    if (hold !== undefined) unchanged = this.#unchanged(readers);
    const carried = await this.#carriedItems(unchanged);
    const changed = readers.filter((reader) => carried[reader.root.name] === undefined);
    const items = { ...carried, ...await this.#readTrees(changed) };
    if (released === null) this.#environment.onCaptured?.();
    if (sameContent(items, head.current) && mayOmit()) {
      await this.abandon(new StateManagerError("cancelled", "send packs: nothing changed"));
      await this.#saveCaches(changed, items);
      return this.#nothingNew(readers);
    }
    this.#pacer.begin("upload", null);
    await this.#pool?.finish();
    const sent = await this.#writing?.sender.sendRest() ?? [];
    // Beside the last packs, since nothing names any of it before the head does: when all is acknowledged. Likewise the
    // cache: while its chunks are in no index of the head they are stored again.
    const [indexes, record] = await settleAll([
      this.#writeIndexes(sent),
      this.#writeRoot(items, databases),
      this.#saveCaches(changed, items),
      this.#writing?.sender.finish(),
      ...changed.map((reader) => reader.removed()),
    ]);
    this.#pacer.begin("finish", null);
    return { record, indexes, ...this.#told(readers) };
  }

  /** Ends all that goes on behind our back; what was sent is garbage. */
  async abandon(reason: unknown): Promise<void> {
    this.#pool?.close();
    await this.#writing?.sender.abandon(reason);
    await Promise.allSettled(this.#readers.map((reader) => reader.removed()));
  }

  #nothingNew(readers: readonly TreeReader[]): CreateResult {
    return { record: null, indexes: this.#request.head.indexes, ...this.#told(readers) };
  }

  #told(readers: readonly TreeReader[]) {
    const devices = Object.fromEntries(readers.map((reader) => [reader.root.name, reader.device]));
    return { totals: this.#totals(readers), warnings: this.#warnings, devices };
  }

  async #saveCaches(
    readers: readonly TreeReader[],
    items: Readonly<Record<string, FilesItem>>,
  ): Promise<void> {
    const summaries = summariesOf(items);
    for (const reader of readers) {
      const summary = summaries[reader.root.name];
      if (summary !== undefined) await reader.saveCache(summary);
    }
  }

  #unchanged(readers: readonly TreeReader[]): readonly TreeReader[] {
    const { current } = this.#request.head;
    return readers.filter((reader) => sameSummary(reader.unchanged(), current, reader.root.name));
  }

  /**
   * Scans once more while the programs stand still, and copies what must be read. All that waits for the network or for a
   * cache is done before. Null: there was no time or no room for it, all is read as with no hold.
   */
  async #capture(readers: readonly TreeReader[], hold: Hold): Promise<Released | null> {
    await this.#openWriting();
    this.#pacer.begin("scan", null);
    await hold.begin();
    this.#warnings.length = 0; // what the first scan said this one says again
    for (const reader of readers) await reader.scan();
    let problem: string | null = null;
    try {
      for (const [i, reader] of readers.entries()) {
        reader.plan();
        await this.#copy(reader, `${this.#environment.scratchFolder}/copies-${i}`, hold.over);
      }
    } catch (error) {
      if (!isError(error, "disk-full")) throw error;
      problem = "the scratch folder has no room for copies of what changed";
    }
    const isFixed = problem === null && !hold.over.aborted;
    if (isFixed) this.#environment.onCaptured?.();
    const released = await hold.end();
    const broken = problem ?? released.broken;
    if (broken === null) return released;
    const reason = `not of one moment, files were read while their programs ran: ${broken}`;
    for (const { root } of readers) this.#warnings.push({ root: root.name, path: "", reason });
    return isFixed ? { ...released, broken } : null;
  }

  async #copy(reader: TreeReader, folder: string, over: AbortSignal): Promise<void> {
    await ensureFolder(folder, 0o700);
    const copies = new CopyFolder(folder, openRootFolder(folder));
    try {
      await reader.capture(copies, over);
    } finally {
      copies.close();
    }
  }

  async #open(scans: string): Promise<TreeReader[]> {
    const { clock, madeBy } = this.#environment;
    const readers: TreeReader[] = [];
    for (const root of this.#request.roots) {
      const reader = new TreeReader({
        root,
        cache: await openScanCache({
          path: `${scans}/${root.name}`,
          rootPath: root.path,
          clock,
          stamp: madeBy,
          mapped: () => this.#mappedNow(),
        }),
        clock,
        scratchFolder: this.#environment.scratchFolder,
        signal: this.#environment.signal,
        pacer: this.#pacer,
        warn: (warning) => void this.#warnings.push(warning),
        stored: (id) => this.#writing?.loaded.table.has(idFromText(id)) ?? false,
        expectedDevice: this.#request.devices[root.name] ?? null,
      });
      readers.push(reader);
    }
    return readers;
  }

  async #openWriting(): Promise<Writing> {
    if (this.#writing !== null) return this.#writing;
    this.#mappedNow();
    const { store, signal, cacheFolder } = this.#environment;
    const { token, head, compression = "auto" } = this.#request;
    const codec = await loadCodec();
    const doomed = new Set(head.doomed);
    const loaded = await loadIndexes(store, head.indexes, { codec, cacheFolder, signal, doomed });
    const sender = new PackSender({ ...this.#environment, codec, compression, token, table: loaded.table });
    return this.#writing = { codec, loaded, sender };
  }

  /**
   * Taken before anything is read, since what is let go of meanwhile is seen by the reading; not before, since a tree in
   * which nothing changed needs none of it, and all processes of the machine are looked at.
   */
  #mappedNow(): ReadonlySet<bigint> {
    return this.#mapped ??= mappedInodes();
  }

  #openPool({ sender, loaded: { table } }: Writing, needs: readonly ReadingNeed[]): ContentPool {
    const { machine, clock, cipher, signal } = this.#environment;
    const pacer = this.#pacer;
    const bytes = needs.reduce((sum, need) => sum + need.bytes, 0);
    const files = needs.reduce((sum, need) => sum + need.files, 0);
    const { workers, packBytes, packsPerWorker } = planReading(machine, { bytes, files });
    sender.packBytes = packBytes;
    if (workers === 0) return new LocalPool(sender, pacer);
    const claims = ClaimTable.forChunks(table.size + files + bytes / CHUNK_ESTIMATE_BYTES);
    for (const { id } of table.all()) claims.claim(id);
    const { compression = "auto" } = this.#request;
    const plan = { workers, packBytes, packsPerWorker };
    return new WorkerPool({ ...plan, compression, cipher, claims, sender, pacer, clock, signal });
  }

  /** Items of the current checkpoint that this run does not read, or that did not change, stay as they are. */
  async #carriedItems(unchanged: readonly TreeReader[]): Promise<Record<string, FilesItem>> {
    const { head: { current }, roots } = this.#request;
    const { store, cipher, signal } = this.#environment;
    const same = new Set(unchanged.map((reader) => reader.root.name));
    const read = new Set(roots.map((root) => root.name).filter((name) => !same.has(name)));
    if (current === null || Object.keys(current.files).every((name) => read.has(name))) return {};
    const root = await loadRoot(store, current, { cipher, signal });
    return Object.fromEntries(Object.entries(root.items.files).filter(([name]) => !read.has(name)));
  }

  async #readTrees(readers: readonly TreeReader[]): Promise<Record<string, FilesItem>> {
    if (readers.length === 0) return {};
    this.#pacer.begin("read", readers.reduce((sum, reader) => sum + reader.bytes, 0));
    const writing = await this.#openWriting();
    const needs = readers.map((reader) => reader.plan());
    // Its threads start while the first database is copied.
    const open = () => this.#pool ??= this.#openPool(writing, needs);
    // All databases first: programs mostly write a file before the row that names it.
    const last = readers.findLast((reader) => reader.hasDatabases);
    for (const reader of readers) await reader.readDatabases(open, reader === last);
    const pool = open();
    for (const reader of readers) reader.begin(pool);
    pool.allAsked();
    const items: Record<string, FilesItem> = {};
    for (const reader of readers) {
      items[reader.root.name] = await this.#readTree(reader, pool, writing.sender);
    }
    return items;
  }

  async #readTree(reader: TreeReader, pool: ContentPool, sender: PackSender): Promise<FilesItem> {
    const manifest: string[] = [];
    const { cipher } = this.#environment;
    const writer = new ManifestWriter((piece) => {
      const id = cipher.chunkId(piece);
      sender.add(id, piece, "meta");
      manifest.push(idToText(id));
    }, cipher);
    await reader.each(pool, (entry) => {
      writer.add(entry);
      return this.#pacer.turn() ?? sender.room();
    });
    return { ...writer.finish(), manifest };
  }

  /** Index objects for the new packs, and when there are too many live ones, for the small ones as well. */
  async #writeIndexes(sent: readonly SentPack[]): Promise<readonly IndexRef[]> {
    if (this.#writing === null || sent.length === 0) return this.#request.head.indexes;
    const { codec, loaded: { indexes: live, table } } = this.#writing;
    const merged = live.length + 1 < MERGE_FROM_INDEXES
      ? []
      : live.filter(({ records }) => records < LARGE_INDEX_RECORDS);
    const objects = encodeIndexes(codec, [
      ...packsOf(table, merged.flatMap(({ packs }) => packs)),
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
    const key = rootKey(token, id);
    const bytes = this.#environment.cipher.sealObject(key, encodeJson(root));
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
      bytesTransferred: (this.#writing?.sender.bytesSent ?? 0) + this.#otherBytesSent,
      bytesReused: 0,
      durationMs: this.#environment.clock.monotonicMs() - this.#startedMs,
    };
  }
}

/** What the table knows of these packs, in the form of packs that were just sent. */
function packsOf(table: ChunkTable, numbers: readonly number[]): SentPack[] {
  const entries = new Map(
    numbers.map((number) => [table.packs[number]?.name ?? "", new EntryList()]),
  );
  if (entries.size === 0) return [];
  for (const chunk of table.all()) entries.get(chunk.pack.name)?.push(chunk);
  return numbers.flatMap((number) => {
    const pack = table.packs[number];
    return pack === undefined ? [] : [{ pack, entries: entries.get(pack.name) ?? new EntryList() }];
  });
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
function withoutGone(
  current: CheckpointRecord | null,
  { goneDatabases = [] }: CreateRequest,
): Readonly<Record<string, DatabasePosition>> {
  const known = Object.entries(current?.databases ?? {});
  return Object.fromEntries(known.filter(([name]) => !goneDatabases.includes(name)));
}

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
  const names = new Set([...Object.keys(databases), ...Object.keys(known)]);
  return [...names].every((name) => databases[name]?.txid === known[name]?.txid);
}

function sameSummary(summary: FilesSummary | null, current: CheckpointRecord | null, name: string): boolean {
  const known = current?.files[name];
  return summary !== null && known !== undefined && summary.manifest_sha256 === known.manifest_sha256 &&
    summary.entries === known.entries && summary.bytes === known.bytes;
}

/** Every root is in the current checkpoint; what else is in it stays. */
function sameNames(readers: readonly TreeReader[], current: CheckpointRecord | null): boolean {
  return current !== null && readers.every((reader) => current.files[reader.root.name] !== undefined);
}

function sameContent(items: Readonly<Record<string, FilesItem>>, current: CheckpointRecord | null): boolean {
  if (current === null) return false;
  const names = Object.keys(items);
  return names.length === Object.keys(current.files).length &&
    names.every((name) => items[name]?.manifest_sha256 === current.files[name]?.manifest_sha256);
}
