/**
 * Writes long stretches of large files past the system's page cache (O_DIRECT), beside the work that makes more of them:
 * a copy less, and no memory that the programs' files would have to make room for; in a virtual machine that gives its
 * free memory back to the host the first touch of a page costs more than all else of a restore. What is not whole blocks,
 * or cannot be written so, is an ordinary write. One for each job.
 */

import { closeFd, isErrno, OPEN, openAt, type PathBytes, writeAt } from "../platform/libc_files.ts";
import { bytesOfMemory, type MemoryBlock, returnMemory, takeLargePages } from "../platform/shared_memory.ts";
import { UNCACHED_BLOCK_BYTES as BLOCK_BYTES, writeUncached } from "../platform/uncached_files.ts";

/**
 * Pages of smaller files are little, and whoever they are restored for reads them soon. A larger one comes from the disk
 * when it is read first, which takes less than writing it took.
 */
export const STRETCHES_FROM_BYTES = 64 * 1024 * 1024;

const WINDOW_BYTES = 2 * 1024 * 1024;
/** Below it an ordinary write is as fast. */
const LEAST_BYTES = 256 * 1024;
/** Writes under way in one thread: a disk is kept busy, and each holds a window. */
const MOST_FLYING = 3;

interface OpenFile {
  readonly path: PathBytes;
  readonly plain: number;
  /** Null: its filesystem has no such writes. */
  direct: number | null;
}

/** What is gathered: memory lies as the file does. */
interface Window {
  readonly memory: MemoryBlock;
  /** Offset in the file of the first byte, on the border of a block. */
  readonly base: number;
  /** What is in it and not written. */
  start: number;
  end: number;
}

/** The writes under way of all jobs in a thread. Where one waits for room, another makes more. */
export class Flights {
  readonly #flying = new Set<Promise<void>>();

  /** Null where there is room for another one; else when to ask again. */
  room(): Promise<void> | null {
    return this.#flying.size < MOST_FLYING ? null : Promise.race(this.#flying);
  }

  /** `flight` never fails. */
  add(flight: Promise<void>): void {
    const ended = flight.finally(() => this.#flying.delete(ended));
    this.#flying.add(ended);
  }
}

export class StretchWriter implements AsyncDisposable {
  readonly #folder: number;
  readonly #flights: Flights;
  /** Of all files that were written, by their number. */
  readonly #files = new Map<number, OpenFile>();
  readonly #own = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | null = null;
  #current: number | null = null;
  #window: Window | null = null;
  /** Bytes that passed the page cache. */
  passed = 0;

  /** `folder` is a descriptor that paths are below. */
  constructor(folder: number, flights: Flights) {
    this.#folder = folder;
    this.#flights = flights;
  }

  /** Null where more may be written at once; else when to ask again, or what went wrong. */
  room(): Promise<void> | null {
    if (this.#failure !== null) throw this.#failure.error;
    return this.#flights.room();
  }

  /** Takes a copy of `bytes` for the file `number`, which is there under `path`. */
  write(number: number, path: PathBytes, bytes: Uint8Array<ArrayBuffer>, offset: number): void {
    if (this.#current !== number) this.#give();
    this.#current = number;
    if (!this.#files.has(number)) this.#files.set(number, this.#open(path));
    for (let done = 0; done < bytes.length;) {
      const at = offset + done;
      const window = this.#windowAt(at);
      const count = Math.min(window.base + WINDOW_BYTES - at, bytes.length - done);
      bytesOfMemory(window.memory).set(bytes.subarray(done, done + count), at - window.base);
      window.end += count;
      done += count;
      if (window.end === window.base + WINDOW_BYTES) this.#give();
    }
  }

  /** Everything that was given is in the files. */
  async flush(): Promise<void> {
    this.#give();
    await Promise.all(this.#own);
    if (this.#failure !== null) throw this.#failure.error;
  }

  #windowAt(at: number): Window {
    if (this.#window?.end === at) return this.#window;
    this.#give();
    return this.#window = {
      memory: takeLargePages(WINDOW_BYTES),
      base: at - at % BLOCK_BYTES,
      start: at,
      end: at,
    };
  }

  /** Has what is gathered written. */
  #give(): void {
    const window = this.#window;
    const file = this.#files.get(this.#current ?? -1);
    this.#window = null;
    if (window === null || file === undefined) return;
    const { start, end } = window;
    const first = Math.ceil(start / BLOCK_BYTES) * BLOCK_BYTES;
    const last = end - end % BLOCK_BYTES;
    if (file.direct === null || last - first < LEAST_BYTES) {
      writePart(file, window, start, end);
      return returnMemory(window.memory);
    }
    writePart(file, window, start, first);
    writePart(file, window, last, end);
    const flight = this.#pass(file, file.direct, window, first, last)
      .catch((error) => void (this.#failure ??= { error }))
      .finally(() => {
        returnMemory(window.memory);
        this.#own.delete(flight);
      });
    this.#own.add(flight);
    this.#flights.add(flight);
  }

  async #pass(file: OpenFile, direct: number, window: Window, first: number, last: number): Promise<void> {
    if (await writeUncached(direct, partOf(window, first, last), first) === last - first) {
      this.passed += last - first;
      return;
    }
    writePart(file, window, first, last); // which says what is wrong
  }

  #open(path: PathBytes): OpenFile {
    const plain = openAt(this.#folder, path, OPEN.write | OPEN.noFollow);
    try {
      return { path, plain, direct: openAt(this.#folder, path, OPEN.write | OPEN.noFollow | OPEN.direct) };
    } catch (error) {
      if (isErrno(error, "EINVAL", "EOPNOTSUPP")) return { path, plain, direct: null };
      closeFd(plain);
      throw error;
    }
  }

  /** Not before the writes under way have ended: their descriptors' numbers would be other files'. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#window !== null) returnMemory(this.#window.memory);
    this.#window = null;
    await Promise.all(this.#own);
    for (const { plain, direct } of this.#files.values()) {
      closeFd(plain);
      if (direct !== null) closeFd(direct);
    }
    this.#files.clear();
  }
}

function partOf({ memory, base }: Window, start: number, end: number): Uint8Array<ArrayBuffer> {
  return bytesOfMemory(memory).subarray(start - base, end - base);
}

function writePart({ plain, path }: OpenFile, window: Window, start: number, end: number): void {
  if (start < end) writeAt(plain, partOf(window, start, end), start, path);
}
