/**
 * Follows a database in WAL mode: reads its log from where the newest local file ends, writes what is new into the
 * next one, and checkpoints. A reader of ours is in the database all the time, so that the log cannot begin anew over
 * frames that were not read (`decideLive` has the proof).
 */

import { isError } from "../platform/errors.ts";
import { AT_CWD, closeFd, pathBytes, statIfPresent, syncFd } from "../platform/libc_files.ts";
import {
  type CheckpointKind,
  decideCheckpoint,
  decideJoint,
  type Decision,
  type LogPoint,
  type SnapshotReason,
} from "./follow_rules.ts";
import { LogAhead } from "./follower_ahead.ts";
import type { FollowerConnection, OpenLog, TakenIn } from "./follower_connection.ts";
import { type FollowerContext, isLogMoved, logMoved, logUnreadable } from "./follower_context.ts";
import { allPages, changedPages, PageReader, pagesOf } from "./follower_pages.ts";
import { FileNotes, type Reading, TIME_GRAIN_MS } from "./follower_notes.ts";
import { decideFirst, decideWithLog, firstReading } from "./follower_start.ts";
import type { SyncResult } from "./follower_types.ts";
import {
  frameBytes,
  logIsStill,
  logStart,
  pointAfter,
  scanWal,
  WAL_HEADER_BYTES,
  type WalHeader,
  type WalScan,
} from "./wal_reader.ts";

/** A log that begins anew this often while it is read is no accident. */
const READ_TRIES = 5;
/** For the write lock of a barrier: a commit of the application is over in less, or it is left for the next time. */
const BARRIER_TRIES = 10;
const BARRIER_PAUSE_MS = 10;
/** For the reader's lock, which only a recovery of the log withholds. */
const HOLD_TRIES = 50;
const HOLD_PAUSE_MS = 20;

/** most: all but what was committed meanwhile. held-up: a reader or a transaction of the application was in the way. */
type CheckpointOutcome = "whole" | "most" | "held-up";

export class LogFollower {
  readonly #context: FollowerContext;
  readonly #connection: FollowerConnection;
  readonly #notes: FileNotes;
  #reading: Reading | null = null;
  #logInode: bigint | null = null;
  #fileBytes = 0;
  #wholeAtMs: number;
  #attemptAtMs = -Infinity;
  #heldUp = 0;
  #checkpoints = 0;
  /** The last sync came to the end of the log. */
  #hasReadAll = false;
  /** Of the log that is being read, by SQLite's index. */
  #frames: number | null = null;
  readonly #ahead: LogAhead;
  #jointTookMs = 0;
  #jointAtMs = -Infinity;

  constructor(context: FollowerContext, connection: FollowerConnection) {
    this.#context = context;
    this.#connection = connection;
    this.#notes = new FileNotes(context, connection);
    this.#ahead = new LogAhead(context, connection);
    this.#wholeAtMs = context.clock.monotonicMs();
  }

  get pageSize(): number | null {
    return this.#reading?.pageSize ?? null;
  }

  get databasePages(): number | null {
    return this.#reading?.commit ?? null;
  }

  get walBytes(): number {
    const { position } = this.#reading ?? {};
    return position === undefined || position === null ? 0 : position.offset;
  }

  get walFileBytes(): number {
    return this.#fileBytes;
  }

  get walOverLimit(): boolean {
    return this.#heldUp > 0 && this.walBytes > this.#context.limits.walBytes;
  }

  get checkpoints(): number {
    return this.#checkpoints;
  }

  /** True when the log's file was removed or exchanged under us, which SQLite never does while we hold it. */
  logReplaced(): boolean {
    if (this.#logInode === null) return false;
    return statIfPresent(AT_CWD, pathBytes(`${this.#context.path}-wal`))?.ino !== this.#logInode;
  }

  /** Takes what is new up to the end of the log, or its bound; where a checkpoint is due then, together with that. */
  async sync(): Promise<SyncResult> {
    await this.#hold();
    try {
      return await this.#syncJointly() ?? await this.#syncBesideWriters();
    } finally {
      this.#ahead.forget();
    }
  }

  /**
   * The next reader of ours comes before the log is read, and the one before goes when all of it was: then all that the
   * next one sees has been read, and all that it does not see stays in the log. An application that checkpoints waits
   * for readers of older states, with its writers, for as long as it is patient: ours is never older than the last sync.
   */
  async #syncBesideWriters(): Promise<SyncResult> {
    const isNextThere = this.#comeNext();
    let hasReadAll = false;
    try {
      const result = await this.#sync(false);
      hasReadAll = this.#hasReadAll;
      return result;
    } finally {
      if (isNextThere && hasReadAll) {
        this.#context.step("read");
        this.#connection.goNext();
        this.#context.step("read-lock-dropped");
      } else this.#connection.leaveNext();
    }
  }

  /**
   * One file for what the sync would take and for what is committed while the log is taken in, which would be a file of
   * its own else. What was read before is taken in beside the writers; they wait while the rest of the log is read and
   * its few pages are taken in. Null: not now, and nothing was written.
   *
   * If we die before the file has its name, nothing is in the database that the file before does not cover: our reader,
   * which is as old as that, bounds what is taken in.
   */
  async #syncJointly(): Promise<SyncResult | null> {
    const reading = this.#reading;
    const scan = reading === null ? null : this.#ahead.read(reading);
    if (reading === null || scan === null) return null;
    const { clock, limits, path } = this.#context;
    const beganMs = clock.monotonicMs();
    const isDue = decideJoint({
      leftPages: scan.pages.size,
      logPages: (scan.end.offset - WAL_HEADER_BYTES) / frameBytes(reading.pageSize),
      heldUp: this.#heldUp,
      tookMs: this.#jointTookMs,
      sinceMs: beganMs - this.#jointAtMs,
    }, limits);
    if (!isDue || this.#takeInSeen() === Infinity) return null;
    // A reader of the application holds it up: that is for the checkpoint after the sync, and counted there.
    if (this.#pagesInLog(reading, reading.inDatabase) + scan.pages.size > limits.jointPages) return null;
    syncFd(this.#connection.fd, pathBytes(path)); // else SQLite does it while writers wait
    const taken = await this.#takeInAll().catch((error: unknown) => {
      this.#heldUp++; // the next sync is a plain one, which knows more ways on
      if (!isError(error, "busy")) throw error;
      return null;
    });
    if (taken === null) return null;
    const nowMs = clock.monotonicMs();
    this.#jointAtMs = nowMs;
    this.#jointTookMs = nowMs - beganMs;
    this.#attemptAtMs = nowMs;
    this.#checkpoints++;
    if (taken.whole) this.#wholeAtMs = nowMs;
    else this.#heldUp++;
    return taken.result;
  }

  /** False where the log is being recovered: with the next sync. */
  #comeNext(): boolean {
    try {
      this.#connection.comeNext();
      this.#context.step("read-lock-taken");
      return true;
    } catch (error) {
      if (isError(error, "busy")) return false;
      throw error;
    }
  }

  async #hold(): Promise<void> {
    for (let attempt = 1;; attempt++) {
      try {
        return this.#connection.hold();
      } catch (error) {
        // Before the first sync the caller comes again; later a gap would cost the proof.
        if (!isError(error, "busy") || this.#reading === null || attempt === HOLD_TRIES) {
          if (this.#reading !== null) this.#reading.proven = false;
          throw error;
        }
      }
      await this.#context.pause(HOLD_PAUSE_MS);
    }
  }

  /** `gated`: writers are held off. */
  async #sync(gated: boolean): Promise<SyncResult> {
    for (let attempt = 1;; attempt++) {
      try {
        return await this.#syncOnce(gated);
      } catch (error) {
        if (!isLogMoved(error) || attempt === READ_TRIES) throw error;
      }
    }
  }

  async #syncOnce(gated: boolean): Promise<SyncResult> {
    const context = this.#context;
    context.throwIfAborted();
    this.#hasReadAll = false;
    const dataVersion = this.#connection.dataVersion(); // before the log is read
    const former = this.#reading;
    if (
      former !== null && context.wanted === null && !former.more && dataVersion === former.dataVersion
    ) {
      this.#hasReadAll = true;
      await this.#notes.file(former);
      return context.unchanged;
    }
    const log = this.#connection.openLog();
    this.#frames = log === null ? null : this.#connection.logFrames(); // after its header, before its frames
    try {
      this.#fileBytes = log?.sizeBytes ?? 0;
      if (former === null) this.#logInode = log?.inode ?? null;
      const reading = this.#reading ??= firstReading(context, this.#connection, this.#notes);
      const decision = former === null
        ? decideFirst(context, this.#connection, this.#notes, reading, log)
        : decideWithLog(former, log);
      if (former === null) {
        const fresh = context.local.newest === null && this.#notes.current() === null;
        if (fresh && decision.kind === "wait") await this.#notes.baseline(reading);
        context.step("verified");
      }
      const wanted = context.wanted ?? (decision.kind === "snapshot" ? decision.reason : null);
      const result = await this.#follow(reading, decision, wanted, log, gated);
      if (!reading.more && log?.header !== "torn") {
        this.#hasReadAll = reading.proven = true;
        reading.dataVersion = dataVersion;
      }
      await this.#notes.file(reading);
      return result;
    } catch (error) {
      if (former === null) this.#reading = null; // nothing was verified: the next try begins again
      throw error;
    } finally {
      if (log !== null) closeFd(log.fd);
    }
  }

  async #follow(
    reading: Reading,
    decision: Decision,
    wanted: SnapshotReason | null,
    log: OpenLog | null,
    gated: boolean,
  ): Promise<SyncResult> {
    const header = log === null || typeof log.header === "string" ? null : log.header;
    if (wanted !== null) return await this.#snapshot(reading, wanted, log, header, gated);
    if (decision.kind === "wait" || log === null || header === null) return this.#nothing(reading);
    const from = decision.kind === "continue" ? reading.position : logStart(header);
    if (from === null) return this.#nothing(reading);
    const scan = this.#ahead.scan(log.fd, header, from);
    if (scan?.more !== true && this.#unread(log, header, scan?.end.offset ?? from.offset)) {
      return await this.#snapshotPastLog(reading, log, header, gated);
    }
    if (scan === null) return this.#nothing(reading);
    this.#context.step("scanned");
    const wantedPages = changedPages(scan.pages, reading.commit, scan.commit, reading.pageSize);
    // A page that the database grew by and that is not in this part: what SQLite reads there is in an earlier part.
    const pages = wantedPages.every((pgno) => scan.pages.has(pgno)) ? scan.pages : new Map([
      ...scanWal(log.fd, header, logStart(header), scan.end.offset - WAL_HEADER_BYTES)?.pages ?? [],
      ...scan.pages,
    ]);
    return await this.#write(reading, { ...scan, pages }, from, log.fd, header, wantedPages, null);
  }

  #nothing(reading: Reading): SyncResult {
    reading.more = false;
    return this.#context.unchanged;
  }

  /** All pages: those that the log has up to its last commit, and the rest from the database. */
  async #snapshot(
    reading: Reading,
    reason: SnapshotReason,
    log: OpenLog | null,
    header: WalHeader | null,
    gated: boolean,
  ): Promise<SyncResult> {
    if (log !== null && header !== null) {
      const from = logStart(header);
      // Whole, without a bound: what others take into the database meanwhile must be in it.
      const scan = scanWal(log.fd, header, from, Infinity);
      if (this.#unread(log, header, scan?.end.offset ?? from.offset)) {
        return await this.#snapshotPastLog(reading, log, header, gated);
      }
      reading.pageSize = header.pageSize;
      const facts = this.#connection.header();
      const commit = scan?.commit ?? facts?.pages ?? 0;
      const found = scan ?? { end: from, commit, commits: 0, pages: new Map<number, number>(), more: false };
      this.#context.step("scanned");
      return await this.#write(
        reading,
        found,
        from,
        log.fd,
        header,
        allPages(commit, header.pageSize),
        reason,
      );
    }
    const facts = this.#connection.header();
    if (facts === null) return this.#context.unchanged; // emptied meanwhile
    this.#context.step("scanned");
    const database = new PageReader(this.#connection.fd, facts.pageSize);
    const pages = pagesOf(allPages(facts.pages, facts.pageSize), facts.pageSize, null, database);
    const { pageSize, pages: commit } = facts;
    // A log that begins meanwhile does not reach the database's file: a reader of ours that needs no log keeps it out.
    return await this.#context.write(
      this.#connection,
      { pageSize, commit, log: null, reason, commits: 0, more: false, position: null },
      pages,
      () => Object.assign(reading, { position: null, pageSize, commit, more: false }),
    );
  }

  /**
   * True when SQLite's index counts commits after `offset` whose sums do not hold. An old SQLite (3.40, not 3.50) writes
   * such a log when a transaction goes back to a savepoint after it was spilled; its own processes go by the index and
   * never notice. A log that begins anew meanwhile is no such case: the next sync reads that.
   */
  #unread(log: OpenLog, header: WalHeader, offset: number): boolean {
    if (this.#frames === null) return false;
    return offset < WAL_HEADER_BYTES + this.#frames * frameBytes(header.pageSize) &&
      logIsStill(log.fd, header);
  }

  /**
   * All pages, from the database alone: SQLite takes the whole log into it while nobody can write, whatever its sums.
   * Then the log is emptied: a recovery of it would undo a part. If we die before, the next start ends here again.
   */
  async #snapshotPastLog(
    reading: Reading,
    log: OpenLog,
    header: WalHeader,
    gated: boolean,
  ): Promise<SyncResult> {
    if (gated) throw logUnreadable("a checkpoint of ours is under way");
    this.#connection.leaveNext();
    await this.#withBusyRetries(() => this.#connection.closeGate());
    let result: SyncResult;
    try {
      if (!await this.#takeIn()) throw logUnreadable("a reader keeps the log from being taken in");
      // What follows goes on from the sums that the last frame says.
      const position = pointAfter(log.fd, header, this.#connection.logFrames() ?? 0);
      const facts = this.#connection.header();
      if (position === null || facts === null) throw logMoved();
      const { pageSize, pages: commit } = facts;
      const { offset, salt1, salt2 } = position;
      const file = { pageSize, commit, reason: "log-unreadable", commits: 0, more: false, position } as const;
      result = await this.#context.write(
        this.#connection,
        { ...file, log: { offset: WAL_HEADER_BYTES, size: offset - WAL_HEADER_BYTES, salt1, salt2 } },
        pagesOf(allPages(commit, pageSize), pageSize, null, new PageReader(this.#connection.fd, pageSize)),
        () => Object.assign(reading, { position, pageSize, commit, more: false, inDatabase: offset }),
      );
    } finally {
      this.#connection.openGate();
    }
    try {
      this.#cut();
    } catch (error) {
      if (!isError(error, "busy")) throw error; // the application checkpoints
    }
    return result;
  }

  async #write(
    reading: Reading,
    scan: WalScan,
    from: LogPoint,
    fd: number,
    header: WalHeader,
    wanted: Iterable<number>,
    reason: SnapshotReason | null,
  ): Promise<SyncResult> {
    const { salt1, salt2, pageSize } = header;
    const { commit, commits, more } = scan;
    const position: LogPoint = { ...scan.end, salt1, salt2 };
    const database = new PageReader(this.#connection.fd, pageSize);
    const pages = pagesOf(wanted, pageSize, { fd, pages: scan.pages }, database);
    const size = scan.end.offset - from.offset;
    const log = { offset: from.offset, size, salt1, salt2 };
    const beforeRename = () => {
      if (!logIsStill(fd, header)) throw logMoved();
    };
    return await this.#context.write(
      this.#connection,
      { pageSize, commit, log, reason, commits, more, position, beforeRename },
      pages,
      () => {
        const sameLog = reading.position?.salt1 === salt1 && reading.position?.salt2 === salt2;
        if (!sameLog) reading.inDatabase = WAL_HEADER_BYTES;
        Object.assign(reading, { position, pageSize, commit, more });
      },
    );
  }

  async #syncToEnd(gated: boolean): Promise<SyncResult> {
    let last = await this.#sync(gated);
    while (last.changed && last.more) last = await this.#sync(gated);
    return last;
  }

  /** A commit of ours that changes nothing, and its file. */
  async touch(): Promise<SyncResult> {
    await this.#hold();
    await this.#syncToEnd(false); // what the application committed before is a file of its own
    await this.#withBusyRetries(() => this.#connection.touch());
    if (this.#reading !== null) this.#reading.dataVersion = null;
    return await this.#syncToEnd(false);
  }

  async #withBusyRetries(action: () => void): Promise<void> {
    for (let attempt = 1;; attempt++) {
      try {
        return action();
      } catch (error) {
        if (!isError(error, "busy") || attempt === BARRIER_TRIES) throw error;
      }
      await this.#context.pause(BARRIER_PAUSE_MS);
    }
  }

  /** What was done; null: nothing to do. */
  async checkpointIfNeeded(): Promise<CheckpointKind | null> {
    const reading = this.#reading;
    if (reading === null) return null;
    const nowMs = this.#context.clock.monotonicMs();
    const kind = decideCheckpoint({
      pages: this.#pagesInLog(reading, reading.inDatabase),
      logPages: this.#pagesInLog(reading, WAL_HEADER_BYTES),
      fileBytes: this.#fileBytes,
      synced: reading.proven && !reading.more,
      sinceWholeMs: nowMs - this.#wholeAtMs,
      sinceAttemptMs: nowMs - this.#attemptAtMs,
      heldUp: this.#heldUp,
    }, this.#context.limits);
    if (kind === null) {
      if (this.#pagesInLog(reading, reading.inDatabase) === 0) this.#wholeAtMs = nowMs;
      return null;
    }
    this.#attemptAtMs = nowMs;
    const outcome = kind === "cut" ? (this.#cut() ? "whole" : "held-up") : await this.#checkpoint(kind);
    if (outcome === "held-up") this.#heldUp++;
    else this.#heldUp = 0;
    if (outcome === "whole") this.#wholeAtMs = nowMs;
    this.#checkpoints++;
    return kind;
  }

  #pagesInLog(reading: Reading, fromOffset: number): number {
    if (reading.position === null) return 0;
    return Math.max(0, reading.position.offset - fromOffset) / frameBytes(reading.pageSize);
  }

  /**
   * Most of the log is taken into the database beside the writers, as far as our reader sees it, which is no further
   * than we have read. Where they go on meanwhile it is never all of it, and the log never begins anew: so what they
   * have committed in that time is taken in while they wait.
   *
   * If we die at any point, the note still says how far we read: no local file is behind it.
   */
  async #checkpoint(kind: "reader" | "rest" | "barrier"): Promise<CheckpointOutcome> {
    if (kind !== "barrier") {
      const leftPages = this.#takeInSeen();
      if (leftPages === 0) {
        // Our reader comes again: now it needs no log, which then begins anew with the next commit.
        const { changed } = await this.#syncBesideWriters();
        if (!changed && this.#hasReadAll) return "whole";
      }
      if (leftPages > this.#context.limits.restPages) return "held-up";
      if (kind === "reader" || !this.#hasReadAll) return "most";
      syncFd(this.#connection.fd, pathBytes(this.#context.path)); // else SQLite does it while writers wait
    }
    return (await this.#takeInAll())?.whole === true ? "whole" : "held-up";
  }

  /**
   * While nobody can write, what is left of the log is read, and all of it is taken into the database. Nothing that was
   * not read is in the database then, so `decideLive` is right about the next log: the next commit begins it, over
   * frames that we have read. Null: the application is in a long transaction.
   */
  async #takeInAll(): Promise<{ readonly result: SyncResult; readonly whole: boolean } | null> {
    try {
      await this.#withBusyRetries(() => this.#connection.closeGate());
    } catch (error) {
      if (isError(error, "busy")) return null;
      throw error;
    }
    this.#context.step("gate");
    try {
      const result = await this.#syncToEnd(true);
      return { result, whole: await this.#takeIn() };
    } finally {
      this.#connection.openGate();
      this.#context.step("gate-opened");
    }
  }

  /** Beside our reader. Pages that are left in the log; Infinity where somebody else checkpoints. */
  #takeInSeen(): number {
    try {
      const { busy, log, checkpointed } = this.#noted(this.#connection.takeIn());
      this.#context.step("checkpointed");
      return busy ? Infinity : log - checkpointed;
    } catch (error) {
      if (isError(error, "busy")) return Infinity;
      throw error;
    }
  }

  /** In the place of our reader, behind the gate. True: nothing is left. */
  async #takeIn(): Promise<boolean> {
    this.#connection.release();
    this.#context.step("read-lock-dropped");
    try {
      const { busy, log, checkpointed } = this.#noted(this.#connection.takeIn());
      this.#context.step("checkpointed");
      return !busy && log === checkpointed;
    } catch (error) {
      if (isError(error, "busy")) return false; // the application checkpoints
      throw error;
    } finally {
      await this.#hold();
      this.#context.step("read-lock-taken");
    }
  }

  #noted(outcome: TakenIn): TakenIn {
    const { checkpointed } = outcome;
    const reading = this.#reading;
    if (reading !== null && checkpointed > 0) {
      reading.inDatabase = WAL_HEADER_BYTES + checkpointed * frameBytes(reading.pageSize);
    }
    return outcome;
  }

  /**
   * Empties the log's file. Safe without a barrier: our reader is in the database, and SQLite empties the log only if
   * nothing is in it that is newer than what that reader found in the database, see `decideLive`.
   */
  #cut(): boolean {
    const { busy } = this.#connection.cut();
    if (!busy) this.#fileBytes = 0;
    return !busy;
  }

  /**
   * Before the end: all of the log goes into the database while nobody can write, and the note says what the file was
   * then. If it is the same when we come back, all that was committed since is in the log, from its first frame on.
   * Where the application still writes, or reads, the note stays as it is, and the log must prove itself.
   */
  async leave(): Promise<void> {
    if (this.#reading === null) return;
    try {
      await this.#withBusyRetries(() => this.#connection.closeGate());
    } catch (error) {
      if (isError(error, "busy")) return;
      throw error;
    }
    this.#context.step("gate");
    try {
      await this.#syncToEnd(true);
      if (!await this.#takeIn()) return;
      await this.#context.pause(TIME_GRAIN_MS);
      await this.#notes.file(this.#reading);
      this.#context.step("sealed");
    } finally {
      this.#connection.openGate();
    }
  }
}
