/**
 * Follows one database of an application: every `sync` puts what was committed since the last one into a local L0
 * file, from which others carry it to the bucket. Runs in a child process; see follower_connection.ts for what that
 * process must never do. Calls are made one at a time, in the order in which they come.
 */

import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { ensureFolder } from "../platform/files.ts";
import { systemFiles } from "../platform/local_files.ts";
import { affectedSqlite } from "../platform/self.ts";
import type { CheckpointKind, SnapshotReason } from "./follow_rules.ts";
import { databaseIsThere, FollowerConnection } from "./follower_connection.ts";
import { FollowerContext } from "./follower_context.ts";
import { CopyFollower } from "./follower_copies.ts";
import { LogFollower } from "./follower_log.ts";
import type {
  FollowerLimits,
  FollowerOptions,
  FollowerState,
  FollowerStatus,
  LocalFile,
  SyncResult,
} from "./follower_types.ts";

export const DEFAULT_FOLLOWER_LIMITS: FollowerLimits = {
  // One file of this size is encoded in under a second, and uploaded before a lease's renewals suffer.
  syncBytes: 64 * 1024 * 1024,
  // SQLite's own: 4 MB of pages, which one checkpoint writes in some 10 ms.
  checkpointPages: 1000,
  // From there on each commit of the application would try a checkpoint of its own.
  barrierPages: 1000,
  // What a busy program commits in the time of one checkpoint.
  restPages: 250,
  // One megabyte that is taken in while writers wait.
  jointPages: 250,
  checkpointIntervalMs: 60_000,
  // The log is a second copy of what it holds, on the application's disk.
  walBytes: 512 * 1024 * 1024,
};

type Way = { readonly kind: "log"; readonly by: LogFollower } | {
  readonly kind: "copies";
  readonly by: CopyFollower;
};

export class Follower {
  readonly #options: FollowerOptions;
  readonly #context: FollowerContext;
  #state: FollowerState = "new";
  #connection: FollowerConnection | null = null;
  #way: Way | null = null;
  /** The database's mode, when it was last looked at. */
  #wal = false;
  /** The last of the calls, to come after. */
  #turn: Promise<unknown> = Promise.resolve();
  #failures = 0;
  /** A sync has found no database: one that is there now may still be in the making. */
  #wasAbsent = false;
  #error: StateManagerError | null = null;
  readonly #affectedSqlite = affectedSqlite();

  constructor(options: FollowerOptions) {
    this.#options = options;
    const limits = { ...DEFAULT_FOLLOWER_LIMITS, ...options.limits };
    this.#context = new FollowerContext(options, limits, options.files ?? systemFiles);
  }

  /** Looks at what is local; the database is opened by the first sync. */
  async start(): Promise<void> {
    await this.#exclusively(async () => {
      const { local, note, baseline, folder, files } = this.#context;
      await ensureFolder(folder, 0o700, files);
      await local.open();
      await note.load();
      const newest = local.newest?.header.maxTxid ?? 0;
      if (baseline !== null && newest < baseline) {
        // They led to the state before the restore. If we die here, what is left is older than the baseline, too.
        if (note.entry(baseline) === null) await note.clear();
        await local.clear();
      }
      this.#state = "absent";
    });
  }

  /**
   * Takes what was committed since the last time; of a database that is copied a change only once it has settled, unless
   * `now` is set. Errors: `busy`, `data-damaged`, `disk-full`, `local-io`, `cancelled`.
   */
  async sync(options: { readonly now?: boolean } = {}): Promise<SyncResult> {
    return await this.#exclusively(() => this.#counted(() => this.#sync(options.now)));
  }

  /** Commits nothing, as a transaction of its own: the next TXID, for a holder that must write one. */
  async touch(): Promise<SyncResult> {
    return await this.#exclusively(() =>
      this.#counted(async () => {
        const way = this.#ready();
        return way === null ? this.#context.unchanged : await way.by.touch();
      })
    );
  }

  /** Takes the log into the database when it is time; null when it is not. After a sync. */
  async checkpointIfNeeded(): Promise<CheckpointKind | null> {
    return await this.#exclusively(() =>
      this.#counted(async () => this.#way?.kind === "log" ? await this.#way.by.checkpointIfNeeded() : null)
    );
  }

  /**
   * The next file holds all pages. With `afterTxid`, of `afterMs`, it comes after that: up to there others have taken the
   * TXIDs.
   */
  requestSnapshot(afterTxid = 0, afterMs = 0): void {
    this.#context.skipTo(afterTxid, afterMs);
  }

  /** Local files that are whole and durable, ascending. */
  localFiles(): readonly LocalFile[] {
    return this.#context.local.list();
  }

  /** Removes local files up to and with `txid`; the newest stays. */
  async deleteUpTo(txid: number): Promise<void> {
    await this.#exclusively(() => this.#context.local.deleteUpTo(txid));
  }

  /**
   * The last sync, then lets go of the database: call it when the application has ended. It lets go even where the
   * sync fails, and then throws. Gives the newest local TXID.
   */
  async close(): Promise<number | null> {
    return await this.#exclusively(async () => {
      if (this.#state === "closed" || this.#state === "new") return this.#context.txid;
      try {
        await this.#counted(async () => {
          for (let more = true; more;) {
            const result = await this.#sync(true);
            more = result.changed && result.more;
          }
          if (this.#way?.kind === "log") await this.#way.by.leave();
        });
        return this.#context.txid;
      } finally {
        this.#disconnect();
        this.#state = "closed";
        this.#context.step("disconnected");
      }
    });
  }

  /** Lets go of the database as a kill would, without a last sync. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turn.catch(() => {});
    this.#disconnect();
    this.#state = "closed";
  }

  get status(): FollowerStatus {
    const { local, lastSnapshot, snapshots, txid } = this.#context;
    const log = this.#way?.kind === "log" ? this.#way.by : null;
    const error = this.#error;
    return {
      state: this.#state,
      txid,
      error: error === null ? null : { code: error.code, message: error.message, hint: error.hint ?? null },
      failures: this.#failures,
      warnings: this.#warnings(log),
      journal: this.#way === null ? null : this.#wal ? "wal" : "rollback",
      pageSize: this.#way?.by.pageSize ?? null,
      databasePages: this.#way?.by.databasePages ?? null,
      walBytes: log?.walBytes ?? 0,
      walFileBytes: log?.walFileBytes ?? 0,
      walOverLimit: log?.walOverLimit ?? false,
      lastSnapshot,
      localBytes: local.totalBytes,
      localFiles: local.count,
      checkpoints: log?.checkpoints ?? 0,
      snapshots,
    };
  }

  #warnings(log: LogFollower | null): string[] {
    const warnings: string[] = [];
    if (this.#affectedSqlite !== null) {
      warnings.push(
        `SQLite ${this.#affectedSqlite} can damage a WAL database at a restart of its log: use a newer runtime`,
      );
    }
    if (this.#way?.kind === "copies" && this.#options.journal !== "snapshot") {
      warnings.push(
        `${this.#options.path} is not in WAL mode and is copied after each change: set journal to "convert", or run PRAGMA journal_mode=WAL`,
      );
    }
    if (log?.walOverLimit) {
      warnings.push(
        `the log of ${this.#options.path} is over its limit: a reader of the program keeps it from being taken in`,
      );
    }
    return warnings;
  }

  async #sync(now = false): Promise<SyncResult> {
    this.#context.throwIfAborted();
    await this.#context.local.makeDurable(); // where it failed the last time
    const way = this.#ready();
    if (way === null) return this.#context.unchanged;
    if (way.kind === "copies") return await way.by.sync(now);
    try {
      return await way.by.sync();
    } catch (error) {
      // Not read yet: the next try opens it anew, since what is held open now may be what stands in the way.
      if (way.by.pageSize === null) this.#disconnect();
      throw error;
    }
  }

  /** Opens what there is; null while there is no database. */
  #ready(): Way | null {
    if (this.#state === "new" || this.#state === "closed") {
      throw new StateManagerError("wrong-state", `follow ${this.#options.path}: ${this.#state}`);
    }
    this.#look();
    if (this.#way !== null) return this.#way;
    if (!databaseIsThere(this.#options.path)) return this.#gone();
    const connection = new FollowerConnection(this.#options.path);
    this.#connection = connection;
    try {
      const wal = this.#modeOf(connection);
      if (wal === null) {
        this.#disconnect();
        return this.#gone();
      }
      if (wal) connection.connect();
      this.#way = wal
        ? { kind: "log", by: new LogFollower(this.#context, connection) }
        : { kind: "copies", by: new CopyFollower(this.#context, connection, !this.#wasAbsent) };
      this.#state = wal ? "following" : "copying";
      this.#context.step("connected");
      return this.#way;
    } catch (error) {
      this.#disconnect();
      throw error;
    }
  }

  #gone(): null {
    this.#wasAbsent = true;
    this.#state = "absent";
    return null;
  }

  /** True: by its log. Null: not a database yet. */
  #modeOf(connection: FollowerConnection): boolean | null {
    const header = connection.header();
    if (header === null) {
      if (connection.stat().size < 512) return null; // its first page is being written
      throw new StateManagerError("data-damaged", `follow ${this.#options.path}: it is no SQLite database`, {
        hint: "name the database's file; an encrypted database cannot be followed",
      });
    }
    this.#wal = header.wal;
    if (this.#options.journal === "snapshot") {
      connection.connect();
      return false;
    }
    if (header.wal) return true;
    if (this.#options.journal !== "convert") return false;
    connection.connect();
    if (!connection.convertToWal()) return false; // tried again at each sync
    this.#wal = true;
    this.#context.wanted ??= "mode-changed"; // the change itself was written past any log
    return true;
  }

  /** Lets go of a database that is not the one by that name any more, or is read in the wrong way. */
  #look(): void {
    const connection = this.#connection;
    const way = this.#way;
    if (connection === null || way === null) return;
    let reason: SnapshotReason | null = null;
    if (connection.replaced()) reason = "database-replaced";
    else if (way.kind === "log" && way.by.logReplaced()) reason = "log-replaced";
    else {
      const wal = this.#wal = connection.header()?.wal === true;
      if (this.#options.journal === "snapshot") return;
      if (wal !== (way.kind === "log")) reason = "mode-changed";
      else if (!wal && this.#options.journal === "convert") {
        connection.connect();
        if (connection.convertToWal()) reason = "mode-changed";
      }
    }
    if (reason === null) return;
    this.#disconnect();
    this.#context.wanted ??= reason;
  }

  #disconnect(): void {
    this.#way = null;
    const connection = this.#connection;
    this.#connection = null;
    connection?.close();
  }

  async #counted<T>(call: () => Promise<T>): Promise<T> {
    try {
      const result = await call();
      this.#failures = 0;
      this.#error = null;
      return result;
    } catch (error) {
      this.#failures++;
      this.#error = asStateManagerError(error);
      throw this.#error;
    }
  }

  #exclusively<T>(call: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(call, call);
    this.#turn = turn.catch(() => {});
    return turn;
  }
}
