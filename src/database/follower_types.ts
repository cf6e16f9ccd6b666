/** What the host of a follower gives it and gets from it. */

import type { Clock } from "../platform/clock.ts";
import type { ErrorCode } from "../platform/errors.ts";
import type { LocalFiles } from "../platform/local_files.ts";
import type { SnapshotReason } from "./follow_rules.ts";

/**
 * What becomes of a database that is in rollback-journal mode. "follow": taken by copies until it is in WAL mode, with
 * a warning. "convert": set to WAL mode as soon as nobody holds it. "snapshot": always by copies, in any mode.
 */
export type JournalChoice = "follow" | "convert" | "snapshot";

/** Points at which a test kills the process; in the order of one sync, one checkpoint, one close. */
export type FollowerStep =
  | "connected"
  | "verified"
  | "scanned"
  | "encoded"
  | "file-synced"
  | "position-written"
  | "renamed"
  | "folder-synced"
  | "copied"
  | "read"
  | "gate"
  | "read-lock-dropped"
  | "checkpointed"
  | "read-lock-taken"
  | "gate-opened"
  | "sealed"
  | "disconnected";

/** Each bound with its reason in follower.ts, where the defaults are. */
export interface FollowerLimits {
  /** Log bytes that one sync takes at most, cut at a commit; one larger transaction is taken whole. */
  readonly syncBytes: number;
  /** Pages in the log from which it is checkpointed. */
  readonly checkpointPages: number;
  /** Pages in the log from its first frame on from which writers are held off for a moment, so that it begins anew. */
  readonly barrierPages: number;
  /** With more pages than this left, something of the application is in the way, and writers are not held off at once. */
  readonly restPages: number;
  /** With at most so many different pages left the checkpoint is made together with the sync before it. */
  readonly jointPages: number;
  /** A log with anything in it is checkpointed after so long. */
  readonly checkpointIntervalMs: number;
  /** Size of the log file from which it is cut, once all of it is in the database; above it, the status says so. */
  readonly walBytes: number;
}

export interface FollowerOptions {
  /** The application's database. It need not be there yet. */
  readonly path: string;
  /**
   * Of this database alone, `<data dir>/databases/<name>`. The follower keeps `ltx/0/<txid>-<txid>.ltx`,
   * `position.json` and, for a database that is not in WAL mode, `copy-<txid>.db` in it.
   */
  readonly folder: string;
  readonly clock: Clock;
  /**
   * TXID whose state the file holds after a restore, when nobody has opened it since: it is followed from there
   * without a snapshot. Null: not known. Local files at or after it win (this is the restart of a child in the same
   * run); older ones are of no use and are removed. A restore to an earlier point must clear `folder`.
   */
  readonly baseline: number | null;
  /** Wall clock: when the newest commit was made that comes before all of this. New ones are later, whatever the clock says. */
  readonly afterMs?: number;
  /** The fencing token of the term, in every LTX header. */
  readonly token: number;
  readonly journal: JournalChoice;
  readonly limits?: Partial<FollowerLimits>;
  readonly files?: LocalFiles;
  /** Ends waits for locks and the encoding of a large file; what is under way is left as a crash would leave it. */
  readonly signal?: AbortSignal;
  /** Called at each step; it may throw or kill the process. */
  readonly onStep?: (step: FollowerStep) => void;
}

export type SyncResult =
  | {
    readonly changed: false;
    /** Newest local TXID; null before the first. */
    readonly txid: number | null;
    /** A copied database has changed, and is taken when its changes have settled: look again. */
    readonly unsettled?: true;
  }
  | {
    readonly changed: true;
    readonly txid: number;
    /** Commits of the application (and ours) that this file holds; 0 where that is not known. */
    readonly commits: number;
    /** Size of the new L0 file. */
    readonly sizeBytes: number;
    /** Why it holds all pages; null: an increment. */
    readonly snapshot: SnapshotReason | null;
    /** There is more in the log: call again at once. */
    readonly more: boolean;
  };

/** absent: no database yet. following: its log is read. copying: not in WAL mode (or by choice), taken by copies. */
export type FollowerState = "new" | "absent" | "following" | "copying" | "closed";

export interface FollowerStatus {
  readonly state: FollowerState;
  /** Newest local TXID. */
  readonly txid: number | null;
  /** The last error of sync or checkpoint, until one works: `state` says what it was doing. */
  readonly error: { readonly code: ErrorCode; readonly message: string; readonly hint: string | null } | null;
  /** Failed calls in a row; `retryDelayMs` (follow_rules.ts) says how long to wait. */
  readonly failures: number;
  /** Warnings that hold now, for people. */
  readonly warnings: readonly string[];
  readonly journal: "wal" | "rollback" | null;
  readonly pageSize: number | null;
  readonly databasePages: number | null;
  /** Bytes of the log that hold commits. */
  readonly walBytes: number;
  /** Size of the log's file. */
  readonly walFileBytes: number;
  /** The log is larger than its limit and cannot be taken into the database: a reader of the application holds it. */
  readonly walOverLimit: boolean;
  readonly lastSnapshot: { readonly txid: number; readonly reason: SnapshotReason } | null;
  /** Of all local L0 files. */
  readonly localBytes: number;
  readonly localFiles: number;
  readonly checkpoints: number;
  readonly snapshots: number;
}

/** One L0 file on this disk. */
export interface LocalFile {
  readonly txid: number;
  readonly path: string;
  readonly sizeBytes: number;
}
