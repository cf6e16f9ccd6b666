/**
 * What the manager and its follower child (`__follow`) say to each other: JSON lines over the child's stdin and stdout.
 * In: one `follow`, then commands; those with an `id` are answered once, in any order. Out: one `hello`, then anything.
 * Both are the same program, as a rule the same build; after an upgrade in place the child may be newer, so the number
 * of the protocol decides.
 */

import type { WireError } from "../platform/wire_error.ts";
import type { WireCredentials, WireStore } from "../storage/mod.ts";

/** Grows when a line changes its meaning. */
export const FOLLOW_PROTOCOL = 1;
/** The settings or the status of some ten thousand databases. */
export const FOLLOW_LINE_LIMIT_BYTES = 8 * 1024 * 1024;
/** The child says at least this often that it lives, also when nothing changes. */
export const ALIVE_INTERVAL_MS = 2_000;

/** follow: WAL as it is found, snapshots while it is in rollback mode. convert: set WAL. snapshot: never follow. */
export type FollowJournal = "follow" | "convert" | "snapshot";

export interface FollowSettings {
  readonly journal: FollowJournal;
  /** A commit is captured and on its way to the store within this. */
  readonly syncIntervalMs: number;
  readonly snapshotIntervalMs: number;
  readonly retentionMs: number;
}

export interface FollowedDatabase extends FollowSettings {
  /** Also its place in the store: `databases/<name>/…`. A file of a folder is `<folder's name>/<file name>`. */
  readonly name: string;
  /** Absolute. The file may come later. */
  readonly path: string;
  /**
   * The file is exactly the state at this TXID and has no WAL: it was just restored, and nothing has opened it since.
   * Null: its local L0 files prove where it stands, or a snapshot is taken.
   */
  readonly baseline: number | null;
  /** With a baseline: when that commit was made, wall clock. */
  readonly afterMs?: number;
  /** TXIDs of kept checkpoints: retention keeps a path to each. */
  readonly pins: readonly number[];
}

/** A folder whose SQLite files are followed as they come. Those in `databases` already are left to their entry there. */
export interface FollowedFolder extends FollowSettings {
  readonly name: string;
  readonly folder: string;
  /** Of file names; `*` stands for any characters, `?` for one. */
  readonly pattern: string;
  /** By file name, for files of the folder that come only now. */
  readonly pins: Readonly<Record<string, readonly number[]>>;
}

export interface FollowRequest {
  readonly type: "follow";
  readonly protocol: number;
  readonly store: WireStore;
  /** Fencing token of the lease: it is in every file that is sent. */
  readonly token: number;
  /** The manager's data folder, absolute. */
  readonly dataFolder: string;
  readonly databases: readonly FollowedDatabase[];
  readonly folders: readonly FollowedFolder[];
  /** Files of folders that were removed: left alone until they are added. */
  readonly removed: readonly string[];
  /** As in `deadline`. */
  readonly deadlineBootMs: number | null;
  /** By name, where a child before this one was behind or died: CLOCK_BOOTTIME since when commits may not be durable. */
  readonly behind: Readonly<Record<string, number>>;
}

/** Commands that are answered. */
export type FollowQuestion =
  /** Barrier: what was committed in `name` before the call is durable. Answered with `SyncAnswer`. */
  | { readonly type: "sync"; readonly id: number; readonly name: string }
  /** Barrier for each database; answered with `Positions`. */
  | { readonly type: "position"; readonly id: number }
  /** Each database gets a TXID of this term, before programs start. Answered with `Positions`. */
  | { readonly type: "seal"; readonly id: number }
  /** Programs are stopped: last sync, upload, close. Answered with `Positions`; nothing is followed any more. */
  | { readonly type: "finish"; readonly id: number }
  /** Stops following one database, without a last sync, until it is added; its local files stay. Answered with null. */
  | { readonly type: "remove"; readonly id: number; readonly name: string };

export type FollowCommand =
  | FollowQuestion
  /** Nothing is sent after this moment of CLOCK_BOOTTIME, until a later one is told. Null: nothing is sent. */
  | { readonly type: "deadline"; readonly bootMs: number | null }
  /** `pins`: of kept checkpoints, for each name given. `wanted`: what a restore is on its way to, in place of all before. */
  | {
    readonly type: "pins";
    readonly pins: Readonly<Record<string, readonly number[]>>;
    readonly wanted: Readonly<Record<string, number>>;
  }
  | { readonly type: "add"; readonly database: FollowedDatabase }
  | { readonly type: "credentials"; readonly credentials: WireCredentials };

export type FollowInput = FollowRequest | FollowCommand;

export interface SyncAnswer {
  readonly txid: number;
}

export interface Positions {
  /** Durable. A database whose file is not there yet has none. */
  readonly positions: Readonly<Record<string, number>>;
  /** Databases that cannot be followed as they are (not a database, in exclusive use); trying again would not help. */
  readonly failures: Readonly<Record<string, WireError>>;
  /**
   * Where a former holder's last commit was found in the slot of our seal, its TXID: it counts. The database is left
   * alone until it has been removed, restored to that TXID and added again with it as the baseline; then seal again.
   */
  readonly absorbed: Readonly<Record<string, number>>;
}

/**
 * waiting: the file is not there. proving: its position is being found. following: by its WAL. copying: by whole
 * copies, since it has no WAL. failing: the last try failed, it is tried again. absorbed: see `Positions`. finished:
 * closed after its last sync.
 */
export type DatabaseState =
  | "waiting"
  | "proving"
  | "following"
  | "copying"
  | "failing"
  | "absorbed"
  | "finished";

/** Of this child's life. */
export interface DatabaseCounts {
  /** L0 files made. */
  readonly syncs: number;
  /** Of these, with all pages. */
  readonly snapshots: number;
  /** SQLite checkpoints that we ran. */
  readonly checkpoints: number;
  readonly compactions: number;
  /** To the store, every single try. */
  readonly requests: number;
  readonly sentBytes: number;
  readonly errors: number;
}

export interface DatabaseStatus {
  readonly name: string;
  readonly path: string;
  readonly state: DatabaseState;
  readonly journalMode: "wal" | "rollback" | null;
  /** Captured in a local file; 0 for none. */
  readonly txid: number;
  /** Known to be in the store; 0 for none. */
  readonly durableTxid: number;
  /** CLOCK_BOOTTIME since when there is, or may be, a commit that is not durable; null when all is. */
  readonly behindSinceBootMs: number | null;
  readonly walBytes: number;
  /** Captured and not yet durable. */
  readonly waitingFiles: number;
  readonly waitingBytes: number;
  /** Wall clock, for people. */
  readonly lastDurableMs: number | null;
  readonly lastError: (WireError & { readonly atMs: number }) | null;
  /** Newest in the store that a restore can begin with. */
  readonly lastSnapshot: { readonly txid: number; readonly atMs: number } | null;
  readonly counts: DatabaseCounts;
}

/** Something that happened, for the log and the history. */
export interface FollowEvent {
  readonly level: "debug" | "info" | "warn" | "error";
  /** found: in a folder. recovered: works again after errors. The others speak for themselves. */
  readonly kind: "found" | "snapshot" | "failed" | "recovered" | "converted" | "slow-down" | "warning";
  readonly name: string | null;
  readonly message: string;
  readonly hint: string | null;
}

export type FollowReply =
  | { readonly type: "hello"; readonly protocol: number; readonly build: string }
  | { readonly type: "alive" }
  /** Only those that changed, and the names of those that are gone. */
  | {
    readonly type: "status";
    readonly databases: readonly DatabaseStatus[];
    readonly gone: readonly string[];
  }
  | {
    readonly type: "answer";
    readonly id: number;
    readonly result: unknown;
    readonly error: WireError | null;
  }
  /** A larger token was seen: the lease is another's, whatever the manager believes. Nothing is sent any more. */
  | { readonly type: "fenced"; readonly name: string; readonly error: WireError }
  | { readonly type: "event"; readonly event: FollowEvent };

export const NO_COUNTS: DatabaseCounts = {
  syncs: 0,
  snapshots: 0,
  checkpoints: 0,
  compactions: 0,
  requests: 0,
  sentBytes: 0,
  errors: 0,
};

export function addCounts(a: DatabaseCounts, b: DatabaseCounts): DatabaseCounts {
  return {
    syncs: a.syncs + b.syncs,
    snapshots: a.snapshots + b.snapshots,
    checkpoints: a.checkpoints + b.checkpoints,
    compactions: a.compactions + b.compactions,
    requests: a.requests + b.requests,
    sentBytes: a.sentBytes + b.sentBytes,
    errors: a.errors + b.errors,
  };
}
