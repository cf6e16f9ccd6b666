/**
 * What a stopped or crashed restore has left of a stage, for the next stage of the same tree. Nothing in it is trusted:
 * a crash leaves files half written, holes where chunks did not come, and after a power cut anything. A file counts
 * after it was read back: by the hash of each chunk, and as zeros where the manifest has holes.
 * Files are moved into the new stage, never copied, so the disk holds each of them once; if we die on the way, both
 * stages are left and the next start goes through both.
 */

import {
  AT_CWD,
  closeFd,
  isErrno,
  LibcError,
  OPEN,
  openAt,
  openBeneath,
  type PathBytes,
  pathBytes,
  readAt,
  renameAt,
  seekData,
  setModeFd,
  statIfPresent,
  unlinkAt,
} from "../platform/libc_files.ts";
import { byteText } from "./byte_text.ts";
import { isChunk } from "./chunk_reader.ts";
import type { Cipher } from "./cipher.ts";
import { CHUNK_LIMIT_BYTES } from "./pack.ts";
import type { ContentPart, TreeEntry } from "./types.ts";

/** One former stage, open. */
export class FormerStage {
  readonly #root: number;
  /** The folder that the last file was taken from: neighbours come one after the other. */
  #folder: { readonly path: string; readonly fd: number } | null = null;

  private constructor(root: number, readonly cipher: Cipher) {
    this.#root = root;
  }

  /** Null when it is not there, or is no folder. */
  static open(path: string, cipher: Cipher): FormerStage | null {
    try {
      const root = openAt(AT_CWD, pathBytes(path), OPEN.read | OPEN.directory | OPEN.noFollow);
      return new FormerStage(root, cipher);
    } catch (error) {
      if (isErrno(error, "ENOENT", "ENOTDIR", "ELOOP", "EACCES")) return null;
      throw error;
    }
  }

  /**
   * Moves the file of `entry` into the folder `target`, where its path must be free, and opens it for reading and
   * writing, mode 0600. Null: there is none of that size, it has other names than its `links` own, or the way to it is
   * barred (a folder without rights, a symlink, a mount).
   */
  take(target: number, entry: TreeEntry, links: number): number | null {
    const cut = entry.path.lastIndexOf(0x2f);
    try {
      const folder = this.#open(entry.path.subarray(0, Math.max(0, cut)));
      const name = entry.path.slice(cut + 1);
      const stat = statIfPresent(folder, name);
      if (stat?.type !== "file" || stat.size !== entry.size || stat.mountRoot) return null;
      if (stat.linkCount > links) return null;
      renameAt(folder, name, target, entry.path, "no-replace");
    } catch (error) {
      if (error instanceof LibcError && BARRED.has(error.errno)) return null;
      throw error;
    }
    try {
      const fd = openAt(target, entry.path, OPEN.readWrite | OPEN.noFollow);
      setModeFd(fd, 0o600, entry.path);
      return fd;
    } catch (error) {
      if (!isErrno(error, "EACCES", "EPERM")) throw error; // finished, with a mode that keeps even us out
      unlinkAt(target, entry.path);
      return null;
    }
  }

  #open(path: PathBytes): number {
    const key = byteText(path);
    if (this.#folder?.path === key) return this.#folder.fd;
    const fd = openBeneath(this.#root, path, OPEN.read | OPEN.directory);
    try {
      setModeFd(fd, 0o700, path); // a finished folder may have lost the right to take things out
    } catch (error) {
      if (!isErrno(error, "EPERM")) throw error;
    }
    this.#shut();
    this.#folder = { path: key, fd };
    return fd;
  }

  #shut(): void {
    if (this.#folder !== null) closeFd(this.#folder.fd);
    this.#folder = null;
  }

  [Symbol.dispose](): void {
    this.#shut();
    closeFd(this.#root);
  }
}

const BARRED: ReadonlySet<string> = new Set([
  "ENOENT",
  "ENOTDIR",
  "ELOOP",
  "EACCES",
  "EPERM",
  "EXDEV",
  "EBUSY",
]);

const buffer = new Uint8Array(CHUNK_LIMIT_BYTES);

/**
 * Reads an open file back against the parts that it should have. Yields after each part the bytes that were found true;
 * returns the offsets of the chunks that are there, or null when a hole holds something: then nothing of it counts, and
 * what was yielded is taken back.
 */
export function* heldChunks(
  fd: number,
  parts: readonly ContentPart[],
  cipher: Cipher,
): Generator<number, ReadonlySet<number> | null> {
  const held = new Set<number>();
  let offset = 0;
  let heldBytes = 0;
  for (const part of parts) {
    if (part.kind === "hole") {
      const empty = yield* isEmptyBetween(fd, offset, offset + part.length);
      if (!empty) {
        yield -heldBytes;
        return null;
      }
    } else if (holdsChunk(fd, offset, part, cipher)) {
      held.add(offset);
      heldBytes += part.length;
      yield part.length;
    } else yield 0;
    offset += part.length;
  }
  return held;
}

function holdsChunk(
  fd: number,
  offset: number,
  part: { readonly id: string; readonly length: number },
  cipher: Cipher,
): boolean {
  const data = seekData(fd, offset);
  if (data === null || data >= offset + part.length) return false; // never written: no need to hash zeros
  const bytes = buffer.subarray(0, part.length);
  return readAt(fd, bytes, offset) === part.length && isChunk(cipher, bytes, part.id);
}

/** A filesystem without holes has zeros there: they are read. */
function* isEmptyBetween(fd: number, start: number, end: number): Generator<number, boolean> {
  for (let at = start; at < end;) {
    const data = seekData(fd, at);
    if (data === null || data >= end) break;
    const bytes = buffer.subarray(0, Math.min(buffer.length, end - data));
    if (readAt(fd, bytes, data) !== bytes.length || bytes.some((byte) => byte !== 0)) return false;
    at = data + bytes.length;
    yield 0;
  }
  return true;
}
