/**
 * What the manager and its guard say to each other: JSON lines over the guard's stdin and stdout. Both are the same
 * program, as a rule the same build; after an upgrade in place a replaced guard may be newer, so the number decides.
 */

import type { WatchedUnit } from "./units.ts";

/** Grows when a line changes its meaning. */
export const GUARD_PROTOCOL = 1;

/** One unit or one number; a line that is longer is not ours. */
export const GUARD_LINE_LIMIT_BYTES = 64 * 1024;
/** Pids named in a report: it must fit into one write that cannot block. */
export const REPORTED_PIDS = 100;

/** From the manager. The first is `run`; the end of the pipe without `bye` is the manager's death. */
export type GuardLine =
  | { readonly type: "run"; readonly protocol: number; readonly runId: string }
  | { readonly type: "watch"; readonly unit: WatchedUnit }
  | { readonly type: "forget"; readonly groupId: number }
  /** On CLOCK_BOOTTIME, in milliseconds; null: none. */
  | { readonly type: "deadline"; readonly killAtMs: number | null }
  | { readonly type: "ping"; readonly n: number }
  | { readonly type: "bye" };

/** From the guard. The first is `hello`, or `busy` and an end. Reports are dropped where the manager does not read. */
export type GuardReport =
  | { readonly type: "hello"; readonly protocol: number; readonly build: string }
  | { readonly type: "busy" }
  | { readonly type: "pong"; readonly n: number }
  | {
    readonly type: "killed";
    readonly reason: "deadline" | "manager-gone";
    readonly pids: readonly number[];
  }
  /** They outlived several KILLs: in the kernel (state D), or another user's. */
  | { readonly type: "stuck"; readonly processes: readonly string[] };
