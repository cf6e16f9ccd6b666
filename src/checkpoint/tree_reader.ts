/**
 * One files root on its way into a checkpoint: scanned once, then every file that may have changed is read. What
 * cannot be read is left out with a warning; what changes while it is read is taken after a few tries, with one too.
 */

import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, isError } from "../platform/errors.ts";
import { removeIfPresent } from "../platform/files.ts";
import { closeFd, isErrno, LibcError, type PathBytes, pathBytes, showPath } from "../platform/libc_files.ts";
import { bytesOf, byteText } from "./byte_text.ts";
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
import type { ContentPart, FilesRoot, FilesSummary, FileWarning, ManifestEntry, TreeEntry } from "./types.ts";
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

  async scan(): Promise<void> {
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

  /** Finds out what must be read. */
  plan(): ReadingNeed {
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
    for (const batch of readBatches(this.#toRead.filter((scanned) => !isSegmented(scanned)))) {
      const { folder, sqlite } = { folder: this.root.path, sqlite: batch[0]?.entry.sqlite === true };
      const paths = batch.map(({ entry }) => entry.path);
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
    let { size } = scanned.entry;
    for (let attempt = 1;; attempt++) {
      const ranges = isSegmented(scanned) ? fileSegments(size, sqlite) : [null];
      const answers = await this.#readRanges(pool, this.root.path, scanned.entry.path, sqlite, ranges);
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
    if (settled && scanned.entry.sqlite !== true && sameAs(scanned, facts)) {
      this.#options.cache.remember(scanned, parts);
      return { entry: scanned.entry, parts };
    }
    const read = { ...entry, ...attributesOf(facts) };
    if (settled) {
      this.#options.cache.remember(scanned, parts, { ...scanned, entry: read, facts });
      return { entry: read, parts };
    }
    this.#warn(entry.path, "changed while it was read: its content may mix states");
    return { entry: { ...read, size: sizeOf(parts) }, parts };
  }

  /** Null when no consistent copy could be made: the file is then read as it is, with a warning. */
  async #readDatabase(pool: ContentPool, scanned: ScannedEntry): Promise<ManifestEntry | null> {
    const { clock, scratchFolder, signal } = this.#options;
    const { path } = scanned.entry;
    const copy = `${scratchFolder}/${COPY_NAME}`;
    try {
      const entry = { ...scanned.entry, ...this.#xattrsOf(path) };
      await snapshotDatabase(joinPath(this.root.path, path), copy, { clock, signal });
      const parts = await this.#readCopy(pool, scanned);
      this.#options.cache.remember(scanned, parts, { ...scanned, entry });
      return { entry: { ...entry, size: sizeOf(parts) }, parts };
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

  async #readCopy(pool: ContentPool, scanned: ScannedEntry): Promise<readonly ContentPart[]> {
    const ranges = fileSegments(scanned.entry.size, true);
    const name = pathBytes(COPY_NAME);
    const answers = await this.#readRanges(pool, this.#options.scratchFolder, name, true, ranges);
    const outcome = mergeSegments(ranges, answers);
    if (outcome.kind === "failed") throw new LibcError("read the copy", outcome.errno);
    return outcome.parts;
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
