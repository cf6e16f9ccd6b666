/** What the HTTP server and the command line may ask of the manager. The manager implements it; tests bring fakes. */

import type {
  CheckpointNotes,
  CollectReport,
  DiffResult,
  FolderListing,
  Kept,
  PlannedRoot,
  RepairResult,
  SpeedFigures,
  VerifyLevel,
  VerifyResult,
} from "../checkpoint/mod.ts";
import type { ArchiveProgress, ArchiveTotals, CheckpointRecord, FileWarning } from "../checkpoint/types.ts";
import type { StoreCredentials } from "../config/mod.ts";
import type { TokenConfig } from "../config/types.ts";
import type { FollowedStatus } from "../database/mod.ts";
import type { LeaseStatus } from "../lease/types.ts";
import type { Secret } from "../platform/secret.ts";
import type { CrashFiles, ProcessLogs } from "../supervisor/mod.ts";
import type { ProcessStatus } from "../supervisor/types.ts";
import type { CredentialsResult } from "./credential_change.ts";
import type { EventSource } from "./event_hub.ts";
import type { ProcessControl } from "./process_control.ts";
import type { StorageGrowth, StorageUsage } from "./storage_meter.ts";

export type ManagerState =
  | "unconfigured"
  | "waiting"
  | "restoring"
  | "starting"
  | "running"
  | "frozen"
  | "stopping"
  | "released"
  | "fenced"
  | "failed";

/** `GET /`. Names are public (docs/operations.md); times are RFC 3339, durations seconds. */
export interface ManagerStatus {
  readonly state: ManagerState;
  /** Why, where it is not plain: waiting for whom, failed with what. */
  readonly reason: string | null;
  readonly version: string;
  readonly build: string;
  readonly name: string | null;
  readonly repo_id: string | null;
  readonly holder: string;
  readonly pid: number;
  readonly started: string;
  readonly uptime_seconds: number;
  readonly storage: {
    readonly description: string;
    readonly key_prefix: string;
    /** Checkpoints are; replicated databases never are. */
    readonly encrypted: boolean;
  } | null;
  readonly lease: LeaseStatus | null;
  readonly processes: readonly ProcessStatus[];
  readonly files: readonly {
    readonly name: string;
    readonly path: string;
    /** What the start decided: restored, kept, adopted, empty, moved-aside. */
    readonly origin: string | null;
    readonly checkpoint: string | null;
  }[];
  readonly databases: readonly DatabaseInfo[];
  readonly checkpoint: {
    readonly current: CheckpointRecord | null;
    readonly last_finished: string | null;
    readonly last_error: string | null;
    readonly running: boolean;
    /** Until it is durable; null: none is under way, or it has not begun to look at files. */
    readonly in_progress: (CheckpointInProgress & { readonly progress: CheckpointProgress | null }) | null;
    readonly next: string | null;
    readonly verify: VerifyStatus;
  };
  /** Things an operator should know: affected SQLite, no lease, budgets that conflict, … */
  readonly warnings: readonly string[];
}

/** Part of `GET /`: names are public. */
export interface VerifyStatus {
  readonly running: boolean;
  /** When the next one by schedule is due; null: none is. */
  readonly next: string | null;
  /** The last one of all checkpoints, whoever asked for it. */
  readonly last: VerifySummary | null;
}

export interface VerifySummary {
  readonly time: string;
  /** damaged: something is missing or damaged. not-run: it could not be carried out. */
  readonly outcome: "passed" | "damaged" | "not-run";
  /** Null: all. */
  readonly checkpoint: string | null;
  readonly level: VerifyLevel;
  readonly percent: number;
  readonly packs: number;
  readonly packs_read: number;
  /** Since when every pack was read at least once; null: not yet. */
  readonly all_read_since: string | null;
  /** Missing or damaged objects, and the first of their keys. */
  readonly damaged: number;
  readonly objects: readonly string[];
  readonly duration_seconds: number;
  readonly error: string | null;
}

export interface FolderWish {
  /** `<files root>/<path in it>`; empty: the files roots. */
  readonly path: string;
  readonly recursive: boolean;
  readonly skip: number;
  readonly limit: number;
}

export interface DiffWish {
  /** Id, ordinal as text, or "latest". */
  readonly before: string;
  readonly after: string;
  readonly skip: number;
  readonly limit: number;
}

export interface RepairWish {
  /** Read every pack: also damage inside of packs that look right is found. */
  readonly readPacks: boolean;
  /** Say what would be done; nothing is written. */
  readonly dryRun: boolean;
}

export type RepairOutcome = RepairResult & {
  /** It has read all files, and stored again what was lost of them; null: nothing was wrong. */
  readonly checkpoint: CheckpointRecord | null;
};

export interface VerifyWish {
  /** Id, ordinal as text, or "latest"; null: all. */
  readonly checkpoint: string | null;
  readonly level: VerifyLevel;
  /** Of the packs, at level 3. */
  readonly percent: number;
}

/** A database that the configuration names, or that one of its patterns found. */
export interface DatabaseInfo {
  readonly name: string;
  readonly path: string;
  /** What the start decided: restored, kept, adopted, empty, moved-aside. */
  readonly origin: string | null;
  /** Null until it is followed for the first time in this run. */
  readonly followed: FollowedStatus | null;
  readonly lastDrill: DrillInfo | null;
}

/** A restore to scratch with an integrity check. */
export interface DrillInfo {
  readonly atMs: number;
  /** failed: what is in the bucket is not a sound database. not-run: it could not be tried. */
  readonly outcome: "passed" | "failed" | "not-run";
  readonly txid: number | null;
  readonly durationMs: number;
  readonly error: string | null;
}

export interface RestorePoint {
  readonly txid: number;
  readonly timeMs: number | null;
}

export interface RestorePointsQuery {
  /** Only those after this TXID; 0: from the oldest on. */
  readonly afterTxid: number;
  readonly limit: number;
}

export interface RestorePoints {
  /** Oldest first. */
  readonly points: readonly RestorePoint[];
  /** Give as `afterTxid` for the next page; null on the last one. */
  readonly nextAfter: number | null;
}

/** capturing: its content is not fixed yet. local: it is, but not all of it is in the bucket. */
export interface CheckpointInProgress {
  readonly id: string;
  readonly kind: CheckpointRecord["kind"];
  readonly state: "capturing" | "local";
}

/** Names are public. */
export interface CheckpointProgress extends SpeedFigures {
  readonly phase: ArchiveProgress["phase"];
  readonly entries: number;
  readonly bytes: number;
  readonly total_bytes: number | null;
}

export interface CheckpointRequest {
  readonly comment: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface CheckpointResult {
  readonly checkpoint: CheckpointRecord;
  readonly totals: ArchiveTotals;
  readonly warnings: readonly FileWarning[];
  /** True when nothing had changed: `checkpoint` is the current one and nothing was written. */
  readonly unchanged: boolean;
}

export interface RestoreRequest {
  /**
   * Exactly one of these: a checkpoint (id, ordinal as text, or "latest"), a wall time in milliseconds, or a TXID of the
   * one database that `databases` names.
   */
  readonly target:
    | { readonly checkpoint: string }
    | { readonly atMs: number }
    | { readonly txid: number };
  /** Names of files roots and of databases; both null: all that the checkpoint holds; one of them null: none of these. */
  readonly files: readonly string[] | null;
  readonly databases: readonly string[] | null;
  /** Byte texts: of the one files root that is meant only what is at and below these paths; null: all of it. */
  readonly paths: readonly string[] | null;
  /** By time: the databases too come from the checkpoint, not from their own newest state not after it. */
  readonly consistent: boolean;
  readonly dryRun: boolean;
  /** Make a safety checkpoint first (default true). */
  readonly safety: boolean;
}

export interface RestoreResult {
  /** The checkpoint whose content was brought back; null for a dry run of databases where there is none yet. */
  readonly source: CheckpointRecord | null;
  /** The new current checkpoint; null for a dry run. */
  readonly checkpoint: CheckpointRecord | null;
  readonly safety: CheckpointRecord | null;
  readonly files: readonly string[];
  /** Databases with the TXIDs whose content they got back. */
  readonly databases: Readonly<Record<string, number>>;
  /** For a dry run: what would be fetched; else what was. */
  readonly totals: ArchiveTotals | null;
  /** For a dry run: what would change in each files root; else null. */
  readonly plan: readonly PlannedRoot[] | null;
  readonly warnings: readonly FileWarning[];
}

export interface PruneResult {
  /** Nothing was changed; what is told would have been done. */
  readonly dryRun: boolean;
  /** Every checkpoint that was listed, newest first, with why it stays; without a reason it goes. */
  readonly plan: readonly Kept[];
  /** Those that left the list, oldest first. */
  readonly forgotten: readonly CheckpointRecord[];
  /** What was found in the store; null where nobody looked. */
  readonly report: CollectReport | null;
  /** Packs, index and root objects that were deleted. */
  readonly deletedObjects: number;
  /** Those that are to be deleted when nobody can be reading them any more. */
  readonly waitingObjects: number;
}

export interface HealthCheck {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

/** Long work: aborting `signal` cancels it; `onProgress` hears at most ten times a second. */
export interface LongWork {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: ArchiveProgress) => void;
  /** Called once when the content is fixed but not yet durable. */
  readonly onCaptured?: (id: string) => void;
}

/** Rules of "Who may call" that follow from the configuration in force. */
export interface AccessRules {
  readonly tokens: readonly TokenConfig[];
  /** One-time set-up token of an unconfigured manager that listens beyond loopback; null else. */
  readonly setupToken: Secret | null;
  readonly behindTlsProxy: boolean;
}

export interface Control extends ProcessControl {
  status(): ManagerStatus;
  /** Redacted, in the contract's snake_case; null while unconfigured. */
  configuration(): Record<string, unknown> | null;
  /** `POST /config` with a parsed JSON body: validate, probe, persist, start. Resolves once persisted. */
  configure(body: unknown): Promise<ManagerStatus>;
  /** `busy` when another one runs. Rejects unless it is durable. */
  checkpoint(
    request: CheckpointRequest,
    work?: LongWork,
  ): Promise<CheckpointResult>;
  checkpoints(): Promise<readonly CheckpointRecord[]>;
  /** `busy` when another one runs. What is damaged is in the result. */
  verify(request: VerifyWish, work?: LongWork): Promise<VerifyResult>;
  /** Makes lost or damaged indexes anew from the packs. `busy` while a checkpoint is made or pruned. */
  repair(request: RepairWish, work?: LongWork): Promise<RepairOutcome>;
  /** Takes one off the list; what only it needed goes with the next prune. */
  deleteCheckpoint(reference: string, options: { readonly force: boolean }): Promise<CheckpointRecord>;
  /** Comment, labels, pin. Gives the record as it is then. */
  annotateCheckpoint(reference: string, notes: CheckpointNotes): Promise<CheckpointRecord>;
  /** What is in a folder of a checkpoint; `overloaded` when too many look at the same time. */
  checkpointFiles(reference: string, wish: FolderWish, signal?: AbortSignal): Promise<FolderListing>;
  /** What differs between two checkpoints. */
  diffCheckpoints(wish: DiffWish, signal?: AbortSignal): Promise<DiffResult>;
  /** By the keep rules. `busy` while a checkpoint is made; one that is asked for ends it. */
  prune(request: { readonly dryRun: boolean }, work?: LongWork): Promise<PruneResult>;
  restore(request: RestoreRequest, work?: LongWork): Promise<RestoreResult>;
  /** Resolves with the durable TXID when all that was committed before the call is in the bucket. */
  syncDatabase(name: string, signal?: AbortSignal): Promise<{ readonly txid: number }>;
  restorePoints(name: string, query: RestorePointsQuery, signal?: AbortSignal): Promise<RestorePoints>;
  releaseLease(): Promise<ManagerStatus>;
  acquireLease(): Promise<ManagerStatus>;
  health(): {
    readonly live: readonly HealthCheck[];
    readonly started: readonly HealthCheck[];
    readonly ready: readonly HealthCheck[];
  };
  access(): AccessRules;
  /** Output of the processes: what is kept, and what comes. */
  readonly logs: ProcessLogs;
  readonly crashes: CrashFiles;
  /** Proven, kept where the old ones are, and used from then on. */
  replaceCredentials(next: StoreCredentials): Promise<CredentialsResult>;
  /** How much is in the store. Lists all of it when `refresh` is asked for, or what is known is old. */
  storage(wish: { readonly refresh: boolean }): Promise<
    { readonly usage: StorageUsage; readonly growth: StorageGrowth | null }
  >;
  /** What happens, and what happened. */
  readonly events: EventSource;
}
