/**
 * What a process said before what is kept in memory: its log file and those that were rotated away, as one text that is
 * read block by block, from the end to find where to begin and then forward. The files are held open, so what is renamed or
 * removed meanwhile does not matter; memory is bounded however much they hold, and no turn of the loop works on more than
 * a block, or a frame of a compressed file.
 */

import {
  isMissing,
  type LocalFiles,
  type ReadableFile,
  readRange,
  systemFiles,
} from "../platform/local_files.ts";
import { openZstdFrames, type ZstdFrames } from "../platform/zstd_frames.ts";
import type { OutputLine } from "./line_ring.ts";
import { linesOf } from "./line_ring.ts";
import { LineSplitter, type OutputBatch } from "./lines.ts";
import type { PlaceInFile } from "./log_file.ts";
import { COMPRESSED } from "./log_rotation.ts";
import { offsetSince, readTimes, type TimeMark } from "./log_times.ts";

/** A line from a file: which stream it came from is not known there, and it has no number. */
export interface PastLine extends Pick<OutputLine, "wallMs" | "text" | "partial" | "part"> {
  readonly sequence: null;
  /** "note": a remark of the manager about what cannot be read. */
  readonly stream: "note" | null;
}

export interface HistoryQuery {
  /** Most of the lines that match, the last ones. */
  readonly tail: number;
  /** Nothing since then is missed; up to a second more may be there. */
  readonly sinceMs: number;
  /** Which lines are wanted; null: all. */
  readonly matches: ((line: PastLine) => boolean) | null;
}

/** Held open at once by one reader: the newest. */
const MOST_FILES = 64;
const BLOCK_BYTES = 64 * 1024;
const NEWLINE = 10;

/** One of the files. Lengths are of what it holds uncompressed. */
interface Part {
  readonly name: string;
  readonly facts: { readonly modifiedMs: number; readonly inode: number };
  length(): Promise<number>;
  /** At least one byte, as far as there are any. */
  read(at: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  times(): Promise<readonly TimeMark[]>;
  close(): void;
}

/** A place in the files: 0 is the one that is written. */
interface Place {
  readonly part: number;
  readonly at: number;
}

/** Opens the log `path` and its rotated files; null where there is no file of that name that can be read again. */
export async function openLogFiles(
  path: string,
  timesFolder: string | null,
  maxFiles: number,
  files: LocalFiles = systemFiles,
): Promise<LogHistory | null> {
  const parts: Part[] = [];
  try {
    const current = await openPart(path, "", timesFolder, files);
    if (current === "other") return null;
    parts.push(current ?? NOTHING);
    for (let number = 1, holes = 0; parts.length < Math.min(maxFiles, MOST_FILES) && holes < 2; number++) {
      // Both forms only after a crash, of the same content.
      const part = await openPart(path, `.${number}`, timesFolder, files) ??
        await openPart(path, `.${number}${COMPRESSED}`, timesFolder, files);
      holes = part === null ? holes + 1 : 0;
      if (part !== null && part !== "other") parts.push(part);
    }
  } catch (error) {
    for (const part of parts) part.close();
    throw error;
  }
  return new LogHistory(parts);
}

const NOTHING: Part = {
  name: "",
  facts: { modifiedMs: -Infinity, inode: -1 },
  length: () => Promise.resolve(0),
  read: () => Promise.resolve(new Uint8Array(0)),
  times: () => Promise.resolve([]),
  close: () => {},
};

/** Null: there is none. "other": no regular file. */
async function openPart(
  path: string,
  suffix: string,
  timesFolder: string | null,
  files: LocalFiles,
): Promise<Part | "other" | null> {
  let file: ReadableFile;
  try {
    // A pipe without a writer would hold its opening back.
    if ((await files.stat(path + suffix)).kind !== "file") return "other";
    file = await files.open(path + suffix);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
  const facts = await file.facts().catch((error) => {
    file[Symbol.dispose]();
    throw error;
  });
  const common = {
    name: path.slice(path.lastIndexOf("/") + 1) + suffix,
    facts,
    times: () => timesFolder === null ? Promise.resolve([]) : readTimes(timesFolder, facts.inode, files),
    close: () => file[Symbol.dispose](),
  };
  if (!suffix.endsWith(COMPRESSED)) {
    return {
      ...common,
      length: () => Promise.resolve(facts.sizeBytes),
      read: (at, length) => readRange(file, at, length),
    };
  }
  let frames: Promise<ZstdFrames> | null = null;
  const opened = () => frames ??= openZstdFrames(file, facts.sizeBytes);
  return {
    ...common,
    length: async () => (await opened()).contentBytes,
    read: async (at, length) => await (await opened()).read(at, length),
  };
}

export class LogHistory implements Disposable {
  readonly #parts: readonly Part[];
  /** Where it ends; null: not looked at yet. */
  #end: Place | null = null;
  /** The part in which what we wrote ends, and where; null: all of all counts. */
  #written: Place | null = null;
  #bytesBack = 0;

  constructor(parts: readonly Part[]) {
    this.#parts = parts;
  }

  /** What is behind this place does not belong to it. False: the file that it is in is not among these. */
  endAt({ inode, sizeBytes, bytesBack }: PlaceInFile): boolean {
    this.#bytesBack = bytesBack;
    if (inode === null) return true;
    const part = this.#parts.findIndex(({ facts }) => facts.inode === inode);
    this.#written = { part, at: sizeBytes };
    return part >= 0;
  }

  [Symbol.dispose](): void {
    for (const part of this.#parts) part.close();
  }

  /** The wanted lines, oldest first, a block at a time. Files that cannot be read are told of by a note. */
  async *lines({ tail, sinceMs, matches }: HistoryQuery): AsyncGenerator<PastLine[]> {
    if (tail <= 0) return;
    const since = await this.#since(sinceMs);
    if (since === null) return;
    if (matches === null) return yield* this.#from(tail === Infinity ? since : await this.#tail(tail, since));
    let skip = 0;
    if (tail !== Infinity) {
      skip = -tail;
      for await (const lines of this.#from(since)) skip += lines.filter(matches).length;
    }
    for await (const lines of this.#from(since)) {
      const wanted = lines.filter(matches);
      const gone = Math.min(wanted.length, Math.max(0, skip));
      skip -= gone;
      if (wanted.length > gone) yield wanted.slice(gone);
    }
  }

  async #endOf(part: number): Promise<number> {
    const end = this.#end ??= await this.#findEnd();
    if (part < end.part) return 0;
    return part === end.part ? end.at : await this.#length(part);
  }

  async #findEnd(): Promise<Place> {
    let back = this.#bytesBack;
    const written = this.#written;
    for (let part = written?.part ?? 0; part < this.#parts.length; part++) {
      const length = part === written?.part ? written.at : await this.#length(part);
      if (back <= length) return { part, at: length - back };
      back -= length;
    }
    return { part: this.#parts.length, at: 0 };
  }

  /** What cannot be read counts as empty here. */
  async #length(part: number): Promise<number> {
    try {
      return await this.#parts[part]?.length() ?? 0;
    } catch {
      return 0;
    }
  }

  /** The oldest place where something of that time may be; null: there is none. */
  async #since(sinceMs: number): Promise<Place | null> {
    let found: Place | null = null;
    for (const [index, part] of this.#parts.entries()) {
      if (sinceMs === -Infinity) {
        found = { part: index, at: 0 };
        continue;
      }
      const at = offsetSince(await part.times(), sinceMs, part.facts.modifiedMs);
      if (at !== null) found = { part: index, at };
      // Older files hold what is older, unless the clock was set: then a part of them is missed.
      if (at === null || at > 0) break;
    }
    return found === null || found.at === 0 ? found : await this.#lineStart(found);
  }

  /** What came may have gone on with a line. */
  async #lineStart({ part, at }: Place): Promise<Place> {
    const from = Math.max(0, at - BLOCK_BYTES);
    const block = await this.#readAll(part, from, at - from);
    return { part, at: from + block.lastIndexOf(NEWLINE) + 1 };
  }

  /** Where the last `count` lines begin, not before `least`. */
  async #tail(count: number, least: Place): Promise<Place> {
    let left = count;
    let isEnd = true;
    for (let part = 0; part <= least.part; part++) {
      const from = part === least.part ? least.at : 0;
      let to = await this.#endOf(part);
      while (to > from) {
        const at = Math.max(from, to - BLOCK_BYTES);
        const block = await this.#readAll(part, at, to - at);
        // The line end of the last line begins no other one.
        let end = isEnd ? block.length - 1 : block.length;
        isEnd = false;
        while (end > 0) {
          const newline = block.lastIndexOf(NEWLINE, end - 1);
          if (newline < 0) break;
          if (--left === 0) return { part, at: at + newline + 1 };
          end = newline;
        }
        to = at;
      }
    }
    return least;
  }

  async #readAll(part: number, at: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      const some = await this.#parts[part]?.read(at + filled, length - filled).catch(() => null) ?? null;
      if (some === null || some.length === 0) break;
      bytes.set(some, filled);
      filled += some.length;
    }
    return bytes.subarray(0, filled);
  }

  async *#from(start: Place): AsyncGenerator<PastLine[]> {
    let wallMs = 0;
    let batches: OutputBatch[] = [];
    const splitter = new LineSplitter("stdout", () => wallMs, (batch) => batches.push(batch));
    const taken = () => {
      const lines = batches.flatMap((batch) => linesOf({ batch, sequence: 1 })).map(pastLine);
      batches = [];
      return lines;
    };
    for (let index = start.part; index >= 0; index--) {
      const part = this.#parts[index];
      if (part === undefined) continue;
      const marks = await part.times();
      try {
        await part.length();
        const end = await this.#endOf(index);
        for (let at = index === start.part ? start.at : 0; at < end;) {
          const block = await part.read(at, Math.min(BLOCK_BYTES, end - at));
          if (block.length === 0) break;
          for (const [bytes, time] of byTime(block, at, marks, part.facts.modifiedMs)) {
            wallMs = time;
            splitter.push(bytes);
          }
          at += block.length;
          if (batches.length > 0) yield taken();
        }
      } catch (error) {
        splitter.flush();
        yield [...taken(), unreadable(part, error)];
      }
    }
    splitter.flush();
    if (batches.length > 0) yield taken();
  }
}

function pastLine({ wallMs, text, partial, part }: OutputLine): PastLine {
  return { sequence: null, stream: null, wallMs, text, partial, part };
}

function unreadable({ name, facts }: Part, error: unknown): PastLine {
  const why = error instanceof Error ? error.message : String(error);
  const text = `state-manager: ${name} is left out: ${why}`;
  return { sequence: null, stream: "note", wallMs: facts.modifiedMs, text, partial: false, part: 0 };
}

/** The bytes of a block, each run with the time from which on it was written; without marks that of the file. */
function* byTime(
  block: Uint8Array<ArrayBuffer>,
  at: number,
  marks: readonly TimeMark[],
  modifiedMs: number,
): Generator<[Uint8Array<ArrayBuffer>, number]> {
  let time = marks[0]?.wallMs ?? modifiedMs;
  let from = 0;
  for (const { offset, wallMs } of marks.slice(firstAfter(marks, at))) {
    if (offset >= at + block.length) break;
    if (offset > at + from) yield [block.subarray(from, offset - at), time];
    from = Math.max(from, offset - at);
    time = wallMs;
  }
  yield [block.subarray(from), time];
}

/** Index of the last mark that is not behind `at`. */
function firstAfter(marks: readonly TimeMark[], at: number): number {
  let low = 0;
  let high = marks.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((marks[middle]?.offset ?? 0) <= at) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low - 1);
}
