/**
 * The file that a restore builds: pages go in as they come, newest last, and at its end every page must have come.
 * Synchronous system calls: for a child or a command, never for the manager's loop. The file is nothing until `finish`.
 */

import { StateManagerError } from "../platform/errors.ts";
import {
  AT_CWD,
  closeFd,
  isErrno,
  OPEN,
  openAt,
  type PathBytes,
  pathBytes,
  setModeFd,
  setOwnerFd,
  syncFd,
  truncateFd,
  writeAt,
} from "../platform/libc_files.ts";
import { lockPage } from "./ltx/mod.ts";

/** Neighbouring pages are written together: a call for each small page costs more than its bytes. */
const BUFFER_BYTES = 1024 * 1024;

export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
}

export class RestoredFile implements Disposable {
  readonly #path: PathBytes;
  readonly #fd: number;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #bufferedBytes = 0;
  #bufferOffset = 0;
  #open = true;
  /** 0: no file was applied yet. */
  #pageSize = 0;
  #commit = 0;
  /** One bit for each page that came, page 1 first. */
  #present = new Uint8Array(1024);

  /** Makes a new file. */
  constructor(path: string) {
    this.#path = pathBytes(path);
    this.#fd = openAt(AT_CWD, this.#path, OPEN.readWrite | OPEN.create | OPEN.exclusive, 0o600);
  }

  get pageSize(): number {
    return this.#pageSize;
  }

  /** Pages of the database. */
  get commit(): number {
    return this.#commit;
  }

  /** Forgets all that was written. */
  reset(): void {
    this.#bufferedBytes = 0;
    this.#pageSize = 0;
    this.#commit = 0;
    this.#present.fill(0);
    truncateFd(this.#fd, 0, this.#path);
  }

  /**
   * A file of pages of this size begins. A database whose page size was changed was written anew as a whole: nothing of
   * before belongs to it, and a file that does not hold all of it leaves pages missing.
   */
  begin(pageSize: number): void {
    if (this.#pageSize !== 0 && this.#pageSize !== pageSize) this.reset();
    this.#pageSize = pageSize;
  }

  page(pgno: number, data: Uint8Array): void {
    const offset = (pgno - 1) * this.#pageSize;
    const follows = offset === this.#bufferOffset + this.#bufferedBytes;
    if (!follows || this.#bufferedBytes + data.length > BUFFER_BYTES) this.#flush();
    if (this.#bufferedBytes === 0) this.#bufferOffset = offset;
    this.#buffer.set(data, this.#bufferedBytes);
    this.#bufferedBytes += data.length;
    this.#mark(pgno);
  }

  /** All pages of a file came: the database has `commit` pages. What lies behind is gone, also if it grows again. */
  end(commit: number): void {
    this.#flush();
    for (let pgno = commit + 1; pgno <= this.#commit; pgno++) this.#unmark(pgno);
    this.#commit = commit;
    truncateFd(this.#fd, commit * this.#pageSize, this.#path);
  }

  /** The first page that never came; null when the database is whole. The lock page has no content. */
  missingPage(): number | null {
    const lock = lockPage(this.#pageSize);
    for (let pgno = 1; pgno <= this.#commit; pgno++) {
      if (!this.#has(pgno) && pgno !== lock) return pgno;
    }
    return null;
  }

  /** Durable, its name excepted. Returns warnings: without the right to it a file keeps our owner. */
  finish(owner: FileOwner | null, mode: number): readonly string[] {
    const warnings: string[] = [];
    if (owner !== null) {
      try {
        setOwnerFd(this.#fd, owner.uid, owner.gid, this.#path);
      } catch (error) {
        if (!isErrno(error, "EPERM", "EACCES", "EINVAL", "EOPNOTSUPP")) throw error;
        warnings.push(`owner ${owner.uid}:${owner.gid} not set: ${error.errno}`);
      }
    }
    setModeFd(this.#fd, mode, this.#path); // after the owner: changing that takes the set-id bits away
    syncFd(this.#fd, this.#path);
    return warnings;
  }

  [Symbol.dispose](): void {
    if (this.#open) closeFd(this.#fd);
    this.#open = false;
  }

  #flush(): void {
    if (this.#bufferedBytes === 0) return;
    writeAt(this.#fd, this.#buffer.subarray(0, this.#bufferedBytes), this.#bufferOffset, this.#path);
    this.#bufferedBytes = 0;
  }

  #mark(pgno: number): void {
    const at = pgno >>> 3;
    if (at >= this.#present.length) {
      const longer = new Uint8Array(Math.max(at + 1, this.#present.length * 2));
      longer.set(this.#present);
      this.#present = longer;
    }
    this.#present[at] = (this.#present[at] ?? 0) | 1 << (pgno & 7);
  }

  #unmark(pgno: number): void {
    const at = pgno >>> 3;
    if (at < this.#present.length) this.#present[at] = (this.#present[at] ?? 0) & ~(1 << (pgno & 7));
  }

  #has(pgno: number): boolean {
    return ((this.#present[pgno >>> 3] ?? 0) & 1 << (pgno & 7)) !== 0;
  }
}

/** The error for pages that no file of the plan held. */
export function incomplete(pgno: number, commit: number): StateManagerError {
  return new StateManagerError(
    "data-damaged",
    `restore database: page ${pgno} of ${commit} is in none of the files, wanted all pages`,
    { hint: "restore to an earlier point" },
  );
}
