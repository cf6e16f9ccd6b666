/**
 * One files root on its way into a checkpoint: scanned once, then every file that may have changed is read. What
 * cannot be read is left out with a warning; what changes while it is read is taken after a few tries, with one too.
 */

import type { Clock } from "../platform/clock.ts";
import { NO_DESCRIPTOR } from "../platform/errno.ts";
import { asStateManagerError, isError } from "../platform/errors.ts";
import { removeIfPresent } from "../platform/files.ts";
import { closeFd, isErrno, LibcError, type PathBytes, pathBytes, showPath } from "../platform/libc_files.ts";
import { bytesOf, byteText } from "./byte_text.ts";
import type { CopyFolder } from "./captured_files.ts";
import type { ContentRange } from "./content_reader.ts";
import {
  attributesOf,
  type FileOutcome,
  packPaths,
  packSeen,
  type ReadFacts,
  sizeOf,
} from "./content_job.ts";
import type { ContentPool, JobAnswer } from "./content_pool.ts";
import { fileSegments, isSegmented, mergeSegments, type Planned, readBatches } from "./content_jobs.ts";
import { FUZZY_READS, openForReading, openRootFolder } from "./file_reader.ts";
import type { Pacer } from "./pacer.ts";
import type { ReadingNeed } from "./reading_plan.ts";
import { type ScannedEntry, scanTree } from "./scan.ts";
import type { ScanCache } from "./scan_cache.ts";
import { ScannedList } from "./scanned_list.ts";
import { copyDatabase, snapshotDatabase } from "./sqlite_snapshot.ts";
import type { FilesRoot, FilesSummary, FileWarning, ManifestEntry, TreeEntry } from "./types.ts";
import { XattrReader } from "./xattrs.ts";

export interface TreeReaderOptions {
  readonly root: FilesRoot;
  readonly cache: ScanCache;
  readonly clock: Clock;
  /** Folder for one database copy at a time. */
  readonly scratchFolder: string;
  readonly signal: AbortSignal;
  readonly pacer: Pacer;
  readonly warn: (warning: FileWarning) => void;
  /** True when the chunk is in the repository. */
  readonly stored: (id: string) => boolean;
  readonly expectedDevice: string | null;
}

/** Small files that are read together. Their outcomes are objects only while they are taken. */
interface Batch {
  readonly answer: Promise<JobAnswer>;
  outcomes: readonly FileOutcome[] | null;
  /** Files that were not taken yet. */
  left: number;
}

/** A file's line of the manifest, and for the cache the file as it was read; null: not in one state. */
interface Taken extends ManifestEntry {
  readonly cached: ScannedEntry | null;
}

/** Where the content of an entry comes from; from 2 on, from the batch of that number - 2. */
const BY_ITSELF = 0;
const FROM_CACHE = 1;
const FIRST_BATCH = 2;

/** A file that was copied while its program stood still: where the copy is, and the file as it was then. */
interface Captured {
  readonly folder: string;
  readonly path: PathBytes;
  readonly now: ScannedEntry;
}

/** Name of the database copy in the scratch folder. */
const COPY_NAME = "database";

export class TreeReader {
  readonly #options: TreeReaderOptions;
  readonly #xattrs = new XattrReader((path, reason) => this.#warn(path, reason));
  #scanned = new ScannedList();
  /** For each entry of the scan, and its place in its batch. */
  #sources = new Int32Array(0);
  #places = new Uint16Array(0);
  #batches: (Batch | null)[] = [];
  /** Databases and large files that were read or are, by their number in the scan, as in all that follows. */
  readonly #contents = new Map<number, Taken | Promise<Taken | null>>();
  #toRead: number[] = [];
  #toCopy: number[] = [];
  /** The database that was copied and is left for `begin` to read. */
  #copied: { readonly planned: Planned; readonly copied: Captured } | null = null;
  #need: ReadingNeed | null = null;
  /** Of a copy that was read: beside other work, since to give back the place of a large one takes a disk a while. */
  #removing: Promise<void> = Promise.resolve();
  readonly #captured = new Map<number, Captured>();
  #bytes = 0;
  #bytesRead = 0;

  constructor(options: TreeReaderOptions) {
    this.#options = options;
  }

  get root(): FilesRoot {
    return this.#options.root;
  }

  /** Device of the root, decimal. */
  get device(): string {
    return this.#scanned.length === 0 ? "" : String(this.#scanned.at(0).facts.dev);
  }

  get entryCount(): number {
    return this.#scanned.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get bytesRead(): number {
    return this.#bytesRead;
  }

  /** Done again, it forgets what it saw before. */
  async scan(): Promise<void> {
    this.#scanned = new ScannedList();
    this.#bytes = 0;
    this.#need = null;
    const { root, cache, signal, pacer, warn, expectedDevice } = this.#options;
    const entries = scanTree(root, {
      signal,
      onWarning: warn,
      xattrs: this.#xattrs,
      knownDatabase: cache.knownDatabase,
      ...(expectedDevice === null ? {} : { expectedDev: BigInt(expectedDevice) }),
    });
    cache.beginScan();
    for (const scanned of entries) {
      this.#scanned.push(scanned);
      cache.compare(scanned);
      this.#bytes += scanned.entry.size;
      pacer.count(1, scanned.entry.size);
      const pause = pacer.turn();
      if (pause !== null) await pause;
    }
  }

  /** Finds out what must be read; once for each scan. */
  plan(): ReadingNeed {
    return this.#need ??= this.#plan();
  }

  #plan(): ReadingNeed {
    this.#sources = new Int32Array(this.#scanned.length);
    this.#places = new Uint16Array(this.#scanned.length);
    const groups = new Set<number>();
    let bytes = 0;
    for (let index = 0; index < this.#scanned.length; index++) {
      const scanned = this.#scanned.at(index);
      const { entry, facts } = scanned;
      if (entry.type !== "file") continue;
      // One inode: what is read of the first member holds for the others.
      if (entry.linkGroup !== undefined && groups.has(entry.linkGroup)) continue;
      if (entry.linkGroup !== undefined) groups.add(entry.linkGroup);
      if (this.#isCached(scanned)) {
        this.#sources[index] = FROM_CACHE;
        this.#options.pacer.count(0, entry.size);
        continue;
      }
      bytes += Math.min(entry.size, facts.blocks * 512);
      (entry.sqlite === true ? this.#toCopy : this.#toRead).push(index);
    }
    return { bytes, files: this.#toRead.length + this.#toCopy.length };
  }

  /**
   * Copies what `plan` says must be read, while the programs stand still. When `over` is aborted the rest is left: it is
   * read later, as it is then. Rejects with `disk-full` where the copies have no room.
   */
  async capture(copies: CopyFolder, over: AbortSignal): Promise<void> {
    const { clock, signal } = this.#options;
    const still = { clock, signal: AbortSignal.any([signal, over]), still: true };
    for (const index of this.#toCopy) {
      await this.#orLater(over, async () => {
        const scanned = this.#scanned.at(index);
        const { path } = scanned.entry;
        const now = { ...scanned, entry: { ...scanned.entry, ...this.#xattrsOf(path) } };
        const name = copies.newName();
        await snapshotDatabase(joinPath(this.root.path, path), `${copies.path}/${name}`, still);
        this.#captured.set(index, { folder: copies.path, path: pathBytes(name), now });
      });
    }
    const folder = openRootFolder(this.root.path);
    try {
      for (const index of this.#toRead) {
        if (over.aborted) return;
        await this.#orLater(over, () => this.#captureFile(folder, index, copies, over));
      }
    } finally {
      closeFd(folder);
    }
  }

  async #captureFile(
    folder: number,
    index: number,
    copies: CopyFolder,
    over: AbortSignal,
  ): Promise<void> {
    const scanned = this.#scanned.at(index);
    const file = openForReading(folder, scanned.entry.path, this.#xattrs);
    try {
      const path = await copies.copy(file, () => {
        over.throwIfAborted();
        return this.#options.pacer.turn();
      });
      if (path === null) {
        this.#warn(scanned.entry.path, "changed while its program should stand still: read later");
        return;
      }
      const { sqlite: _raw, ...entry } = scanned.entry;
      const now = { ...scanned, entry: { ...entry, ...file.entry }, facts: file.facts };
      this.#captured.set(index, { folder: copies.path, path, now });
    } finally {
      file.close();
    }
  }

  /** What cannot be copied now is tried again when it is read, and told then. */
  async #orLater(over: AbortSignal, copy: () => Promise<void>): Promise<void> {
    try {
      await copy();
    } catch (error) {
      this.#options.signal.throwIfAborted();
      if (!over.aborted && (!isError(error) || error.code === "disk-full")) throw error;
    }
  }

  #placeOf({ index, scanned }: Planned): { readonly folder: string; readonly path: PathBytes } {
    return this.#captured.get(index) ?? { folder: this.root.path, path: scanned.entry.path };
  }

  *#planned(indexes: readonly number[]): Generator<Planned> {
    for (const index of indexes) yield { index, scanned: this.#scanned.at(index) };
  }

  /** True when `readDatabases` has something to do. */
  get hasDatabases(): boolean {
    return this.#toCopy.length > 0;
  }

  /**
   * Reads the databases, each from a consistent copy. Before `begin`. With `leavesLast` the last of them, the largest, is
   * copied only: its state is fixed, and `begin` has it checked and read beside all else. `open` is called each time, when
   * the copying has begun: another thread does it.
   */
  async readDatabases(open: () => ContentPool, leavesLast: boolean): Promise<void> {
    const databases = [...this.#planned(this.#toCopy)];
    databases.sort((a, b) => a.scanned.entry.size - b.scanned.entry.size);
    this.#toCopy = [];
    for (const [i, planned] of databases.entries()) {
      const copying = this.#copyDatabase(planned);
      copying.catch(() => {}); // seen below, unless the pool cannot be opened
      const pool = open();
      const copied = await copying;
      if (copied === null) this.#toRead.push(planned.index); // as it is
      else if (leavesLast && i === databases.length - 1) this.#copied = { planned, copied };
      else {
        await this.#contentOf(pool, planned, copied);
        await this.#removing; // the next one gets its name
      }
    }
  }

  /** Reads the copy into the contents; where it is damaged, the file as it is. */
  #contentOf(pool: ContentPool, planned: Planned, copied: Captured): Promise<Taken | null> {
    const read = this.#readCopied(pool, planned, copied)
      .then((taken) => taken ?? this.#readSegmented(pool, planned));
    read.catch(() => {}); // whoever takes the entries sees it
    this.#contents.set(planned.index, read);
    return read;
  }

  /** Gives the pool all that is to be read: large files early, so that none of them is the last one. */
  begin(pool: ContentPool): void {
    const large: Planned[] = [];
    const live: number[] = [];
    const captured: number[] = [];
    for (const planned of this.#planned(this.#toRead)) {
      if (isSegmented(planned.scanned)) large.push(planned);
      else (this.#captured.has(planned.index) ? captured : live).push(planned.index);
    }
    this.#toRead = [];
    const left = this.#copied;
    this.#copied = null;
    // Its copy was made before any of these is read; its check, by one thread, is long, so it begins first.
    if (left !== null) void this.#contentOf(pool, left.planned, left.copied);
    for (const planned of large.sort((a, b) => b.scanned.entry.size - a.scanned.entry.size)) {
      const read = this.#readSegmented(pool, planned);
      read.catch(() => {}); // whoever takes the entries sees it
      this.#contents.set(planned.index, read);
    }
    for (const list of [live, captured]) {
      for (const batch of readBatches(this.#planned(list))) this.#readBatch(pool, batch);
    }
  }

  #readBatch(pool: ContentPool, files: readonly Planned[]): void {
    const [first] = files;
    if (first === undefined) return;
    const { folder } = this.#placeOf(first);
    const paths = packPaths(files.map((planned) => this.#placeOf(planned).path));
    const isLive = !this.#captured.has(first.index);
    const seen = isLive ? { seen: packSeen(files.map(({ scanned }) => scanned)) } : {};
    const sqlite = first.scanned.entry.sqlite === true;
    const answer = pool.read({ folder, sqlite, range: null, paths, ...seen });
    answer.then(({ bytesRead }) => this.#bytesRead += bytesRead, () => {});
    for (const [place, { index }] of files.entries()) {
      this.#sources[index] = FIRST_BATCH + this.#batches.length;
      this.#places[index] = place;
    }
    this.#batches.push({ answer, outcomes: null, left: files.length });
  }

  /**
   * Every entry with its content, in path order; what `take` returns is awaited. Entries that vanished or cannot be read are
   * left out. Once.
   */
  async each(pool: ContentPool, take: (entry: ManifestEntry) => Promise<void> | null): Promise<void> {
    const { cache, pacer } = this.#options;
    const carriers = new Map<number, TreeEntry>();
    for (let index = 0; index < this.#scanned.length; index++) {
      const scanned = this.#scanned.at(index);
      const { entry } = scanned;
      pacer.count(1, 0);
      const carrier = entry.linkGroup === undefined ? undefined : carriers.get(entry.linkGroup);
      let taken: ManifestEntry;
      if (entry.type !== "file" || carrier !== undefined) {
        cache.pass(scanned);
        taken = { entry: carrier === undefined ? entry : { ...carrier, path: entry.path }, parts: [] };
      } else {
        const content = this.#content(pool, { index, scanned });
        const read = content instanceof Promise ? await content : content;
        if (read === null || read.cached === null) cache.miss();
        else cache.remember(read.cached, read.parts);
        if (read === null) continue;
        if (entry.linkGroup !== undefined) carriers.set(entry.linkGroup, read.entry);
        taken = read;
      }
      const pause = take(taken);
      if (pause !== null) await pause;
    }
  }

  /** A promise only where it must be waited for: most files are in a batch that is there. */
  #content(pool: ContentPool, planned: Planned): Taken | null | Promise<Taken | null> {
    const { index, scanned } = planned;
    const source = this.#sources[index] ?? BY_ITSELF;
    if (source === FROM_CACHE) return this.#cached(scanned);
    const batch = this.#batches[source - FIRST_BATCH] ?? null;
    if (batch !== null) return this.#batched(batch, planned);
    const content = this.#contents.get(index);
    this.#contents.delete(index);
    // Not planned for: the member of its group that was to be read could not be.
    return content ?? this.#readSegmented(pool, planned);
  }

  #batched(batch: Batch, planned: Planned): Taken | null | Promise<Taken | null> {
    if (batch.outcomes === null) {
      return batch.answer.then(({ outcomes }) => {
        batch.outcomes = outcomes();
        return this.#batched(batch, planned);
      });
    }
    const outcome = batch.outcomes[this.#places[planned.index] ?? 0];
    if (--batch.left === 0) this.#batches[(this.#sources[planned.index] ?? 0) - FIRST_BATCH] = null;
    return this.#taken(planned, outcome);
  }

  /** `manifest` is what the entries came to. Only when all of it is stored. */
  saveCache(manifest: FilesSummary): Promise<void> {
    return this.#options.cache.save(manifest);
  }

  /** Resolves when it has no copy in the scratch folder any more; rejects where one could not be removed. */
  removed(): Promise<void> {
    return this.#removing;
  }

  /** After the scan: what the last run's manifest came to, if this one would come to the same. */
  unchanged(): FilesSummary | null {
    return this.#options.cache.unchanged();
  }

  /** True for a file that is unchanged, and all its chunks are still in the repository. */
  #isCached(scanned: ScannedEntry): boolean {
    const cached = this.#options.cache.find(scanned);
    if (cached === null) return false;
    const { parts } = cached;
    if (!parts.every((part) => part.kind === "hole" || this.#options.stored(part.id))) return false;
    return scanned.entry.sqlite === true || sizeOf(parts) === scanned.entry.size;
  }

  /** The file as remembered. */
  #cached(scanned: ScannedEntry): Taken | null {
    const cached = this.#options.cache.find(scanned);
    if (cached === null) return null;
    const { parts, xattrs } = cached;
    const size = sizeOf(parts);
    const entry = xattrs.xattrs === undefined ? scanned.entry : { ...scanned.entry, ...xattrs };
    const now = entry === scanned.entry ? scanned : { ...scanned, entry };
    return { entry: size === entry.size ? entry : { ...entry, size }, parts, cached: now };
  }

  /** A file by itself, in segments where it is large; all of them must have seen one and the same state. */
  async #readSegmented(pool: ContentPool, planned: Planned): Promise<Taken | null> {
    const { index, scanned } = planned;
    const sqlite = scanned.entry.sqlite === true;
    const { folder, path } = this.#placeOf(planned);
    let { size } = this.#captured.get(index)?.now.entry ?? scanned.entry;
    for (let attempt = 1;; attempt++) {
      const ranges = isSegmented(scanned) ? fileSegments(size, sqlite) : [null];
      const answers = await this.#readRanges(pool, folder, path, sqlite, ranges);
      const outcome = mergeSegments(ranges, answers);
      const again = outcome.kind === "read" && !outcome.settled && ranges.length > 1;
      if (!again || attempt === FUZZY_READS) return this.#taken(planned, outcome);
      size = outcome.facts.size;
    }
  }

  async #readRanges(
    pool: ContentPool,
    folder: string,
    path: PathBytes,
    sqlite: boolean,
    ranges: readonly (ContentRange | null)[],
  ): Promise<readonly FileOutcome[]> {
    const answers: JobAnswer[] = await Promise.all(
      ranges.map((range) => pool.read({ folder, paths: packPaths([path]), sqlite, range })),
    );
    for (const { bytesRead } of answers) this.#bytesRead += bytesRead;
    return answers.flatMap(({ outcomes }) => outcomes());
  }

  /** The entry as it was read; null where it vanished or could not be read. */
  #taken({ index, scanned }: Planned, outcome: FileOutcome | undefined): Taken | null {
    if (outcome === undefined) return null;
    const { sqlite: _raw, ...entry } = scanned.entry;
    if (outcome.kind === "failed") {
      // As in the scan: for a moment's sake a file would be missing.
      if (NO_DESCRIPTOR.includes(outcome.errno)) {
        throw new LibcError(`read ${showPath(entry.path)}`, outcome.errno);
      }
      const gone = ["ENOENT", "ESTALE", "ENOTDIR"].includes(outcome.errno);
      if (!gone) this.#warn(entry.path, `not read: ${outcome.errno}`);
      return null;
    }
    const { parts, problems } = outcome;
    for (const problem of problems) this.#warn(entry.path, problem);
    if (outcome.kind === "same") {
      const isPlain = scanned.entry.sqlite !== true && outcome.xattrs === undefined;
      if (isPlain) return { entry: scanned.entry, parts, cached: scanned };
      const xattrs = outcome.xattrs === undefined ? {} : { xattrs: outcome.xattrs };
      const now = { ...scanned, entry: { ...entry, ...xattrs } };
      return { entry: now.entry, parts, cached: now };
    }
    const { facts, settled } = outcome;
    const captured = this.#captured.get(index);
    if (settled && captured === undefined && scanned.entry.sqlite !== true && sameAs(scanned, facts)) {
      return { entry: scanned.entry, parts, cached: scanned };
    }
    const now = captured?.now ?? { ...scanned, entry: { ...entry, ...attributesOf(facts) }, facts };
    const read = now.entry;
    if (settled) return { entry: read, parts, cached: now };
    this.#warn(entry.path, "changed while it was read: its content may mix states");
    return { entry: { ...read, size: sizeOf(parts) }, parts, cached: null };
  }

  /** Null when no consistent copy could be made: the file is then read as it is, with a warning. */
  async #copyDatabase({ index, scanned }: Planned): Promise<Captured | null> {
    const { clock, scratchFolder, signal } = this.#options;
    const captured = this.#captured.get(index);
    if (captured !== undefined) return captured;
    const { path } = scanned.entry;
    try {
      const now = { ...scanned, entry: { ...scanned.entry, ...this.#xattrsOf(path) } };
      await copyDatabase(joinPath(this.root.path, path), `${scratchFolder}/${COPY_NAME}`, { clock, signal });
      return { folder: scratchFolder, path: pathBytes(COPY_NAME), now };
    } catch (error) {
      this.#noCopy(path, error);
      return null;
    }
  }

  /** Checks the copy, unless that was done when it was captured, and reads it. Null as above. */
  async #readCopied(pool: ContentPool, { index, scanned }: Planned, copied: Captured): Promise<Taken | null> {
    if (this.#captured.has(index)) return await this.#readCopy(pool, copied);
    const { path } = scanned.entry;
    const copy = `${copied.folder}/${COPY_NAME}`;
    try {
      await pool.check({ path: joinPath(this.root.path, path), copy });
      return await this.#readCopy(pool, copied);
    } catch (error) {
      this.#noCopy(path, error);
      return null;
    } finally {
      this.#removing = removeIfPresent(copy);
      this.#removing.catch(() => {}); // whoever waits for it sees it
    }
  }

  /** Throws again what ends the checkpoint; all else is a warning, and nothing for a file that vanished. */
  #noCopy(path: PathBytes, error: unknown): void {
    this.#options.signal.throwIfAborted();
    if (isError(error, "disk-full", "cancelled")) throw error;
    if (isErrno(error, "ENOENT")) return;
    const reason = asStateManagerError(error).message;
    this.#warn(path, `no consistent copy of the database, its file was taken as it is: ${reason}`);
  }

  /** Those of a database: its bytes come from a copy. Read before that, while no connection of ours is open to it. */
  #xattrsOf(path: PathBytes): Pick<TreeEntry, "xattrs"> {
    const folder = openRootFolder(this.root.path);
    try {
      const file = openForReading(folder, path, this.#xattrs);
      file.close();
      return file.entry.xattrs === undefined ? {} : { xattrs: file.entry.xattrs };
    } finally {
      closeFd(folder);
    }
  }

  async #readCopy(pool: ContentPool, copy: Captured): Promise<Taken> {
    const { folder, path, now } = copy;
    const ranges = fileSegments(now.entry.size, true);
    const outcome = mergeSegments(ranges, await this.#readRanges(pool, folder, path, true, ranges));
    if (outcome.kind === "failed") throw new LibcError("read the copy", outcome.errno);
    const { parts } = outcome;
    return { entry: { ...now.entry, size: sizeOf(parts) }, parts, cached: now };
  }

  #warn(path: PathBytes, reason: string): void {
    this.#options.warn({ root: this.root.name, path: showPath(path), reason });
  }
}

/** True when the file is what the scan saw: mostly, and then nothing of it needs to be kept twice. */
function sameAs({ entry, facts }: ScannedEntry, read: ReadFacts): boolean {
  return facts.ctimeNs === read.ctimeNs && facts.ino === read.ino && facts.dev === read.dev &&
    entry.mtimeNs === read.mtimeNs && entry.size === read.size && entry.mode === read.mode &&
    entry.uid === read.uid && entry.gid === read.gid && read.xattrs === undefined;
}

function joinPath(root: string, path: PathBytes): PathBytes {
  return bytesOf(`${byteText(pathBytes(root))}/${byteText(path)}`);
}
