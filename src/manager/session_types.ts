/** Shapes of a session: what it needs, how it ends, and what wakes it while the programs run. */

import type { StoreCredentials } from "../config/mod.ts";
import type { Config } from "../config/types.ts";
import type { CatalogEvent } from "../database/mod.ts";
import type { Asker, LeaseMemory, LeaseStatus } from "../lease/types.ts";
import type { Clock } from "../platform/clock.ts";
import type { StateManagerError } from "../platform/errors.ts";
import type { Random } from "../platform/random.ts";
import type { CrashFiles, ProcessLogs } from "../supervisor/mod.ts";
import type { ProcessSpec, ProcessStatus, SupervisorOutcome } from "../supervisor/types.ts";
import type { LongWork, ManagerState, ManagerStatus, RestoreRequest, RestoreResult } from "./control.ts";
import type { DataDir } from "./data_dir.ts";
import type { WorkName, WorkStep } from "./event_hub.ts";
import type { RunGuard } from "./run_guard.ts";

export type SessionEnd =
  | {
    readonly kind: "ended";
    readonly exitCode: number;
    readonly error: StateManagerError | null;
  }
  | { readonly kind: "released" }
  /** Handed over on request: the manager waits again, without asking back. */
  | { readonly kind: "yielded" };

export interface SessionOptions {
  readonly config: Config;
  /** The processes as a start takes them: a reload may have changed them since. */
  readonly specs: () => readonly ProcessSpec[];
  /** Tells `logs` what becomes of their output. */
  readonly configureLogs: () => void;
  /** Names of processes that a person stopped. */
  readonly heldDown: Set<string>;
  readonly dir: DataDir;
  readonly mode: "run" | "server";
  readonly clock: Clock;
  readonly random: Random;
  readonly environment: Readonly<Record<string, string>>;
  readonly credentials: () => StoreCredentials | null;
  readonly holder: string;
  readonly hostname: string;
  readonly pid: number;
  readonly guard: RunGuard;
  readonly logs: ProcessLogs;
  readonly crashes: CrashFiles;
  readonly onState: (state: ManagerState, reason: string | null) => void;
  readonly onProgramsStarted: () => void;
  readonly record: (event: CatalogEvent) => void;
  /** How far long work is. Left out: nobody asks. */
  readonly onWork?: (work: WorkName, step: WorkStep) => void;
  readonly persistReleased: (released: boolean) => Promise<void>;
  /** The term before was handed over on request, and nobody has asked for it back since: wait without asking. */
  readonly yielded: () => boolean;
  readonly persistYielded: (yielded: boolean) => Promise<void>;
  readonly leaseMemory: LeaseMemory;
}

/** A session's part of `GET /`. */
export interface SessionStatus {
  readonly repoId: string | null;
  readonly storage: ManagerStatus["storage"];
  /** What a start waits for where nobody told a reason; null: nothing, or somebody did. */
  readonly waitingFor: string | null;
  readonly lease: LeaseStatus | null;
  readonly processes: readonly ProcessStatus[];
  readonly files: ManagerStatus["files"];
  readonly databases: ManagerStatus["databases"];
  readonly checkpoint: ManagerStatus["checkpoint"];
  readonly warnings: readonly string[];
}

/** What ended the wait while the programs run. */
export type Wakeup =
  | { readonly kind: "stop" }
  | { readonly kind: "outcome"; readonly outcome: SupervisorOutcome }
  | { readonly kind: "fenced"; readonly error: StateManagerError }
  | { readonly kind: "job"; readonly job: Job };

/** Work that needs the programs stopped, asked for over the API. */
export type Job =
  | {
    readonly kind: "restore";
    readonly request: RestoreRequest;
    readonly work: LongWork;
    readonly done: PromiseWithResolvers<RestoreResult>;
  }
  | { readonly kind: "release"; readonly done: PromiseWithResolvers<void> }
  | { readonly kind: "hand-over"; readonly to: Asker; readonly done: PromiseWithResolvers<void> };
