/**
 * One database that an application uses, opened by a follower. POSIX locks belong to the process: closing any
 * descriptor of the database drops every lock that SQLite holds on it here. So one descriptor is opened before the
 * first connection and closed after the last, all reads of the file go through it, and nobody else in this process
 * may open it. Nothing of the application's data is changed.
 */

import { DatabaseSync, type StatementSync } from "node:sqlite";
import { StateManagerError } from "../platform/errors.ts";
import {
  AT_CWD,
  closeFd,
  type FileStat,
  isErrno,
  OPEN,
  openAt,
  pathBytes,
  readAt,
  statFd,
  statIfPresent,
} from "../platform/libc_files.ts";
import { readWalHeader, type WalHeader } from "./wal_reader.ts";

const HEADER_BYTES = 100;
const MAGIC = new TextEncoder().encode("SQLite format 3\0");

/** What the first page says. Source: https://sqlite.org/fileformat2.html#the_database_header */
export interface DatabaseHeader {
  readonly pageSize: number;
  readonly wal: boolean;
  readonly changeCounter: number;
  /** Size in pages: the header's own number where that is kept, else the file's size. */
  readonly pages: number;
}

export interface TakenIn {
  /** Frames in the log. */
  readonly log: number;
  /** Of them, in the database. */
  readonly checkpointed: number;
  readonly busy: boolean;
}

/** What `PRAGMA wal_checkpoint` may be asked for here: RESTART and FULL keep writers waiting and are never used. */
type CheckpointMode = "PASSIVE" | "TRUNCATE";

/** True when a path leads to a database with something in it; it is not opened. */
export function databaseIsThere(path: string): boolean {
  const stat = statOf(path);
  return stat !== null && stat.type === "file" && stat.size > 0;
}

function statOf(path: string): FileStat | null {
  return statIfPresent(AT_CWD, pathBytes(path));
}

/** An open log; closing it harms nobody. */
export interface OpenLog {
  readonly fd: number;
  readonly header: WalHeader | "empty" | "torn";
  readonly sizeBytes: number;
  readonly inode: bigint;
}

/**
 * Two connections take turns as the reader that is in the database all the time: the other one comes (`comeNext`)
 * before it goes (`goNext`). Whichever is free takes in the log and holds writers off.
 */
export class FollowerConnection {
  readonly path: string;
  readonly fd: number;
  /** Device and inode when it was opened. */
  readonly opened: FileStat;
  #reader: Session | null = null;
  #other: Session | null = null;
  /** Never in a transaction, in which it could not be asked. */
  #teller: DatabaseSync | null = null;
  #dataVersion: StatementSync | null = null;
  #logFrames: StatementSync | null = null;

  /** Opens the descriptor alone; nothing is locked. */
  constructor(path: string) {
    this.path = path;
    this.fd = openAt(AT_CWD, pathBytes(path), OPEN.read | OPEN.nonBlocking);
    this.opened = statFd(this.fd);
  }

  /** Opens the connections; no lock is held yet. */
  connect(): void {
    if (this.#other !== null) return;
    this.#reader = new Session(this.#open());
    this.#other = new Session(this.#open());
    this.#teller = this.#open();
    this.#dataVersion = this.#teller.prepare("PRAGMA data_version");
  }

  #open(): DatabaseSync {
    const database = new DatabaseSync(this.path);
    // No waiting inside SQLite: it blocks all that this process follows. Callers pause and come again.
    database.exec("PRAGMA busy_timeout=0; PRAGMA wal_autocheckpoint=0");
    return database;
  }

  /** True when the name leads to another file now, or to none. */
  replaced(): boolean {
    const now = statOf(this.path);
    return now === null || now.ino !== this.opened.ino || now.dev !== this.opened.dev;
  }

  stat(): FileStat {
    return statFd(this.fd);
  }

  /** Null for a file that is no database (yet). */
  header(): DatabaseHeader | null {
    const bytes = new Uint8Array(HEADER_BYTES);
    if (readAt(this.fd, bytes, 0) < HEADER_BYTES) return null;
    if (!MAGIC.every((byte, at) => bytes[at] === byte)) return null;
    const view = new DataView(bytes.buffer);
    const stored = view.getUint16(16);
    const pageSize = stored === 1 ? 65536 : stored;
    const changeCounter = view.getUint32(24);
    const kept = view.getUint32(28);
    const pages = kept > 0 && changeCounter === view.getUint32(92)
      ? kept
      : Math.floor(statFd(this.fd).size / pageSize);
    return { pageSize, wal: bytes[18] === 2, changeCounter, pages };
  }

  /** The log as it is on disk; null when there is none. The caller closes it. */
  openLog(): OpenLog | null {
    try {
      const fd = openAt(AT_CWD, pathBytes(`${this.path}-wal`), OPEN.read | OPEN.nonBlocking);
      try {
        const { size, ino } = statFd(fd);
        return { fd, header: readWalHeader(fd), sizeBytes: size, inode: ino };
      } catch (error) {
        closeFd(fd);
        throw error;
      }
    } catch (error) {
      if (isErrno(error, "ENOENT")) return null;
      throw error;
    }
  }

  /** Begins the reader's transaction: from here the log cannot begin anew over frames that we have not read. */
  hold(): void {
    this.#begin(this.#connected(this.#reader));
  }

  release(): void {
    this.#reader?.end();
  }

  /** The next reader comes, beside the one that is there. */
  comeNext(): void {
    this.#begin(this.#connected(this.#other));
  }

  /** The next reader, if it has come, takes over: the one that was there goes. */
  goNext(): void {
    if (this.#other?.isIn !== true) return;
    [this.#reader, this.#other] = [this.#other, this.#reader];
    this.#other?.end();
  }

  /** The next reader goes again. */
  leaveNext(): void {
    this.#other?.end();
  }

  #begin(session: Session): void {
    try {
      session.read();
    } catch (error) {
      throw this.#failure("read", error);
    }
  }

  /** Changes when somebody has committed. */
  dataVersion(): number {
    try {
      return Number(this.#dataVersion?.get()?.["data_version"]);
    } catch (error) {
      throw this.#failure("read", error);
    }
  }

  /** Frames of the log up to its last commit, by SQLite's shared index; null: this SQLite does not tell. */
  logFrames(): number | null {
    if (this.#teller === null || !knowsNoop()) return null;
    try {
      this.#logFrames ??= this.#teller.prepare("PRAGMA wal_checkpoint(NOOP)");
      return Number(this.#logFrames.get()?.["log"]);
    } catch (error) {
      throw this.#failure("read", error);
    }
  }

  /** Keeps writers out until the gate is opened. */
  closeGate(): void {
    try {
      this.#connected(this.#other).lock();
    } catch (error) {
      throw this.#failure("lock", error);
    }
  }

  openGate(): void {
    this.#other?.end();
  }

  /** Takes the log into the database: as far as no reader, ours too, sees an older state. Never where both are in it. */
  takeIn(): TakenIn {
    const reader = this.#connected(this.#reader);
    return this.#checkpoint(reader.isIn ? this.#connected(this.#other) : reader, "PASSIVE");
  }

  /** Empties the log, while our reader is in the database. */
  cut(): TakenIn {
    return this.#checkpoint(this.#connected(this.#other), "TRUNCATE");
  }

  #checkpoint(session: Session, mode: CheckpointMode): TakenIn {
    try {
      const row = session.database.prepare(`PRAGMA wal_checkpoint(${mode})`).get();
      const { busy, log, checkpointed } = row ?? {};
      return { busy: Number(busy) !== 0, log: Number(log), checkpointed: Number(checkpointed) };
    } catch (error) {
      throw this.#failure("checkpoint", error);
    }
  }

  /** A commit that changes nothing: page 1 goes into the log with a new change counter. */
  touch(): void {
    const other = this.#connected(this.#other);
    try {
      other.lock();
      const { database } = other;
      const version = Number(database.prepare("PRAGMA user_version").get()?.["user_version"]);
      database.exec(`PRAGMA user_version=${version}; COMMIT`);
    } catch (error) {
      throw this.#failure("commit to", error);
    } finally {
      other.end();
    }
  }

  /** Sets WAL mode; false when somebody holds the database. */
  convertToWal(): boolean {
    try {
      const row = this.#connected(this.#other).database.prepare("PRAGMA journal_mode=WAL").get();
      return row?.["journal_mode"] === "wal";
    } catch (error) {
      const failure = this.#failure("convert", error);
      if (failure.code === "busy") return false;
      throw failure;
    }
  }

  /** As the last connection this takes the log into the database and deletes it. The descriptor goes last. */
  close(): void {
    this.release();
    for (const database of [this.#teller, this.#reader?.database, this.#other?.database]) {
      if (database?.isOpen) database.close();
    }
    this.#teller = this.#reader = this.#other = null;
    this.#dataVersion = this.#logFrames = null;
    closeFd(this.fd);
  }

  #connected(session: Session | null): Session {
    if (session === null) throw new StateManagerError("internal", `${this.path}: not connected`);
    return session;
  }

  #failure(action: string, error: unknown): StateManagerError {
    const text = error instanceof Error ? error.message : String(error);
    const message = `${action} database ${this.path}: ${text}`;
    if (/locked|busy/.test(text)) {
      return new StateManagerError("busy", message, {
        hint: "a program holds it for itself: let it use PRAGMA locking_mode=NORMAL",
        cause: error,
      });
    }
    if (/malformed|not a database/.test(text)) {
      return new StateManagerError("data-damaged", message, {
        hint: "run PRAGMA integrity_check on it; restore an earlier state if it is broken",
        cause: error,
      });
    }
    if (/full/.test(text)) {
      return new StateManagerError("disk-full", message, { hint: "free space on that disk", cause: error });
    }
    return new StateManagerError("local-io", message, {
      hint: "check that this user may read and write the database and its folder",
      cause: error,
    });
  }
}

let noop: boolean | null = null;

/**
 * True from SQLite 3.51 on; an older one takes the word for PASSIVE.
 * Source: https://sqlite.org/pragma.html#pragma_wal_checkpoint
 */
function knowsNoop(): boolean {
  if (noop !== null) return noop;
  const database = new DatabaseSync(":memory:");
  const version = String(database.prepare("SELECT sqlite_version() AS version").get()?.["version"]);
  database.close();
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return noop = major > 3 || minor >= 51;
}

/** One connection, in a transaction or not. */
class Session {
  readonly database: DatabaseSync;
  #read: StatementSync | null = null;
  #isIn = false;

  constructor(database: DatabaseSync) {
    this.database = database;
  }

  get isIn(): boolean {
    return this.#isIn;
  }

  /** Begins to read: what it sees stays as it is until its end. */
  read(): void {
    if (this.#isIn) return;
    this.#isIn = true;
    try {
      this.database.exec("BEGIN");
      this.#read ??= this.database.prepare("SELECT count(*) FROM sqlite_schema");
      this.#read.get();
    } catch (error) {
      this.end();
      throw error;
    }
  }

  lock(): void {
    this.#isIn = true;
    try {
      this.database.exec("BEGIN IMMEDIATE");
    } catch (error) {
      this.end();
      throw error;
    }
  }

  end(): void {
    if (!this.#isIn) return;
    try {
      this.database.exec("ROLLBACK");
    } catch {
      // no transaction was open
    }
    this.#isIn = false;
  }
}
