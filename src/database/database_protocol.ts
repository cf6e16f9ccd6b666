/**
 * What the manager and its database child (`__database`, one operation per run) say to each other: JSON lines over the
 * child's stdin and stdout. Out: one `hello`, then progress, then exactly one `done` or `error`. In: one request. Both
 * are the same program, as a rule the same build; after an upgrade in place the child may be newer, so the number of
 * the protocol decides.
 */

import type { WireError } from "../platform/wire_error.ts";
import type { WireStore } from "../storage/mod.ts";
import type { DrillRequest, DrillResult } from "./drill.ts";
import type { ListedPoints, PointsRequest } from "./restore_points.ts";
import type {
  RestorePlan,
  RestoreProgress,
  RestoreRequest,
  RestoreResult,
  RestoreSource,
} from "./restore_types.ts";
import type { PositionsRequest, PositionsResult } from "./verify_positions.ts";

/** Grows when a line changes its meaning. */
export const DATABASE_PROTOCOL = 1;
/** A plan of all the L0 files of some days, or a page of restore points. */
export const DATABASE_LINE_LIMIT_BYTES = 32 * 1024 * 1024;

export type DatabaseOperation =
  /** Builds a file beside the live one; `swapDatabases` then puts it in place. */
  | { readonly op: "restore"; readonly request: RestoreRequest }
  | { readonly op: "plan"; readonly request: RestoreSource }
  | { readonly op: "drill"; readonly request: DrillRequest }
  | { readonly op: "points"; readonly request: PointsRequest }
  /** Whether states can be restored. */
  | { readonly op: "verify"; readonly request: PositionsRequest };

/** What each operation ends with. */
export interface DatabaseResults {
  readonly restore: RestoreResult;
  readonly plan: RestorePlan;
  readonly drill: DrillResult;
  readonly points: ListedPoints;
  readonly verify: PositionsResult;
}

export type DatabaseRequestLine = DatabaseOperation & {
  readonly protocol: number;
  readonly store: WireStore;
};

export type DatabaseReplyLine =
  | { readonly type: "hello"; readonly protocol: number; readonly build: string }
  | { readonly type: "progress"; readonly progress: RestoreProgress }
  /** Between two pieces of progress: it lives. */
  | { readonly type: "alive" }
  | { readonly type: "done"; readonly result: unknown }
  | { readonly type: "error"; readonly error: WireError };
