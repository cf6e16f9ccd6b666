/** What is asked of a restore, what it needs, and what it tells. */

import type { Clock } from "../platform/clock.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { ReplicaPlace } from "./replica_layout.ts";
import type { ReplicaFile } from "./replica_listing.ts";
import type { CheckMode, CheckResult } from "./restore_check.ts";
import type { FileOwner } from "./restore_file.ts";
import type { RestoreTarget } from "./restore_plan.ts";

export interface RestoreSource {
  readonly place: ReplicaPlace;
  readonly target: RestoreTarget;
}

export interface RestoreRequest extends RestoreSource {
  /** Absolute path that the restore makes; what an earlier one left there is replaced. */
  readonly file: string;
  /** Null: this process's. */
  readonly owner: FileOwner | null;
  readonly mode: number;
  readonly check: CheckMode;
  /** What is fetched is kept beside the file until it is done: the same restore, interrupted, then goes on with that. */
  readonly resumable?: boolean;
}

export interface RestoreProgress {
  readonly phase: "fetch" | "check";
  /** Files applied. */
  readonly files: number;
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface RestoreEnvironment {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: RestoreProgress) => void;
}

/** What a restore to this target reads and makes, without doing it. */
export interface RestorePlan {
  readonly txid: number;
  /** Commit time of that TXID, as its file says. */
  readonly timestampMs: number;
  readonly databaseBytes: number;
  readonly fetchBytes: number;
  readonly files: readonly ReplicaFile[];
}

export interface RestoreResult extends Omit<RestorePlan, "files"> {
  readonly pageSize: number;
  readonly fileCount: number;
  /** Bytes of `fetchBytes` that an interrupted restore had fetched. */
  readonly reusedBytes: number;
  /** Fencing token of the term that wrote the TXID; 0 where the file does not say. */
  readonly token: number;
  /** Plans that went out of date while they were carried out. */
  readonly replans: number;
  readonly check: CheckResult["outcome"];
  readonly warnings: readonly string[];
}
