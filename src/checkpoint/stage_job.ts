/**
 * One piece of a restore, as it goes to a Worker and as a small restore does it at once: chunks from a fetched piece of
 * a pack, or from files that are there already, into files of the stage. Each chunk is verified before it is written.
 * A job keeps nothing: what it opened is closed when it ends, and what it could not do is in its result.
 */

import {
  closeFd,
  isErrno,
  OPEN,
  openAt,
  openBeneath,
  readAt,
  showPath,
  statFd,
  truncateFd,
  writeAt,
} from "../platform/libc_files.ts";
import {
  type DefaultOwner,
  mayBeMadeWithMode,
  Refusals,
  type Refused,
  setFileAttributes,
} from "./attributes.ts";
import { bytesOf } from "./byte_text.ts";
import { type BlobReading, isChunk, readChunk } from "./chunk_reader.ts";
import type { Cipher } from "./cipher.ts";
import { CHUNK_LIMIT_BYTES } from "./pack.ts";
import { Flights, STRETCHES_FROM_BYTES, StretchWriter } from "./stretch_writer.ts";
import type { TreeEntry } from "./types.ts";

/** Open files at one time: chunks of one pack mostly belong to neighbours, and 1024 descriptors are usual. */
const OPEN_FILES_MAX = 64;
/** Of a file that is not complete. */
const PRIVATE_MODE = 0o600;

/** A file of the stage that a job writes into. */
export interface FileTarget {
  readonly entry: TreeEntry;
  /** True: the job makes it, and no other job knows it. False: it is there with its whole size. */
  readonly create: boolean;
  /** True: with this job's chunks its content is complete, so it gets its attributes. */
  readonly complete: boolean;
  /** True: it was taken from a former stage, and may have any owner. */
  readonly foreign: boolean;
}

/** A chunk and where it goes: pairs of an index into the job's files and an offset in that file. */
export interface ChunkWrites {
  readonly id: string;
  readonly length: number;
  readonly writes: readonly number[];
}

interface JobPart {
  /** Descriptor of the stage's folder. */
  readonly folder: number;
  readonly owner: DefaultOwner;
  readonly files: readonly FileTarget[];
}

export type StageJob =
  | (JobPart & {
    readonly kind: "pack";
    /** Name of the pack, and the offset in it where `bytes` begin. */
    readonly pack: string;
    readonly start: number;
    readonly bytes: Uint8Array<ArrayBuffer>;
    readonly chunks:
      readonly (ChunkWrites & { readonly flags: number; readonly at: number; readonly stored: number })[];
  })
  | (JobPart & {
    readonly kind: "local";
    /** Descriptor of the folder that `paths` (byte text) are below. */
    readonly source: number;
    readonly paths: readonly string[];
    /** Hints: the chunk may be in `paths[path]` at offset `at`. Only bytes with its hash are taken. */
    readonly chunks: readonly (ChunkWrites & { readonly path: number; readonly at: number })[];
  })
  /** One chunk that was proven already. */
  | (JobPart & {
    readonly kind: "given";
    readonly bytes: Uint8Array<ArrayBuffer>;
    readonly chunks: readonly ChunkWrites[];
  })
  | (JobPart & { readonly kind: "complete" });

export interface StageJobResult {
  /** Bytes written. */
  readonly bytes: number;
  /** Of these, those that are on the disk already but for what is known of them (stretch_writer.ts). */
  readonly passed: number;
  /** Chunks of a "local" job that were not where they might have been: as good as never asked for. */
  readonly absent: readonly string[];
  readonly refused: readonly Refused[];
}

export interface StageJobOptions extends BlobReading {
  /** Awaited between chunks: the loop's turn. */
  readonly turn?: () => Promise<void> | null;
}

/** One that runs, others that wait for the disk: each holds some megabytes. */
const JOBS_AT_ONCE = 3;

/** The jobs of one thread. Where one waits for the disk another goes on. */
export class StageThread {
  readonly #options: StageJobOptions;
  readonly #flights = new Flights();
  readonly #running = new Set<Promise<void>>();

  constructor(options: StageJobOptions) {
    this.#options = options;
  }

  /** Resolves when there was room for the job, with its result to come. */
  async begin(job: StageJob): Promise<{ readonly result: Promise<StageJobResult> }> {
    while (this.#running.size >= JOBS_AT_ONCE) await Promise.race(this.#running);
    const result = runStageJob(job, this.#options, this.#flights);
    const ended = result.then(() => {}, () => {}).finally(() => this.#running.delete(ended));
    this.#running.add(ended);
    return { result };
  }
}

async function runStageJob(
  job: StageJob,
  { turn, ...reading }: StageJobOptions,
  flights: Flights,
): Promise<StageJobResult> {
  await using stretches = job.files.some(isLarge) ? new StretchWriter(job.folder, flights) : null;
  using writer = new JobWriter(job, stretches);
  const absent: string[] = [];
  const room = () => stretches?.room() ?? null;
  if (job.kind === "pack") {
    const { pack, start, bytes } = job;
    for (const chunk of job.chunks) {
      const pause = turn?.() ?? null;
      if (pause !== null) await pause;
      // Asked again each time: another job may have taken the room meanwhile.
      for (let wait = room(); wait !== null; wait = room()) await wait;
      const { id, length, flags, at: offset } = chunk;
      const stored = bytes.subarray(offset - start, offset - start + chunk.stored);
      const users = () => `, needed by ${usersOf(job.files, chunk.writes)}`;
      writer.write(chunk, readChunk(reading, stored, { id, length, flags, pack, offset }, users));
    }
  } else if (job.kind === "local") {
    using source = new LocalSource(job.source, job.paths, reading.cipher);
    for (const chunk of job.chunks) {
      const pause = turn?.() ?? null;
      if (pause !== null) await pause;
      // Asked again each time: another job may have taken the room meanwhile.
      for (let wait = room(); wait !== null; wait = room()) await wait;
      const bytes = source.read(chunk);
      if (bytes === null) absent.push(chunk.id);
      if (bytes === null) writer.spoil(chunk);
      else writer.write(chunk, bytes);
    }
  } else if (job.kind === "given") {
    for (const chunk of job.chunks) writer.write(chunk, job.bytes);
  }
  await stretches?.flush();
  writer.finish();
  return { ...writer.result(), absent, passed: stretches?.passed ?? 0 };
}

/** The same at once, for what is at hand: all of it is an ordinary write. */
export function runStageJobAtOnce(job: Extract<StageJob, { kind: "given" | "complete" }>): StageJobResult {
  using writer = new JobWriter(job, null);
  if (job.kind === "given") { for (const chunk of job.chunks) writer.write(chunk, job.bytes); }
  writer.finish();
  return { ...writer.result(), absent: [], passed: 0 };
}

function usersOf(files: readonly FileTarget[], writes: readonly number[]): string {
  const indexes = new Set(writes.filter((_, i) => i % 2 === 0));
  return [...indexes].slice(0, 5).map((index) => {
    const file = files[index];
    return file === undefined ? "" : showPath(file.entry.path);
  }).join(", ");
}

/** What happened to one file of the job so far. */
interface Progress {
  created: boolean;
  /** It was made with its mode. */
  hasMode: boolean;
  /** End of what was written: where it is short of the file's size, a hole is left at the end. */
  end: number;
  /** Chunks of it are missing: it is not complete, whatever was planned. */
  spoiled: boolean;
  left: number;
}

function isLarge({ entry }: FileTarget): boolean {
  return entry.size >= STRETCHES_FROM_BYTES;
}

class JobWriter implements Disposable {
  #bytes = 0;
  readonly #refusals = new Refusals();
  /** Of each mode that a file was made with: whether it came to have it, for a umask or a filesystem may take bits away. */
  readonly #modesThatHold = new Map<number, boolean>();
  readonly #job: StageJob;
  readonly #progress: Progress[];
  /** All but the newest, least recently used first. */
  readonly #open = new Map<number, number>();
  /** For small files the only one that is ever open: a map that they all go through grows and shrinks with each. */
  #newest: { readonly index: number; readonly fd: number } | null = null;
  /** Large files whose last chunk was given: what is written to them would change the time that they get. */
  readonly #large: number[] = [];
  readonly #stretches: StretchWriter | null;

  /** `stretches`: for large files, whose writes have ended when `finish` is called; null: no file is one. */
  constructor(job: StageJob, stretches: StretchWriter | null) {
    this.#job = job;
    this.#stretches = stretches;
    this.#progress = job.files.map(({ create }) => ({
      created: !create,
      hasMode: false,
      end: 0,
      spoiled: false,
      left: 0,
    }));
    if (job.kind === "complete") return;
    for (const { writes } of job.chunks) {
      for (let i = 0; i < writes.length; i += 2) this.#of(writes[i]).left++;
    }
  }

  #of(index = -1): Progress {
    const progress = this.#progress[index];
    if (progress === undefined) throw new Error(`stage job: no file ${index}`);
    return progress;
  }

  write({ writes }: ChunkWrites, bytes: Uint8Array<ArrayBuffer>): void {
    for (let i = 0; i < writes.length; i += 2) {
      const [index = -1, offset = 0] = [writes[i], writes[i + 1]];
      const progress = this.#of(index);
      const file = this.#file(index);
      const { path } = file.entry;
      if (this.#stretches !== null && isLarge(file)) {
        if (!progress.created) this.#opened(index);
        this.#stretches.write(index, path, bytes, offset);
      } else writeAt(this.#opened(index), bytes, offset, path);
      this.#bytes += bytes.length;
      progress.end = Math.max(progress.end, offset + bytes.length);
      this.#settle(progress, index);
    }
  }

  /** The chunk did not come: what waits for it stays unfinished. */
  spoil({ writes }: ChunkWrites): void {
    for (let i = 0; i < writes.length; i += 2) {
      const progress = this.#of(writes[i]);
      progress.spoiled = true;
      this.#settle(progress, writes[i] ?? -1);
    }
  }

  /** As soon as a file has all its chunks it is completed and closed, while it is at hand. */
  #settle(progress: Progress, index: number): void {
    if (--progress.left > 0) return;
    if (this.#stretches !== null && isLarge(this.#file(index))) this.#large.push(index);
    else this.#end(progress, index);
  }

  #end(progress: Progress, index: number): void {
    const file = this.#file(index);
    if (file.create && progress.created && progress.end < file.entry.size) {
      truncateFd(this.#opened(index), file.entry.size, file.entry.path);
    }
    if (file.complete && !progress.spoiled) this.#complete(index);
  }

  /** What waited for the large files' writes. A "complete" job has no chunks: all its files are done here. */
  finish(): void {
    for (const index of this.#large) {
      const progress = this.#progress[index];
      if (progress !== undefined) this.#end(progress, index);
    }
    if (this.#job.kind !== "complete") return;
    for (const index of this.#job.files.keys()) this.#complete(index);
  }

  result(): Pick<StageJobResult, "bytes" | "refused"> {
    return { bytes: this.#bytes, refused: this.#refusals.list() };
  }

  #complete(index: number): void {
    const { entry, foreign } = this.#file(index);
    const fd = this.#opened(index);
    setFileAttributes(fd, entry, foreign ? null : this.#job.owner, this.#refusals, this.#of(index).hasMode);
    this.#shut(index);
  }

  #file(index: number): FileTarget {
    const file = this.#job.files[index];
    if (file === undefined) throw new Error(`stage job: no file ${index}`);
    return file;
  }

  #opened(index: number): number {
    if (this.#newest?.index === index) return this.#newest.fd;
    const fd = this.#open.get(index) ?? this.#openNow(index);
    this.#open.delete(index);
    if (this.#newest !== null) this.#open.set(this.#newest.index, this.#newest.fd);
    this.#newest = { index, fd };
    return fd;
  }

  #openNow(index: number): number {
    if (this.#open.size >= OPEN_FILES_MAX - 1) {
      const [oldest] = this.#open.keys();
      if (oldest !== undefined) this.#shut(oldest);
    }
    const progress = this.#of(index);
    const { entry } = this.#file(index);
    if (progress.created) return openAt(this.#job.folder, entry.path, OPEN.write | OPEN.noFollow);
    const withMode = mayBeMadeWithMode(entry, this.#job.owner);
    const flags = OPEN.write | OPEN.create | OPEN.exclusive | OPEN.noFollow;
    const fd = openAt(this.#job.folder, entry.path, flags, withMode ? entry.mode : PRIVATE_MODE);
    progress.created = true;
    progress.hasMode = withMode && this.#modeHolds(fd, entry.mode);
    return fd;
  }

  #modeHolds(fd: number, mode: number): boolean {
    const known = this.#modesThatHold.get(mode);
    if (known !== undefined) return known;
    const holds = statFd(fd).mode === mode;
    this.#modesThatHold.set(mode, holds);
    return holds;
  }

  #shut(index: number): void {
    if (this.#newest?.index === index) {
      closeFd(this.#newest.fd);
      this.#newest = null;
      return;
    }
    const fd = this.#open.get(index);
    this.#open.delete(index);
    if (fd !== undefined) closeFd(fd);
  }

  [Symbol.dispose](): void {
    if (this.#newest !== null) this.#shut(this.#newest.index);
    for (const index of [...this.#open.keys()]) this.#shut(index);
  }
}

/** Files that are there already, read where a chunk may be. Nothing in them is trusted. */
class LocalSource {
  readonly #folder: number;
  readonly #paths: readonly string[];
  readonly #cipher: Cipher;
  #at = -1;
  #fd: number | null = null;
  readonly #buffer = new Uint8Array(CHUNK_LIMIT_BYTES);

  constructor(folder: number, paths: readonly string[], cipher: Cipher) {
    this.#folder = folder;
    this.#paths = paths;
    this.#cipher = cipher;
  }

  /** Null: not there, or other bytes. The bytes are good until the next call. */
  read(
    chunk: { readonly id: string; readonly length: number; readonly path: number; readonly at: number },
  ): Uint8Array<ArrayBuffer> | null {
    const fd = this.#opened(chunk.path);
    if (fd === null || chunk.length > CHUNK_LIMIT_BYTES) return null;
    const bytes = this.#buffer.subarray(0, chunk.length);
    try {
      if (readAt(fd, bytes, chunk.at) !== chunk.length) return null;
    } catch (error) {
      if (!isErrno(error, "EIO", "EISDIR", "ESTALE")) throw error;
      return null; // a bad sector: the store has it
    }
    return isChunk(this.#cipher, bytes, chunk.id) ? bytes : null;
  }

  #opened(path: number): number | null {
    if (this.#at === path) return this.#fd;
    this.#shut();
    this.#at = path;
    try {
      const flags = OPEN.read | OPEN.nonBlocking | OPEN.noFollow;
      const fd = openBeneath(this.#folder, bytesOf(this.#paths[path] ?? ""), flags);
      this.#fd = fd;
      if (statFd(fd).type !== "file") this.#shut();
    } catch (error) {
      // Whatever keeps us from it: then it comes from the store.
      if (isErrno(error, ...UNREADABLE)) return null;
      throw error;
    }
    return this.#fd;
  }

  #shut(): void {
    if (this.#fd !== null) closeFd(this.#fd);
    this.#fd = null;
  }

  [Symbol.dispose](): void {
    this.#shut();
  }
}

const UNREADABLE: readonly string[] = [
  "ENOENT",
  "ENOTDIR",
  "ELOOP",
  "EACCES",
  "EPERM",
  "EISDIR",
  "ENXIO",
  "EIO",
  "ESTALE",
  "ENAMETOOLONG",
  "EXDEV",
];
