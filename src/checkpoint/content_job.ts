/**
 * What a reading thread is asked and what it answers: a batch of small files, one file, or a part of a large one. Both
 * the archiver's own thread and its Workers read by `ContentReader`.
 */

import { closeFd, LibcError, type PathBytes, readAt, statFd } from "../platform/libc_files.ts";
import { openToRead } from "../platform/open_to_read.ts";
import { type ContentRange, readContent } from "./content_reader.ts";
import { extentsOf, FUZZY_READS, type OpenFile, openForReading, openRootFolder } from "./file_reader.ts";
import type { ScannedEntry } from "./scan.ts";
import type { ContentPart, ScanFacts, TreeEntry, Xattr } from "./types.ts";
import { XattrReader } from "./xattrs.ts";

export interface ReadJob {
  /** Absolute path of the folder that the files lie in, at any depth. */
  readonly folder: string;
  /** From `packPaths`. */
  readonly paths: PathBytes;
  /** In fixed blocks. */
  readonly sqlite: boolean;
  /** Only this part of the file, read once; null: whole files. */
  readonly range: ContentRange | null;
  /** From `packSeen`: the files as the scan saw them, which most still are. Left out: not known. */
  readonly seen?: ArrayBuffer;
}

/** What a file is compared by: what else changes moves its ctime. */
type Seen = Pick<ReadFacts, "size" | "blocks" | "mtimeNs" | "ctimeNs" | "ino" | "dev">;

const SEEN_BYTES = 48;

export function packSeen(files: readonly ScannedEntry[]): ArrayBuffer {
  const view = new DataView(new ArrayBuffer(files.length * SEEN_BYTES));
  for (const [i, { entry, facts }] of files.entries()) {
    const at = i * SEEN_BYTES;
    view.setFloat64(at, entry.size);
    view.setFloat64(at + 8, facts.blocks);
    view.setBigInt64(at + 16, entry.mtimeNs);
    view.setBigInt64(at + 24, facts.ctimeNs);
    view.setBigUint64(at + 32, facts.ino);
    view.setBigUint64(at + 40, facts.dev);
  }
  return view.buffer;
}

function seenAt(packed: ArrayBuffer, index: number): Seen {
  const view = new DataView(packed, index * SEEN_BYTES, SEEN_BYTES);
  return {
    size: view.getFloat64(0),
    blocks: view.getFloat64(8),
    mtimeNs: view.getBigInt64(16),
    ctimeNs: view.getBigInt64(24),
    ino: view.getBigUint64(32),
    dev: view.getBigUint64(40),
  };
}

/** A database that was copied and whose copy must be checked before it is read. */
export interface DatabaseCopy {
  /** Of the original, for errors. */
  readonly path: PathBytes;
  readonly copy: string;
}

/** Paths one after the other, each ended by a NUL: one buffer goes to another thread instead of hundreds. */
export function packPaths(paths: readonly PathBytes[]): PathBytes {
  const packed = new Uint8Array(paths.reduce((sum, path) => sum + path.length + 1, 0));
  let at = 0;
  for (const path of paths) {
    packed.set(path, at);
    at += path.length + 1;
  }
  return packed;
}

function* unpackPaths(packed: PathBytes): Generator<PathBytes> {
  for (let at = 0; at < packed.length;) {
    const end = packed.indexOf(0, at);
    yield packed.subarray(at, end);
    at = end + 1;
  }
}

/** What the open file was when its reading began. */
export type ReadFacts = Pick<TreeEntry, "mode" | "uid" | "gid" | "mtimeNs" | "size" | "xattrs"> & ScanFacts;

export type FileOutcome =
  /** It is, to the end of its reading, what the scan saw. */
  | {
    readonly kind: "same";
    readonly parts: readonly ContentPart[];
    readonly problems: readonly string[];
    readonly xattrs?: readonly Xattr[];
  }
  | {
    readonly kind: "read";
    readonly facts: ReadFacts;
    /** False when it changed while it was read, each time. */
    readonly settled: boolean;
    readonly parts: readonly ContentPart[];
    /** What of the file could not be read, for warnings: extended attributes. */
    readonly problems: readonly string[];
  }
  | { readonly kind: "failed"; readonly errno: string };

/** Where chunks go. */
export interface ChunkSink {
  /** Takes a chunk and says its id. The bytes are valid during the call only. */
  store(chunk: Uint8Array): string;
  /** Awaited before each chunk, with its length, when it is not null. */
  pace(bytes: number): Promise<void> | null;
}

/** What a manifest tells of a file besides its name and content. */
export function attributesOf({ mode, uid, gid, mtimeNs, size, xattrs }: Omit<ReadFacts, keyof ScanFacts>) {
  return { mode, uid, gid, mtimeNs, size, ...(xattrs === undefined ? {} : { xattrs }) };
}

/** Field by field: one for each file of a tree. */
function factsOf({ entry, facts }: OpenFile): ReadFacts {
  const { mode, uid, gid, mtimeNs, size, xattrs } = entry;
  const { dev, ino, ctimeNs, linkCount, blocks } = facts;
  const all = { mode, uid, gid, mtimeNs, size, dev, ino, ctimeNs, linkCount, blocks };
  return xattrs === undefined ? all : { ...all, xattrs };
}

export function sizeOf(parts: readonly ContentPart[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
}

/** Reads jobs, one at a time; keeps the folder of the last one open. */
export class ContentReader {
  readonly #taker: ChunkSink;
  #problems: string[] = [];
  readonly #xattrs = new XattrReader((_path, reason) => void this.#problems.push(reason));
  #folder: { readonly path: string; readonly fd: number } | null = null;

  constructor(sink: ChunkSink) {
    this.#taker = { store: (chunk) => sink.store(chunk), pace: (bytes) => sink.pace(bytes) };
  }

  /** One outcome for each path, in order. What is wrong with one file is its outcome; all else is thrown. */
  async read(job: ReadJob): Promise<readonly FileOutcome[]> {
    const folder = this.#open(job.folder);
    const outcomes: FileOutcome[] = [];
    for (const path of unpackPaths(job.paths)) {
      const seen = job.seen === undefined ? null : seenAt(job.seen, outcomes.length);
      outcomes.push(
        (seen && await this.#readSeen(folder, path, job, seen)) ?? await this.#readFile(folder, path, job),
      );
    }
    return outcomes;
  }

  close(): void {
    if (this.#folder !== null) closeFd(this.#folder.fd);
    this.#folder = null;
  }

  #open(path: string): number {
    if (this.#folder?.path !== path) {
      this.close();
      this.#folder = { path, fd: openRootFolder(path) };
    }
    return this.#folder.fd;
  }

  /** Without a look at the file before it is read: one after it tells as much. Null where it is not what was seen. */
  async #readSeen(folder: number, path: PathBytes, { sqlite }: ReadJob, seen: Seen) {
    this.#problems = [];
    let fd = -1;
    try {
      fd = openToRead(folder, path);
      const { xattrs } = this.#xattrs.read(fd, { path, type: "file" }, seen.dev);
      const source = {
        extents: () => extentsOf(fd, seen.size, seen.blocks),
        read: (offset: number, buffer: Uint8Array<ArrayBuffer>) => readAt(fd, buffer, offset),
      };
      const parts = await readContent(source, { sqlite, range: null, ...this.#taker });
      if (sizeOf(parts) !== seen.size || !isWhatWasSeen(fd, seen)) return null;
      const same = { kind: "same" as const, parts, problems: this.#problems };
      return xattrs === undefined ? same : { ...same, xattrs };
    } catch (error) {
      if (!(error instanceof LibcError)) throw error;
      return null; // it says itself what is wrong when it is read by name again
    } finally {
      if (fd >= 0) closeFd(fd);
    }
  }

  async #readFile(folder: number, path: PathBytes, job: ReadJob): Promise<FileOutcome> {
    try {
      for (let attempt = 1;; attempt++) {
        const outcome = await this.#readOnce(folder, path, job);
        if (outcome.settled || job.range !== null || attempt === FUZZY_READS) return outcome;
      }
    } catch (error) {
      if (!(error instanceof LibcError)) throw error;
      return { kind: "failed", errno: error.errno };
    }
  }

  async #readOnce(folder: number, path: PathBytes, { sqlite, range }: ReadJob) {
    this.#problems = [];
    const file = openForReading(folder, path, this.#xattrs);
    try {
      const parts = await readContent(file, { sqlite, range, ...this.#taker });
      const whole = range !== null || sizeOf(parts) === file.entry.size;
      const settled = whole && !file.changed();
      const facts = factsOf(file);
      return { kind: "read" as const, facts, settled, parts, problems: this.#problems };
    } finally {
      file.close();
    }
  }
}

function isWhatWasSeen(fd: number, seen: Seen): boolean {
  const now = statFd(fd);
  return now.type === "file" && now.size === seen.size && now.mtimeNs === seen.mtimeNs &&
    now.ctimeNs === seen.ctimeNs && now.ino === seen.ino && now.dev === seen.dev;
}
