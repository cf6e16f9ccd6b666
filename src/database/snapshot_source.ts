/**
 * Takes a database by copies where its log cannot be followed: in rollback-journal mode pages change in place. A copy
 * is made of the file's own bytes while a read transaction of ours keeps it as it is; what differs from the copy
 * before is the next increment. SQLite's backup is not used: it writes its own numbers into page 1, and a restore
 * would not be the same file. Disk: one copy, two while the next one is made.
 */

import { equalBytes } from "../platform/equal_bytes.ts";
import { listFolder, localFileError, removeIfPresent } from "../platform/files.ts";
import { closeFd } from "../platform/libc_files.ts";
import { type LocalFiles, readRange, type WritableFile } from "../platform/local_files.ts";
import type { FollowerConnection } from "./follower_connection.ts";
import { logMoved } from "./follower_context.ts";
import { PageReader, pagesOf } from "./follower_pages.ts";
import { lockPage, type LtxPage } from "./ltx/mod.ts";
import { logIsStill, logStart, scanWal } from "./wal_reader.ts";

const COPY_NAME = /^copy-(\d+)\.db$/;
const CHUNK_BYTES = 1024 * 1024;

/** One state of a database, as a file of ours. */
export interface DatabaseCopy {
  readonly txid: number;
  readonly path: string;
  readonly pageSize: number;
  /** Pages. */
  readonly commit: number;
}

export class SnapshotSource {
  readonly #folder: string;
  readonly #files: LocalFiles;
  readonly #connection: FollowerConnection;

  constructor(folder: string, files: LocalFiles, connection: FollowerConnection) {
    this.#folder = folder;
    this.#files = files;
    this.#connection = connection;
  }

  /**
   * Something that changes with every commit. Asked without a lock in rollback-journal mode, where a lock of ours
   * would make the application's commit, or its change to WAL mode, fail.
   */
  stateKey(): string {
    const { ino, size } = this.#connection.stat();
    const header = this.#connection.header();
    const version = header?.wal ? this.#connection.dataVersion() : header?.changeCounter;
    return `${ino}:${size}:${header?.wal}:${version}`;
  }

  pathOf(txid: number): string {
    return `${this.#folder}/copy-${txid}.db`;
  }

  /** The copy of the state at `txid`, which is whole where a local file of that TXID is; null: there is none. */
  async find(txid: number, pageSize: number, commit: number): Promise<DatabaseCopy | null> {
    const path = this.pathOf(txid);
    try {
      const { sizeBytes } = await this.#files.stat(path);
      return sizeBytes === commit * pageSize ? { txid, path, pageSize, commit } : null;
    } catch {
      return null; // whatever the reason: all pages are taken then
    }
  }

  /** Removes all copies but that of `txid`. */
  async sweep(txid: number | null): Promise<void> {
    for (const name of await listFolder(this.#folder, this.#files)) {
      const match = COPY_NAME.exec(name);
      if (match !== null && match[1] !== String(txid)) {
        await removeIfPresent(`${this.#folder}/${name}`, this.#files);
      }
    }
  }

  /** Copies the state as it is now, durable before this returns; a lock of ours is held for as long as that takes. */
  async take(txid: number): Promise<DatabaseCopy> {
    const path = this.pathOf(txid);
    await removeIfPresent(path, this.#files);
    this.#connection.hold();
    try {
      return await this.#copy(txid, path);
    } catch (error) {
      await removeIfPresent(path, this.#files).catch(() => {}); // else the next sweep does it
      throw localFileError(`copy database to ${path}`, error);
    } finally {
      this.#connection.release();
    }
  }

  async #copy(txid: number, path: string): Promise<DatabaseCopy> {
    const header = this.#connection.header();
    if (header === null) throw new Error("the database has no header");
    const { pageSize } = header;
    const log = header.wal ? this.#connection.openLog() : null;
    try {
      const scan = log === null || typeof log.header === "string" || log.header.pageSize !== pageSize
        ? null
        : scanWal(log.fd, log.header, logStart(log.header), Infinity);
      const commit = scan?.commit ?? header.pages;
      const pages = pagesOf(
        everyPage(commit),
        pageSize,
        log === null || scan === null ? null : { fd: log.fd, pages: scan.pages },
        new PageReader(this.#connection.fd, pageSize),
      );
      using file = await this.#files.create(path, 0o600);
      await writePages(file, pages, pageSize);
      if (log !== null && typeof log.header !== "string" && !logIsStill(log.fd, log.header)) throw logMoved();
      await file.sync();
      return { txid, path, pageSize, commit };
    } finally {
      if (log !== null) closeFd(log.fd);
    }
  }

  /** The pages of `now` that `former` has not, or has differently; all without `former`. */
  async *changes(former: DatabaseCopy | null, now: DatabaseCopy): AsyncGenerator<LtxPage> {
    const without = lockPage(now.pageSize);
    using current = await this.#files.open(now.path);
    using old = former === null ? null : await this.#files.open(former.path);
    const perChunk = Math.max(1, Math.floor(CHUNK_BYTES / now.pageSize));
    for (let first = 1; first <= now.commit; first += perChunk) {
      const count = Math.min(perChunk, now.commit - first + 1);
      const at = (first - 1) * now.pageSize;
      const fresh = await readRange(current, at, count * now.pageSize);
      const stale = old === null ? null : await readRange(old, at, count * now.pageSize);
      for (let i = 0; i < count; i++) {
        const [from, to] = [i * now.pageSize, (i + 1) * now.pageSize];
        const data = fresh.slice(from, to);
        const pgno = first + i;
        if (pgno === without) continue;
        if (stale === null || to > stale.length || !equalBytes(data, stale.subarray(from, to))) {
          yield { pgno, data };
        }
      }
    }
  }
}

function* everyPage(commit: number): Generator<number> {
  for (let pgno = 1; pgno <= commit; pgno++) yield pgno;
}

async function writePages(file: WritableFile, pages: Iterable<LtxPage>, pageSize: number): Promise<void> {
  const chunk = new Uint8Array(Math.max(1, Math.floor(CHUNK_BYTES / pageSize)) * pageSize);
  let used = 0;
  const flush = async () => {
    for (let written = 0; written < used;) written += await file.write(chunk.subarray(written, used));
    used = 0;
  };
  for (const { data } of pages) {
    chunk.set(data, used);
    used += pageSize;
    if (used === chunk.length) await flush();
  }
  await flush();
}
