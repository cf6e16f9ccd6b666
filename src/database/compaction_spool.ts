/**
 * Where the output of a merge waits until it is whole and verified: in memory while it is small, else in a file of the
 * scratch folder. If we die here, the file is left and the next start clears the scratch.
 */

import { localFileError, removeIfPresent } from "../platform/files.ts";
import type { LocalFiles, WritableFile } from "../platform/local_files.ts";
import { StateManagerError } from "../platform/errors.ts";

/** Most merges of a busy database are smaller than this, and never touch the disk. */
const MEMORY_LIMIT_BYTES = 4 * 1024 * 1024;
/** Bytes per write and read call. */
const PIECE_BYTES = 256 * 1024;

export class CompactionSpool implements AsyncDisposable {
  readonly #files: LocalFiles;
  readonly #path: string;
  #parts: Uint8Array<ArrayBuffer>[] = [];
  #partBytes = 0;
  #file: WritableFile | null = null;
  #sizeBytes = 0;

  /** `path` of the file, if one is needed; what is there is replaced. */
  constructor(files: LocalFiles, path: string) {
    this.#files = files;
    this.#path = path;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Null while the bytes only went to memory, else a promise to await. */
  append(bytes: Uint8Array<ArrayBuffer>): Promise<void> | null {
    this.#parts.push(bytes);
    this.#partBytes += bytes.length;
    this.#sizeBytes += bytes.length;
    return this.#partBytes < (this.#file === null ? MEMORY_LIMIT_BYTES : PIECE_BYTES) ? null : this.#flush();
  }

  /** All bytes, in pieces; nothing may be appended any more. As often as wanted. */
  async *pieces(): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    if (this.#file === null) return yield* this.#parts;
    await this.#flush();
    try {
      using file = await this.#files.open(this.#path);
      for (let position = 0; position < this.#sizeBytes;) {
        const piece = new Uint8Array(PIECE_BYTES);
        const count = await file.read(piece, position);
        if (count === null) {
          throw new StateManagerError("local-io", `read ${this.#path}: it ends after ${position} bytes`);
        }
        position += count;
        yield piece.subarray(0, count);
      }
    } catch (error) {
      throw localFileError(`read ${this.#path}`, error);
    }
  }

  /** All bytes in one piece. */
  async whole(): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(this.#sizeBytes);
    let at = 0;
    for await (const piece of this.pieces()) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#parts = [];
    if (this.#file === null) return;
    this.#file[Symbol.dispose]();
    this.#file = null;
    await removeIfPresent(this.#path, this.#files);
  }

  async #flush(): Promise<void> {
    const parts = this.#parts;
    this.#parts = [];
    this.#partBytes = 0;
    try {
      if (this.#file === null) {
        await removeIfPresent(this.#path, this.#files);
        this.#file = await this.#files.create(this.#path, 0o600);
      }
      const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
      let filled = 0;
      for (const part of parts) {
        bytes.set(part, filled);
        filled += part.length;
      }
      for (let written = 0; written < bytes.length;) {
        written += await this.#file.write(bytes.subarray(written, written + PIECE_BYTES));
      }
    } catch (error) {
      throw localFileError(`write ${this.#path}`, error);
    }
  }
}
