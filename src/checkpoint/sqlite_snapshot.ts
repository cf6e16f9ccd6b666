/**
 * A consistent copy of a SQLite database that a program may be using, its write-ahead log included. The original is
 * only ever read: its files are copied as they are, while a read transaction of a read-only connection, which neither
 * checkpoints nor deletes the program's log, keeps every writer from changing what it sees. Where SQLite could not read
 * without writing beside the original (a closed WAL database, a hot journal after kill -9, a read-only folder) they are
 * copied without one, unless one of them changes meanwhile. Either way SQLite then opens the copy, as it would open the
 * files after a power cut. Runs in the archiver child only: closing a database file drops the POSIX locks of the process
 * that does it, and there they are nobody's but the copy's own.
 */

import { DatabaseSync } from "node:sqlite";
import type { Clock } from "../platform/clock.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { removeIfPresent } from "../platform/files.ts";
import {
  AT_CWD,
  closeFd,
  copyRangeAside,
  type FileStat,
  isErrno,
  LibcError,
  OPEN,
  openAt,
  type PathBytes,
  pathBytes,
  readAt,
  showPath,
  statFd,
  statIfPresent,
  writeAt,
} from "../platform/libc_files.ts";
import { bytesOf, byteText } from "./byte_text.ts";

export interface SnapshotOptions {
  readonly clock: Clock;
  readonly signal?: AbortSignal;
  /** Its program stands still: a lock is not waited for, since copied files show the last commit, too. */
  readonly still?: boolean;
}

/** How the files were copied: under SQLite's lock, or without one since nothing changed meanwhile. */
export type SnapshotMethod = "locked" | "copy";

/** A writer in rollback-journal mode locks readers out for one commit; longer than this in all is a held lock. */
const LOCK_TRIES = 25;
const LOCK_PAUSE_MS = 200;
/** A file that changes each time it is copied is in use: then SQLite's own way is taken, or none. */
const COPY_TRIES = 3;
const COPY_BYTES = 1024 * 1024;
/** Copied between two looks at the signal: less than a second of work. */
const ASIDE_BYTES = 256 * 1024 * 1024;

/**
 * Writes the state of the database at `path`, as of one commit, to the file `copy`, which must not exist, in a folder
 * that only we use. Errors: `busy` (held in EXCLUSIVE mode all the time), `data-damaged`, LibcError.
 */
export async function snapshotDatabase(
  path: PathBytes,
  copy: string,
  options: SnapshotOptions,
): Promise<SnapshotMethod> {
  const method = await copyDatabase(path, copy, options);
  await finishCopy(path, copy);
  return method;
}

/** The first half: the state is fixed, and is in `copy` with what lies beside it. `finishCopy` must follow. */
export async function copyDatabase(
  path: PathBytes,
  copy: string,
  options: SnapshotOptions,
): Promise<SnapshotMethod> {
  return await orRemoved(copy, () => takeSnapshot(path, copy, options));
}

/** The second half, which looks at the copy alone, and at all of it: it may take as long, and run in another thread. */
export async function finishCopy(path: PathBytes, copy: string): Promise<void> {
  await orRemoved(copy, async () => {
    checkCopy(path, copy);
    await removeCompanions(copy);
  });
}

async function orRemoved<T>(copy: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    await removeIfPresent(copy);
    await removeCompanions(copy);
    throw error;
  }
}

async function takeSnapshot(
  path: PathBytes,
  copy: string,
  options: SnapshotOptions,
): Promise<SnapshotMethod> {
  // A WAL database whose log is absent is closed: opening it, even read-only, would leave a log and an index there.
  if (isWalMode(path) && companion(path, "-wal") === null && copyFiles(path, copy)) return "copy";
  // The name is given to SQLite as text; a name that is not UTF-8 cannot be.
  if (showable(path)) {
    try {
      await copyLocked(path, copy, options);
      return "locked";
    } catch (error) {
      const locked = isError(error, "busy");
      if (isError(error, "cancelled", "disk-full") || options.signal?.aborted) throw error;
      if (locked && options.still !== true) throw error;
      if (/malformed|not a database/.test(textOfError(error))) {
        throw damagedDatabase(path, textOfError(error));
      }
      // What is left: a read-only folder, or a hot journal that only a writer may roll back.
      await removeIfPresent(copy);
      await removeCompanions(copy);
    }
  }
  if (!copyFiles(path, copy)) {
    throw lockedDatabase(path, "changes all the time and cannot be opened read-only");
  }
  return "copy";
}

/** Both headers fields of the format version are 2 in WAL mode. Source: https://sqlite.org/fileformat2.html#1.3.1 */
function isWalMode(path: PathBytes): boolean {
  const header = new Uint8Array(20);
  withFile(path, (fd) => readAt(fd, header, 0));
  return header[18] === 2;
}

function withFile<T>(path: PathBytes, use: (fd: number) => T): T {
  const fd = openAt(AT_CWD, path, OPEN.read | OPEN.noFollow | OPEN.nonBlocking);
  try {
    return use(fd);
  } finally {
    closeFd(fd);
  }
}

/**
 * One read transaction, held while the files are copied. With a rollback journal it keeps writers from the file: what is
 * in it is the last commit, and the journal of one that has begun need not be copied. With a log it keeps a checkpoint
 * from bringing more into the file than the transaction sees, and the log from beginning anew while the transaction needs
 * it; what the file holds of that half way is in the log, too. What is added to the log meanwhile is later commits, of
 * which SQLite takes the whole ones. Source: https://sqlite.org/walformat.html, "WAL Locks".
 *
 * A transaction that began when all of the log was in the file needs none of it, and then the log may begin anew: a copy
 * of it could hold some of its former commits, older than the file, and would take pages of it back to them. The file
 * alone is what the transaction sees then, so that copy is left out.
 */
async function copyLocked(path: PathBytes, copy: string, options: SnapshotOptions): Promise<void> {
  const fd = openAt(AT_CWD, path, OPEN.read | OPEN.noFollow | OPEN.nonBlocking);
  try {
    const database = new DatabaseSync(textOf(path), { readOnly: true });
    try {
      database.exec("PRAGMA busy_timeout=0"); // the runtime's own is 5 s, all of it blocking: we pause between tries
      await beginRead(database, path, options);
      if (!isAt(path, fd)) throw new LibcError(`copy database ${showPath(path)}`, "ESTALE");
      const log = readLogHeader(path);
      await copyAside(fd, pathBytes(copy), options.signal);
      if (log !== null) await copyLog(path, copy, options.signal);
      if (readLogHeader(path) !== log) await removeIfPresent(`${copy}-wal`);
      database.exec("COMMIT");
    } finally {
      database.close();
    }
  } finally {
    closeFd(fd); // not before: with it goes the lock
  }
}

/** Magic, sizes, count of its beginnings, salts, checksums: written before the first frame of each beginning. */
const LOG_HEADER_BYTES = 32;

/** Null: there is no log, or none that has begun. */
function readLogHeader(path: PathBytes): string | null {
  if (companion(path, "-wal") === null) return null;
  return withFile(withSuffix(path, "-wal"), (fd) => {
    const header = new Uint8Array(LOG_HEADER_BYTES);
    return readAt(fd, header, 0) === header.length ? header.toHex() : null;
  });
}

/** Nobody locks the log itself, so it may be opened and closed meanwhile. */
async function copyLog(path: PathBytes, copy: string, signal: AbortSignal | undefined): Promise<void> {
  const fd = openAt(AT_CWD, withSuffix(path, "-wal"), OPEN.read | OPEN.noFollow | OPEN.nonBlocking);
  try {
    await copyAside(fd, pathBytes(`${copy}-wal`), signal);
  } finally {
    closeFd(fd);
  }
}

/** True while `path` names the open file. */
function isAt(path: PathBytes, fd: number): boolean {
  const named = statIfPresent(AT_CWD, path);
  const open = statFd(fd);
  return named !== null && named.ino === open.ino && named.dev === open.dev;
}

async function beginRead(
  database: DatabaseSync,
  path: PathBytes,
  { clock, signal, still = false }: SnapshotOptions,
): Promise<void> {
  for (let attempt = 1;; attempt++) {
    signal?.throwIfAborted();
    try {
      database.exec("BEGIN; SELECT count(*) FROM sqlite_schema");
      return;
    } catch (error) {
      if (!/locked|busy/.test(textOfError(error))) throw error;
      try {
        database.exec("ROLLBACK"); // BEGIN itself has succeeded
      } catch {
        // no transaction was open
      }
      if (still || attempt === LOCK_TRIES) throw lockedDatabase(path, "is locked by its program");
    }
    await clock.sleep(LOCK_PAUSE_MS, signal === undefined ? {} : { signal });
  }
}

/** Copies database, log and journal if none of them changes meanwhile; false after COPY_TRIES. */
function copyFiles(path: PathBytes, copy: string): boolean {
  for (let attempt = 0; attempt < COPY_TRIES; attempt++) {
    const before = states(path);
    copyFile(path, pathBytes(copy));
    for (const suffix of ["-wal", "-journal"]) {
      if (companion(path, suffix) !== null) copyFile(withSuffix(path, suffix), pathBytes(copy + suffix));
    }
    if (states(path) === before) return true;
  }
  return false;
}

/** What changes when any of the files does. */
function states(path: PathBytes): string {
  const state = (stat: FileStat | null) => stat && `${stat.ino}:${stat.size}:${stat.mtimeNs}:${stat.ctimeNs}`;
  return ["", "-wal", "-journal"].map((suffix) => state(companion(path, suffix))).join(" ");
}

function companion(path: PathBytes, suffix: string): FileStat | null {
  return statIfPresent(AT_CWD, withSuffix(path, suffix));
}

function withSuffix(path: PathBytes, suffix: string): PathBytes {
  return bytesOf(byteText(path) + suffix);
}

function copyFile(from: PathBytes, to: PathBytes): void {
  withFile(from, (source) => {
    const target = openAt(AT_CWD, to, OPEN.write | OPEN.create | OPEN.truncate);
    try {
      copyFrom(0, source, target, to);
    } finally {
      closeFd(target);
    }
  });
}

function copyFrom(start: number, source: number, target: number, to: PathBytes): void {
  const buffer = new Uint8Array(Math.min(COPY_BYTES, Math.max(1, statFd(source).size)));
  for (let at = start;;) {
    const count = readAt(source, buffer, at);
    if (count === 0) return;
    writeAt(target, buffer.subarray(0, count), at, to);
    at += count;
  }
}

/** In the kernel and on another thread, where that can be; what it leaves is copied here. */
async function copyAside(source: number, to: PathBytes, signal: AbortSignal | undefined): Promise<void> {
  const target = openAt(AT_CWD, to, OPEN.write | OPEN.create | OPEN.truncate);
  try {
    let at = 0;
    try {
      for (let count = 1; count > 0; at += count) {
        signal?.throwIfAborted();
        count = await copyRangeAside(source, at, target, at, ASIDE_BYTES);
      }
    } catch (error) {
      if (!isErrno(error, "EXDEV", "EINVAL", "ENOSYS", "EOPNOTSUPP", "EPERM")) throw error;
    }
    copyFrom(at, source, target, to);
  } finally {
    closeFd(target);
  }
}

/** Opens the copy for writing, which rolls back or takes in what was copied beside it, and checks its structure. */
function checkCopy(path: PathBytes, copy: string): void {
  try {
    const database = new DatabaseSync(copy);
    try {
      database.exec("PRAGMA synchronous=OFF"); // a copy that is lost is made again
      const [row] = database.prepare("PRAGMA quick_check(1)").all();
      const result = String(Object.values(row ?? {})[0]);
      if (result !== "ok") throw damagedDatabase(path, result);
      // Takes the log into the file even if it is not the last connection that SQLite knows of.
      database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    } finally {
      database.close();
    }
  } catch (error) {
    if (error instanceof StateManagerError) throw error;
    throw damagedDatabase(path, textOfError(error));
  }
}

async function removeCompanions(copy: string): Promise<void> {
  for (const suffix of ["-wal", "-shm", "-journal"]) await removeIfPresent(copy + suffix);
}

function textOf(path: PathBytes): string {
  return new TextDecoder().decode(path);
}

function showable(path: PathBytes): boolean {
  return byteText(pathBytes(textOf(path))) === byteText(path);
}

function textOfError(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function lockedDatabase(path: PathBytes, what: string): StateManagerError {
  return new StateManagerError("busy", `copy database ${showPath(path)}: it ${what}`, {
    hint: "let the program use PRAGMA locking_mode=NORMAL, or stop it before the checkpoint",
  });
}

function damagedDatabase(path: PathBytes, what: string): StateManagerError {
  return new StateManagerError("data-damaged", `copy database ${showPath(path)}: ${what}`, {
    hint: "run PRAGMA integrity_check on it; restore an earlier checkpoint if it is broken",
  });
}
