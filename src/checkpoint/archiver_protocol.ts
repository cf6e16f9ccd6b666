/**
 * What the manager and its archiver child say to each other: JSON lines over the child's stdin and stdout. Out: one
 * `hello`, then anything, then exactly one `done` or `error`. In: one request. Both are the same program, as a rule the
 * same build; after an upgrade in place the child may be newer, so the number of the protocol decides.
 */

import type { WireError } from "../platform/wire_error.ts";
import type { OpenStoreOptions, WireStore } from "../storage/mod.ts";
import type { WireCipher } from "./cipher.ts";
import type { CollectRequest, CollectResult } from "./collect.ts";
import type { FolderListing, FolderRequest } from "./browse.ts";
import type { ComposeRequest, ComposeResult } from "./compose.ts";
import type { CreateRequest, CreateResult } from "./create.ts";
import type { DiffRequest, DiffResult } from "./diff.ts";
import type { Released } from "./hold.ts";
import type { Names } from "./prune_rules.ts";
import type { RepairRequest, RepairResult } from "./repair.ts";
import type { PlanRequest, RestorePlan, StageRequest, StageResult } from "./restore.ts";
import type { SweepResult } from "./sweep.ts";
import type { ArchiveProgress } from "./types.ts";
import type { VerifyRequest, VerifyResult } from "./verify_types.ts";

/** Grows when a line changes its meaning. */
export const PROTOCOL = 4;

/** A request lists the indexes of a head, a result the warnings of a tree: megabytes, not more. */
export const LINE_LIMIT_BYTES = 32 * 1024 * 1024;
/** Warnings told one by one; of the rest only the number. */
export const WARNINGS_LIMIT = 1000;

/** Where the objects are, as the manager knows it; credentials are asked for anew with each run. */
export type ArchiverStore = OpenStoreOptions;

export type Operation =
  | { readonly op: "create"; readonly request: CreateRequest }
  | { readonly op: "stage"; readonly request: StageRequest }
  | { readonly op: "plan"; readonly request: PlanRequest }
  | { readonly op: "compose"; readonly request: ComposeRequest }
  | { readonly op: "verify"; readonly request: VerifyRequest }
  | { readonly op: "repair"; readonly request: RepairRequest }
  | { readonly op: "files"; readonly request: FolderRequest }
  | { readonly op: "diff"; readonly request: DiffRequest }
  | { readonly op: "collect"; readonly request: CollectRequest }
  | { readonly op: "sweep"; readonly request: Names };

/** What each operation ends with. */
export interface Results {
  readonly create: CreateResult;
  readonly stage: StageResult;
  readonly plan: RestorePlan;
  readonly compose: ComposeResult;
  readonly verify: VerifyResult;
  readonly repair: RepairResult;
  readonly files: FolderListing;
  readonly diff: DiffResult;
  readonly collect: CollectResult;
  readonly sweep: SweepResult;
}

/** Bytes per second; 0: no limit. */
export interface ArchiverRates {
  readonly upload: number;
  readonly download: number;
}

export type RequestLine = Operation & {
  readonly rates: ArchiverRates;

  readonly protocol: number;
  readonly store: WireStore;
  readonly cipher: WireCipher;
  readonly cacheFolder: string;
  readonly scratchFolder: string;
};

/** After the request, while a hold is asked for and had. */
export type HoldLine =
  /** The programs stand still. */
  | { readonly type: "held" }
  /** They go on, before the content was told to be fixed. */
  | { readonly type: "over" }
  /** They go on, as was asked for. */
  | { readonly type: "released"; readonly released: Released };

export type ReplyLine =
  | { readonly type: "hello"; readonly protocol: number; readonly build: string }
  | { readonly type: "progress"; readonly progress: ArchiveProgress }
  /** The programs should stand still now. */
  | { readonly type: "hold" }
  /** They may go on. */
  | { readonly type: "release" }
  | { readonly type: "captured" }
  | { readonly type: "done"; readonly result: unknown }
  | { readonly type: "error"; readonly error: WireError };
