/**
 * Copies of files as they are while their programs stand still, so that these may go on while the copies are compressed
 * and sent. They lie in the scratch folder, one file for each, until its owner removes it. Where the filesystem can
 * share blocks a copy takes no space.
 */

import {
  closeFd,
  copyRange,
  isErrno,
  OPEN,
  openAt,
  type PathBytes,
  pathBytes,
  readAt,
  truncateFd,
  writeAt,
} from "../platform/libc_files.ts";
import type { OpenFile } from "./file_reader.ts";

/** Bytes between two turns: some milliseconds. */
const PIECE_BYTES = 8 * 1024 * 1024;
const buffer = new Uint8Array(1024 * 1024);

/** Names new copies in one existing folder, which only we use. */
export class CopyFolder {
  readonly path: string;
  readonly #fd: number;
  #count = 0;
  #inKernel = true;

  constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
  }

  /** A name that no copy has. */
  newName(): string {
    return String(++this.#count);
  }

  /**
   * Copies the content of an open file with its holes; returns the copy's name. `pace` is awaited between pieces and throws to
   * give up. Null: the file changed meanwhile, so its program does not stand still. Rejects with `disk-full`.
   */
  async copy(file: OpenFile, pace: () => Promise<void> | null): Promise<PathBytes | null> {
    const name = pathBytes(this.newName());
    const fd = openAt(this.#fd, name, OPEN.write | OPEN.create | OPEN.exclusive | OPEN.noFollow);
    try {
      truncateFd(fd, file.entry.size, name);
      for (const { kind, offset, length } of file.extents()) {
        for (let done = 0; kind === "data" && done < length;) {
          const pause = pace();
          if (pause !== null) await pause;
          const count = this.#copyPiece(
            file.fd,
            fd,
            offset + done,
            Math.min(PIECE_BYTES, length - done),
            name,
          );
          if (count === 0) return null; // cut short
          done += count;
        }
      }
    } finally {
      closeFd(fd);
    }
    return file.changed() ? null : name;
  }

  close(): void {
    closeFd(this.#fd);
  }

  #copyPiece(from: number, to: number, offset: number, length: number, name: PathBytes): number {
    if (this.#inKernel) {
      try {
        return copyRange(from, offset, to, offset, length);
      } catch (error) {
        if (!isErrno(error, "EXDEV", "EINVAL", "ENOSYS", "EOPNOTSUPP", "EPERM")) throw error;
        this.#inKernel = false;
      }
    }
    const bytes = buffer.subarray(0, Math.min(length, buffer.length));
    const count = readAt(from, bytes, offset);
    writeAt(to, bytes.subarray(0, count), offset, name);
    return count;
  }
}
