/**
 * One files root on its way into a checkpoint: scanned once, then every file that may have changed is read. What
 * cannot be read is left out with a warning; what changes while it is read is taken after a few tries, with one too.
 */

import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, isError } from "../platform/errors.ts";
import { removeIfPresent } from "../platform/files.ts";
import { closeFd, isErrno, LibcError, type PathBytes, pathBytes, showPath } from "../platform/libc_files.ts";
import { bytesOf, byteText } from "./byte_text.ts";
import type { CopyFolder } from "./captured_files.ts";
import type { ContentRange } from "./content_reader.ts";
import { attributesOf, type FileOutcome, type ReadFacts, sizeOf } from "./content_job.ts";
import type { ContentPool, JobAnswer } from "./content_pool.ts";
import { fileSegments, isSegmented, mergeSegments, readBatches } from "./content_jobs.ts";
import { FUZZY_READS, openForReading, openRootFolder } from "./file_reader.ts";
import type { Pacer } from "./pacer.ts";
import type { ReadingNeed } from "./reading_plan.ts";
import { type ScannedEntry, scanTree } from "./scan.ts";
import type { ScanCache } from "./scan_cache.ts";
import { snapshotDatabase } from "./sqlite_snapshot.ts";
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

/** A file of a batch that is read: one promise for the whole batch, since there may be very many files. */
interface Batched {
  readonly answer: Promise<JobAnswer>;
  readonly index: number;
}

type Content = ManifestEntry | Batched | Promise<ManifestEntry | null>;

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
  #scanned: ScannedEntry[] = [];
  /** Files that need not be read, and those that were or are. */
  readonly #contents = new Map<ScannedEntry, Content>();
  #toRead: ScannedEntry[] = [];
  #toCopy: ScannedEntry[] = [];
  #need: ReadingNeed | null = null;
  readonly #captured = new Map<ScannedEntry, Captured>();
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
    return String(this.#scanned[0]?.facts.dev ?? "");
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
    this.#scanned = [];
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
    for (const scanned of entries) {
      this.#scanned.push(scanned);
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
    const groups = new Set<number>();
    let bytes = 0;
    for (const scanned of this.#scanned) {
      const { entry, facts } = scanned;
      if (entry.type !== "file") continue;
      // One inode: what is read of the first member holds for the others.
      if (entry.linkGroup !== undefined && groups.has(entry.linkGroup)) continue;
      if (entry.linkGroup !== undefined) groups.add(entry.linkGroup);
      const known = this.#cached(scanned);
      if (known !== null) {
        this.#contents.set(scanned, known);
        continue;
      }
      bytes += Math.min(entry.size, facts.blocks * 512);
      (entry.sqlite === true ? this.#toCopy : this.#toRead).push(scanned);
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
    for (const scanned of this.#toCopy) {
      await this.#orLater(over, async () => {
        const { path } = scanned.entry;
        const now = { ...scanned, entry: { ...scanned.entry, ...this.#xattrsOf(path) } };
        const name = copies.newName();
        await snapshotDatabase(joinPath(this.root.path, path), `${copies.path}/${name}`, still);
        this.#captured.set(scanned, { folder: copies.path, path: pathBytes(name), now });
      });
    }
    const folder = openRootFolder(this.root.path);
    try {
      for (const scanned of this.#toRead) {
        if (over.aborted) return;
        await this.#orLater(over, () => this.#captureFile(folder, scanned, copies, over));
      }
    } finally {
      closeFd(folder);
    }
  }

  async #captureFile(
    folder: number,
    scanned: ScannedEntry,
    copies: CopyFolder,
    over: AbortSignal,
  ): Promise<void> {
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
      this.#captured.set(scanned, { folder: copies.path, path, now });
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

  #placeOf(scanned: ScannedEntry): { readonly folder: string; readonly path: PathBytes } {
    return this.#captured.get(scanned) ?? { folder: this.root.path, path: scanned.entry.path };
  }

  /** Reads the databases, each from a consistent copy. Before `begin`. */
  async readDatabases(pool: ContentPool): Promise<void> {
    for (const scanned of this.#toCopy) {
      const read = await this.#readDatabase(pool, scanned);
      if (read !== null) this.#contents.set(scanned, read);
      else this.#toRead.push(scanned); // as it is
    }
    this.#toCopy = [];
  }

  /** Gives the pool all that is to be read: large files first, so that none of them is the last one. */
  begin(pool: ContentPool): void {
    const large = this.#toRead.filter(isSegmented).sort((a, b) => b.entry.size - a.entry.size);
    for (const scanned of large) {
      const read = this.#readSegmented(pool, scanned);
      read.catch(() => {}); // whoever takes the entries sees it
      this.#contents.set(scanned, read);
    }
    const small = this.#toRead.filter((scanned) => !isSegmented(scanned));
    const live = small.filter((scanned) => !this.#captured.has(scanned));
    const captured = small.filter((scanned) => this.#captured.has(scanned));
    for (const batch of [...readBatches(live), ...readBatches(captured)]) {
      const [first] = batch;
      if (first === undefined) continue;
      const { folder, sqlite } = { folder: this.#placeOf(first).folder, sqlite: first.entry.sqlite === true };
      const paths = batch.map((scanned) => this.#placeOf(scanned).path);
      const answer = pool.read({ folder, sqlite, range: null, paths });
      answer.then(({ bytesRead }) => this.#bytesRead += bytesRead, () => {});
      for (const [index, scanned] of batch.entries()) this.#contents.set(scanned, { answer, index });
    }
    this.#toRead = [];
  }

  async #finished(scanned: ScannedEntry, content: Content): Promise<ManifestEntry | null> {
    if (content instanceof Promise || "entry" in content) return await content;
    const { outcomes } = await content.answer;
    return this.#taken(scanned, outcomes[content.index]);
  }

  /** Every entry with its content, in path order. Entries that vanished or cannot be read are left out. */
  async *entries(pool: ContentPool): AsyncGenerator<ManifestEntry> {
    const carriers = new Map<number, TreeEntry>();
    for (const scanned of this.#scanned) {
      const { entry } = scanned;
      this.#options.pacer.count(1, 0);
      const carrier = entry.linkGroup === undefined ? undefined : carriers.get(entry.linkGroup);
      if (entry.type !== "file") {
        yield { entry, parts: [] };
      } else if (carrier !== undefined) {
        yield { entry: { ...carrier, path: entry.path }, parts: [] };
      } else {
        // Not planned for: the member of its group that was to be read could not be.
        const content = this.#contents.get(scanned) ?? this.#readSegmented(pool, scanned);
        this.#contents.delete(scanned);
        const read = "entry" in content ? content : await this.#finished(scanned, content);
        if (read === null) continue;
        if (entry.linkGroup !== undefined) carriers.set(entry.linkGroup, read.entry);
        yield read;
      }
    }
  }

  /** `manifest` is what the entries came to. Only when all of it is stored. */
  saveCache(manifest: FilesSummary): Promise<void> {
    return this.#options.cache.save(this.#scanned, manifest);
  }

  /** After the scan: what the last run's manifest came to, if this one would come to the same. */
  unchanged(): FilesSummary | null {
    return this.#options.cache.unchanged(this.#scanned);
  }

  /** The file as remembered, if it is unchanged and all its chunks are still in the repository. */
  #cached(scanned: ScannedEntry): ManifestEntry | null {
    const cached = this.#options.cache.find(scanned);
    if (cached === null) return null;
    const { parts, xattrs } = cached;
    if (!parts.every((part) => part.kind === "hole" || this.#options.stored(part.id))) return null;
    const size = sizeOf(parts);
    if (scanned.entry.sqlite !== true && size !== scanned.entry.size) return null;
    const hasXattrs = xattrs.xattrs !== undefined;
    const entry = hasXattrs ? { ...scanned.entry, ...xattrs } : scanned.entry;
    this.#options.cache.remember(scanned, parts, hasXattrs ? { ...scanned, entry } : scanned);
    this.#options.pacer.count(0, scanned.entry.size);
    return { entry: size === entry.size ? entry : { ...entry, size }, parts };
  }

  /** A file by itself, in segments where it is large; all of them must have seen one and the same state. */
  async #readSegmented(pool: ContentPool, scanned: ScannedEntry): Promise<ManifestEntry | null> {
    const sqlite = scanned.entry.sqlite === true;
    const { folder, path } = this.#placeOf(scanned);
    let { size } = this.#captured.get(scanned)?.now.entry ?? scanned.entry;
    for (let attempt = 1;; attempt++) {
      const ranges = isSegmented(scanned) ? fileSegments(size, sqlite) : [null];
      const answers = await this.#readRanges(pool, folder, path, sqlite, ranges);
      const outcome = mergeSegments(ranges, answers);
      const again = outcome.kind === "read" && !outcome.settled && ranges.length > 1;
      if (!again || attempt === FUZZY_READS) return this.#taken(scanned, outcome);
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
      ranges.map((range) => pool.read({ folder, paths: [path], sqlite, range })),
    );
    for (const { bytesRead } of answers) this.#bytesRead += bytesRead;
    return answers.flatMap(({ outcomes }) => outcomes);
  }

  /** The entry as it was read; null where it vanished or could not be read. */
  #taken(scanned: ScannedEntry, outcome: FileOutcome | undefined): ManifestEntry | null {
    if (outcome === undefined) return null;
    const { sqlite: _raw, ...entry } = scanned.entry;
    if (outcome.kind === "failed") {
      const gone = ["ENOENT", "ESTALE", "ENOTDIR"].includes(outcome.errno);
      if (!gone) this.#warn(entry.path, `not read: ${outcome.errno}`);
      return null;
    }
    const { facts, parts, settled, problems } = outcome;
    for (const problem of problems) this.#warn(entry.path, problem);
    const captured = this.#captured.get(scanned);
    if (settled && captured === undefined && scanned.entry.sqlite !== true && sameAs(scanned, facts)) {
      this.#options.cache.remember(scanned, parts);
      return { entry: scanned.entry, parts };
    }
    const now = captured?.now ?? { ...scanned, entry: { ...entry, ...attributesOf(facts) }, facts };
    const read = now.entry;
    if (settled) {
      this.#options.cache.remember(scanned, parts, now);
      return { entry: read, parts };
    }
    this.#warn(entry.path, "changed while it was read: its content may mix states");
    return { entry: { ...read, size: sizeOf(parts) }, parts };
  }

  /** Null when no consistent copy could be made: the file is then read as it is, with a warning. */
  async #readDatabase(pool: ContentPool, scanned: ScannedEntry): Promise<ManifestEntry | null> {
    const { clock, scratchFolder, signal } = this.#options;
    const captured = this.#captured.get(scanned);
    if (captured !== undefined) return await this.#readCopy(pool, scanned, captured);
    const { path } = scanned.entry;
    const copy = `${scratchFolder}/${COPY_NAME}`;
    try {
      const now = { ...scanned, entry: { ...scanned.entry, ...this.#xattrsOf(path) } };
      await snapshotDatabase(joinPath(this.root.path, path), copy, { clock, signal });
      return await this.#readCopy(pool, scanned, { folder: scratchFolder, path: pathBytes(COPY_NAME), now });
    } catch (error) {
      signal.throwIfAborted();
      if (isError(error, "disk-full", "cancelled")) throw error;
      if (isErrno(error, "ENOENT")) return null;
      const reason = asStateManagerError(error).message;
      this.#warn(path, `no consistent copy of the database, its file was taken as it is: ${reason}`);
      return null;
    } finally {
      await removeIfPresent(copy);
    }
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

  async #readCopy(pool: ContentPool, scanned: ScannedEntry, copy: Captured): Promise<ManifestEntry> {
    const { folder, path, now } = copy;
    const ranges = fileSegments(now.entry.size, true);
    const outcome = mergeSegments(ranges, await this.#readRanges(pool, folder, path, true, ranges));
    if (outcome.kind === "failed") throw new LibcError("read the copy", outcome.errno);
    const { parts } = outcome;
    this.#options.cache.remember(scanned, parts, now);
    return { entry: { ...now.entry, size: sizeOf(parts) }, parts };
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
