/**
 * The manager's side of the database child: one child per operation, killed when the work is aborted or it falls
 * silent. Credentials go through its stdin only, never by argument or environment. Short operations come many at a time,
 * one for each database, so they wait for each other; of the long ones their callers have one at a time.
 */

import type { Clock } from "../platform/clock.ts";
import { selfCommand } from "../platform/entry.ts";
import { StateManagerError } from "../platform/errors.ts";
import { LimitedTurns } from "../platform/limited_turns.ts";
import { type ChildLife, converse } from "../platform/line_child.ts";
import { memoryLimitBytes, usableCores } from "../platform/machine.ts";
import { errorFromWire } from "../platform/wire_error.ts";
import { type OpenStoreOptions, storeToWire } from "../storage/mod.ts";
import {
  DATABASE_LINE_LIMIT_BYTES,
  DATABASE_PROTOCOL,
  type DatabaseOperation,
  type DatabaseReplyLine,
  type DatabaseRequestLine,
  type DatabaseResults,
} from "./database_protocol.ts";
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

/** The child says something each second; one that is silent for this long is stuck (a dead disk, a stopped process). */
const SILENCE_LIMIT_MS = 10 * 60 * 1000;
/** But SQLite's check of a whole database is one call, which says nothing: time for a terabyte from a usual disk. */
const CHECK_LIMIT_MS = 3 * 60 * 60 * 1000;

export interface DatabaseChildrenOptions {
  readonly store: OpenStoreOptions;
  readonly clock: Clock;
  /** argv of the child; the default is this program. */
  readonly command?: { readonly command: string; readonly args: readonly string[] };
  readonly silenceLimitMs?: number;
  /** Made anew for each child, before its spawn. */
  readonly watchChild?: () => ChildLife;
  /** What of the machine they may use; the default is what there is. */
  readonly machine?: ChildMachine;
  /** Told of each restore how far it is, and how it ended. Must not throw. */
  readonly onRestore?: (step: RestoreProgress | "done" | "failed") => void;
}

export interface ChildMachine {
  readonly cores: number;
  readonly memoryLimitBytes: number;
}

/** What a child takes beside what it shares with the manager, with a plan of many files. */
const CHILD_BYTES = 96 * 1024 * 1024;
/** Of the container's memory; the rest is for programs and follower. */
const MEMORY_SHARE = 1 / 4;
/** More of them are no faster: each waits for the same store. */
const MOST_CHILDREN = 4;

/** Children that plan or list at a time, at least 1. */
export function childrenAtOnce({ cores, memoryLimitBytes }: ChildMachine): number {
  const fitting = Math.floor(memoryLimitBytes * MEMORY_SHARE / CHILD_BYTES);
  return Math.max(1, Math.min(MOST_CHILDREN, cores, fitting));
}

export interface DatabaseWork {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: RestoreProgress) => void;
}

export class DatabaseChildren {
  readonly #options: DatabaseChildrenOptions;
  readonly #closed = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  readonly #turns: LimitedTurns;

  constructor(options: DatabaseChildrenOptions) {
    this.#options = options;
    const machine = options.machine ?? { cores: usableCores(), memoryLimitBytes: memoryLimitBytes() };
    this.#turns = new LimitedTurns("look at a replica", childrenAtOnce(machine));
  }

  /** Builds the file of the request, beside the live one; nothing live changes. */
  restore(request: RestoreRequest, work: DatabaseWork = {}): Promise<RestoreResult> {
    const { onRestore } = this.#options;
    const onProgress = (progress: RestoreProgress) => {
      onRestore?.(progress);
      work.onProgress?.(progress);
    };
    const run = this.#run({ op: "restore", request }, { ...work, onProgress });
    run.then(() => onRestore?.("done"), () => onRestore?.("failed"));
    return run;
  }

  /** What a restore would read and make. */
  plan(request: RestoreSource, work: DatabaseWork = {}): Promise<RestorePlan> {
    return this.#run({ op: "plan", request }, work, this.#turns);
  }

  /** Restores the newest state to scratch and checks it. */
  drill(request: DrillRequest, work: DatabaseWork = {}): Promise<DrillResult> {
    return this.#run({ op: "drill", request }, work);
  }

  points(request: PointsRequest, work: DatabaseWork = {}): Promise<ListedPoints> {
    return this.#run({ op: "points", request }, work, this.#turns);
  }

  /** Whether states that checkpoints name can be restored; what is wrong is in the result. */
  verify(request: PositionsRequest, work: DatabaseWork = {}): Promise<PositionsResult> {
    return this.#run({ op: "verify", request }, work);
  }

  /** Ends what runs; no call may follow. */
  async close(): Promise<void> {
    this.#closed.abort(new StateManagerError("cancelled", "restore database: the manager stops"));
    await Promise.allSettled(this.#running);
  }

  #run<Op extends DatabaseOperation["op"]>(
    operation: Extract<DatabaseOperation, { op: Op }>,
    work: DatabaseWork,
    turns: LimitedTurns | null = null,
  ): Promise<DatabaseResults[Op]> {
    const signals = [this.#closed.signal, ...(work.signal === undefined ? [] : [work.signal])];
    const run = this.#inTurn(operation, AbortSignal.any(signals), work.onProgress ?? (() => {}), turns);
    const tracked = run.finally(() => this.#running.delete(tracked));
    this.#running.add(tracked);
    // The child is this program: what it says of a result is what its types say.
    return tracked as Promise<DatabaseResults[Op]>;
  }

  async #inTurn(
    operation: DatabaseOperation,
    signal: AbortSignal,
    onProgress: (progress: RestoreProgress) => void,
    turns: LimitedTurns | null,
  ): Promise<unknown> {
    signal.throwIfAborted();
    await turns?.take(signal);
    try {
      return await runChild(this.#options, operation, signal, onProgress);
    } finally {
      turns?.give();
    }
  }
}

/** One child from its start to its end. */
async function runChild(
  options: DatabaseChildrenOptions,
  operation: DatabaseOperation,
  signal: AbortSignal,
  onProgress: (progress: RestoreProgress) => void,
): Promise<unknown> {
  signal.throwIfAborted();
  const { store, clock } = options;
  const request = (): readonly DatabaseRequestLine[] => [{
    ...operation,
    protocol: DATABASE_PROTOCOL,
    store: storeToWire(store),
  }];
  const checks = operation.op === "drill" || (operation.op === "verify" && operation.request.level === 4) ||
    (operation.op === "restore" && operation.request.check !== "none");
  const child = {
    action: "restore database",
    name: "database child",
    command: options.command ?? selfCommand(["__database"]),
    protocol: DATABASE_PROTOCOL,
    clock,
    lineLimitBytes: DATABASE_LINE_LIMIT_BYTES,
    silenceLimitMs: options.silenceLimitMs ?? (checks ? CHECK_LIMIT_MS : SILENCE_LIMIT_MS),
    signal,
    life: options.watchChild?.(),
  };
  return await converse(child, async ({ replies }) => {
    for await (const reply of replies(request)) {
      const line = reply as DatabaseReplyLine;
      if (line.type === "progress") onProgress(line.progress);
      else if (line.type === "error") throw errorFromWire(line.error);
      else if (line.type === "done") return line.result;
    }
    return undefined; // not reached: the replies end by throwing
  });
}
