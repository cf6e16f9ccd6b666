/**
 * Reads and writes past the system's page cache (O_DIRECT), for what is written once and not read soon, or read once: it
 * saves a copy and the making of as much memory, which in a virtual machine that gives its free memory back costs more
 * than all else of it, and the programs beside us keep their pages. Best effort: what cannot be read or written so (a
 * filesystem without it, a full disk) is left to an ordinary call, which says what is wrong.
 */

import { closeFd, type FileStat, O_CLOEXEC, OPEN, statFd } from "./libc_files.ts";

/** Enough for every disk (`stx_dio_mem_align` and `stx_dio_offset_align` of statx(2) are 512 to 4,096). */
export const UNCACHED_BLOCK_BYTES = 4096;
/** Below it an ordinary write is as fast. */
const LEAST_BYTES = 1024 * 1024;
/** As for writes; what is read from a disk so comes without the system's reading ahead. */
const LEAST_READ_BYTES = 256 * 1024;
/** cachestat(2), since Linux 6.5; the same number on every architecture. A read that must not wait would read ahead. */
const SYS_CACHESTAT = 451n;
const F_SETFL = 4;
/** The least that a page may be; of larger ones a count says less, and more is read past them. */
const PAGE_BYTES = 4096;

const SYMBOLS = {
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  open: { parameters: ["buffer", "i32"], result: "i32", nonblocking: true },
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize", nonblocking: true },
  syscall: { parameters: ["i64", "i32", "buffer", "buffer", "u32"], result: "i64" },
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize", nonblocking: true },
} as const satisfies Deno.ForeignLibraryInterface;

let opened: Deno.DynamicLibrary<typeof SYMBOLS> | undefined;

function libc() {
  return (opened ??= Deno.dlopen("libc.so.6", SYMBOLS)).symbols;
}

function addressOf(bytes: Uint8Array<ArrayBuffer>): bigint {
  return BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
}

/** Bytes that `bytes` begin behind a border of blocks, in memory. */
export function behindBorder(bytes: Uint8Array<ArrayBuffer>): number {
  return Number(addressOf(bytes) % BigInt(UNCACHED_BLOCK_BYTES));
}

export function isOwn(bytes: Uint8Array): bytes is Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer; // no shared one
}

/**
 * Writes `bytes`, whole blocks, at the border of a block of a file opened with O_DIRECT, on another thread: how many bytes,
 * or below 0 for what an ordinary write will tell. Neither the memory nor the descriptor may go meanwhile.
 */
export async function writeUncached(
  fd: number,
  bytes: Uint8Array<ArrayBuffer>,
  position: number,
): Promise<number> {
  return Number(await libc().pwrite(fd, bytes, BigInt(bytes.length), BigInt(position)));
}

/** A descriptor, or below 0. */
async function openFile(path: string, flags: number): Promise<number> {
  try {
    return await libc().open(new TextEncoder().encode(`${path}\0`), flags | O_CLOEXEC);
  } catch {
    return -1; // no such libc
  }
}

/** A file that is read once. What the page cache has of it comes from there, long pieces of the rest from the disk. */
export class UncachedFile implements Disposable {
  readonly #fd: number;
  #isDirect = false;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Null: for an ordinary open to tell. */
  static async open(path: string): Promise<UncachedFile | null> {
    const fd = await openFile(path, OPEN.read | OPEN.nonBlocking);
    return fd < 0 ? null : new UncachedFile(fd);
  }

  stat(): FileStat {
    return statFd(this.#fd);
  }

  /**
   * How many bytes were read from `position` into `target`, from its beginning on, on another thread; 0 at the end of the
   * file, or below 0 for what an ordinary read will tell. Neither memory nor file may go meanwhile.
   */
  async read(target: Uint8Array<ArrayBuffer>, position: number): Promise<number> {
    const { pread, fcntl } = libc();
    const whole = target.length - target.length % UNCACHED_BLOCK_BYTES;
    const isDirect = whole >= LEAST_READ_BYTES && position % UNCACHED_BLOCK_BYTES === 0 &&
      behindBorder(target) === 0 && !mayBeCached(this.#fd, position, whole);
    if (isDirect !== this.#isDirect) {
      // Not every filesystem has such reads.
      if (fcntl(this.#fd, F_SETFL, isDirect ? OPEN.direct : 0) === 0) this.#isDirect = isDirect;
      else if (!isDirect) return -1;
    }
    const length = this.#isDirect ? whole : target.length;
    return Number(await pread(this.#fd, target, BigInt(length), BigInt(position)));
  }

  [Symbol.dispose](): void {
    closeFd(this.#fd);
  }
}

/** True where most of a piece is in the page cache, or the system does not tell. */
function mayBeCached(fd: number, position: number, length: number): boolean {
  const range = new BigUint64Array([BigInt(position), BigInt(length)]);
  const found = new BigUint64Array(5); // pages in memory; of these dirty, being written; and those that were dropped
  const { syscall } = libc();
  if (syscall(SYS_CACHESTAT, fd, new Uint8Array(range.buffer), new Uint8Array(found.buffer), 0) !== 0n) {
    return true;
  }
  return Number(found[0]) * PAGE_BYTES * 2 >= length;
}

/** The writes of one new file, by its name: they change the file and not what is known of it, which a sync makes durable. */
export class UncachedWriter implements Disposable {
  readonly #path: string;
  /** Null: not opened yet; -1: not to be had. */
  #fd: number | null = null;

  constructor(path: string) {
    this.#path = path;
  }

  /** How many of `bytes` were written at `position`, from their beginning on: whole blocks, or 0. */
  async write(bytes: Uint8Array, position: number): Promise<number> {
    const length = bytes.length - bytes.length % UNCACHED_BLOCK_BYTES;
    if (length < LEAST_BYTES || position % UNCACHED_BLOCK_BYTES !== 0 || this.#fd === -1) return 0;
    if (!isOwn(bytes) || behindBorder(bytes) !== 0) return 0;
    this.#fd ??= await this.#open();
    if (this.#fd < 0) return 0;
    const count = await writeUncached(this.#fd, bytes.subarray(0, length), position);
    if (count < length) this[Symbol.dispose]();
    return Math.max(0, count);
  }

  #open(): Promise<number> {
    return openFile(this.#path, OPEN.write | OPEN.direct | OPEN.noFollow);
  }

  [Symbol.dispose](): void {
    if (this.#fd !== null && this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
  }
}
