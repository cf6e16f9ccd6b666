/**
 * Writes past the system's page cache (O_DIRECT), for what is written once and not read soon: it saves a copy and the
 * making of as much memory, which in a virtual machine that gives its free memory back costs more than all else of a
 * write, and the programs beside us keep their pages. Best effort: what cannot be written so (a filesystem without it, a
 * full disk) is left to an ordinary write, which says what is wrong.
 */

import { closeFd, O_CLOEXEC, OPEN } from "./libc_files.ts";

/** Enough for every disk (`stx_dio_mem_align` and `stx_dio_offset_align` of statx(2) are 512 to 4,096). */
export const UNCACHED_BLOCK_BYTES = 4096;
/** Below it an ordinary write is as fast. */
const LEAST_BYTES = 1024 * 1024;

const SYMBOLS = {
  open: { parameters: ["buffer", "i32"], result: "i32", nonblocking: true },
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize", nonblocking: true },
} as const satisfies Deno.ForeignLibraryInterface;

let opened: Deno.DynamicLibrary<typeof SYMBOLS> | undefined;

function libc() {
  return (opened ??= Deno.dlopen("libc.so.6", SYMBOLS)).symbols;
}

/** Bytes that `bytes` begin behind a border of blocks. */
function behindBorder(bytes: Uint8Array<ArrayBuffer>): number {
  return Number(
    BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes))) % BigInt(UNCACHED_BLOCK_BYTES),
  );
}

function isOwn(bytes: Uint8Array): bytes is Uint8Array<ArrayBuffer> {
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

  async #open(): Promise<number> {
    const path = new TextEncoder().encode(`${this.#path}\0`);
    try {
      return await libc().open(path, OPEN.write | OPEN.direct | OPEN.noFollow | O_CLOEXEC);
    } catch {
      return -1; // no such libc
    }
  }

  [Symbol.dispose](): void {
    if (this.#fd !== null && this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
  }
}
