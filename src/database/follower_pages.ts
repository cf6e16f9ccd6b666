/**
 * The pages of one file: from the log where they are in it, else from the database's own file. Both are stable while
 * a reader of ours holds the database and the log has not begun anew: what others take from the log into the file
 * meanwhile are pages that are in the log here.
 */

import { readAt } from "../platform/libc_files.ts";
import { lockPage, type LtxPage } from "./ltx/mod.ts";

/** Read from the database at once. */
const WINDOW_BYTES = 1024 * 1024;

export class PageReader {
  readonly #databaseFd: number;
  readonly #pageSize: number;
  /** Made for the first page that is not in the log: most increments have none. */
  #window: Uint8Array<ArrayBuffer> | null = null;
  #windowFrom = -1;
  #windowLength = 0;

  constructor(databaseFd: number, pageSize: number) {
    this.#databaseFd = databaseFd;
    this.#pageSize = pageSize;
  }

  /** From the database's file; zeros past its end. */
  fromDatabase(pgno: number): Uint8Array<ArrayBuffer> {
    const at = (pgno - 1) * this.#pageSize;
    const window = this.#window ??= new Uint8Array(Math.max(WINDOW_BYTES, this.#pageSize));
    if (this.#windowFrom < 0 || at < this.#windowFrom || at >= this.#windowFrom + window.length) {
      this.#windowFrom = at - at % window.length;
      this.#windowLength = readAt(this.#databaseFd, window, this.#windowFrom);
    }
    const from = at - this.#windowFrom;
    if (from >= this.#windowLength) return new Uint8Array(this.#pageSize);
    const page = window.slice(from, from + this.#pageSize);
    page.fill(0, Math.max(0, this.#windowLength - from));
    return page;
  }
}

/** Yields the wanted pages, in order; `inLog` says where each begins in the log. */
export function* pagesOf(
  wanted: Iterable<number>,
  pageSize: number,
  log: { readonly fd: number; readonly pages: ReadonlyMap<number, number> } | null,
  database: PageReader,
): Generator<LtxPage> {
  for (const pgno of wanted) {
    const offset = log?.pages.get(pgno);
    if (log === null || offset === undefined) {
      yield { pgno, data: database.fromDatabase(pgno) };
      continue;
    }
    const data = new Uint8Array(pageSize);
    readAt(log.fd, data, offset);
    yield { pgno, data };
  }
}

/** Every page of a database but the one that never has content. */
export function* allPages(commit: number, pageSize: number): Generator<number> {
  const without = lockPage(pageSize);
  for (let pgno = 1; pgno <= commit; pgno++) if (pgno !== without) yield pgno;
}

/** Of an increment: the pages in the log, and those by which the database grew. Ascending. */
export function changedPages(
  inLog: ReadonlyMap<number, number>,
  formerCommit: number,
  commit: number,
  pageSize: number,
): number[] {
  const without = lockPage(pageSize);
  const pages = new Set(inLog.keys());
  for (let pgno = formerCommit + 1; pgno <= commit; pgno++) pages.add(pgno);
  pages.delete(without);
  return [...pages].sort((a, b) => a - b);
}
