/**
 * Makes checkpoints, one at a time: the archiver child reads and uploads, this side commits the result into the head
 * under the lease. Marker before swap, swap, marker after: see lineage.ts for what a crash in between means.
 */

import type { Archiver, HeadSession } from "../checkpoint/mod.ts";
import type { CheckpointRecord, FilesRoot, Head } from "../checkpoint/types.ts";
import type { Lease } from "../lease/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import type { Log } from "../platform/log.ts";
import { type Random, ulid } from "../platform/random.ts";
import type { CheckpointRequest, CheckpointResult, LongWork } from "./control.ts";
import { currentRecord, type LineageFile } from "./lineage.ts";

export interface CheckpointerOptions {
  readonly archiver: Archiver;
  readonly head: HeadSession;
  readonly lease: Lease;
  readonly lineage: LineageFile;
  readonly roots: readonly FilesRoot[];
  /** Roots of the bucket that the configuration does not name and that every new checkpoint carries on. */
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly onFinished: (result: CheckpointResult) => void;
}

/**
 * Most checkpoints that the head lists. It keeps head.json in the low megabytes; past it the oldest interval
 * checkpoints leave the list first.
 */
const MAX_LISTED_CHECKPOINTS = 4000;

/** The head with `record` made current, at most `MAX_LISTED_CHECKPOINTS` listed. */
export function withCurrent(
  head: Head,
  record: CheckpointRecord,
  indexes: Head["indexes"],
): Head {
  const checkpoints = [...head.checkpoints, record];
  while (checkpoints.length > MAX_LISTED_CHECKPOINTS) {
    const oldestInterval = checkpoints.findIndex((each) => each.kind === "interval" && each.id !== record.id);
    checkpoints.splice(Math.max(0, oldestInterval), 1);
  }
  return { ...head, checkpoints, indexes, current: record.id };
}

export class Checkpointer {
  readonly #options: CheckpointerOptions;
  #running: Promise<CheckpointResult> | null = null;
  #abort: AbortController | null = null;
  #lastFinishedMs: number | null = null;
  #lastError: StateManagerError | null = null;

  constructor(options: CheckpointerOptions) {
    this.#options = options;
  }

  get running(): boolean {
    return this.#running !== null;
  }

  /** Wall time of the last one that ended well, an unchanged one included. */
  get lastFinishedMs(): number | null {
    return this.#lastFinishedMs;
  }

  get lastError(): StateManagerError | null {
    return this.#lastError;
  }

  /** Ends a running one; nothing but garbage is left of it. */
  abort(reason: string): void {
    this.#abort?.abort(
      new StateManagerError("cancelled", `make checkpoint: ${reason}`),
    );
  }

  /** Resolves when none runs, whatever became of it. */
  async idle(): Promise<void> {
    await this.#running?.catch(() => {});
  }

  /**
   * Makes one checkpoint and resolves when it is durable. `busy` when one is under way.
   * With `always`, an unchanged state gets a record of its own (a person asked and may have commented).
   */
  create(
    kind: CheckpointRecord["kind"],
    request: CheckpointRequest,
    work: LongWork & { readonly always?: boolean } = {},
  ): Promise<CheckpointResult> {
    if (this.#running !== null) {
      const hint = "wait until it is done, then ask again";
      return Promise.reject(
        new StateManagerError(
          "busy",
          "make checkpoint: another one is under way",
          { hint },
        ),
      );
    }
    const abort = new AbortController();
    const signal = work.signal === undefined ? abort.signal : AbortSignal.any([abort.signal, work.signal]);
    this.#abort = abort;
    const running = this.#create(kind, request, { ...work, signal })
      .then((result) => {
        this.#lastFinishedMs = this.#options.clock.wallMs();
        this.#lastError = null;
        return result;
      }, (error) => {
        this.#lastError = asStateManagerError(error);
        throw error;
      })
      .finally(() => {
        this.#running = null;
        this.#abort = null;
      });
    this.#running = running;
    return running;
  }

  async #create(
    kind: CheckpointRecord["kind"],
    request: CheckpointRequest,
    work: LongWork & {
      readonly always?: boolean;
      readonly signal: AbortSignal;
    },
  ): Promise<CheckpointResult> {
    const { archiver, head, lease, clock, random, log } = this.#options;
    lease.assertHeld();
    const id = ulid(clock.wallMs(), random);
    const made = await archiver.create({
      id,
      kind,
      time: clock.wallMs(),
      comment: request.comment,
      labels: request.labels,
      token: head.token,
      head: head.head,
      roots: this.#options.roots,
      always: work.always ?? false,
    }, work);
    const current = currentRecord(head.head);
    if (made.record === null) {
      if (current === null) {
        throw new StateManagerError(
          "internal",
          "make checkpoint: nothing made and nothing current",
        );
      }
      return {
        checkpoint: current,
        totals: made.totals,
        warnings: made.warnings,
        unchanged: true,
      };
    }
    const record = made.record;
    await this.commit(
      record,
      (before) => withCurrent(before, record, made.indexes),
    );
    const result = {
      checkpoint: record,
      totals: made.totals,
      warnings: made.warnings,
      unchanged: false,
    };
    log.info("checkpoint is durable", {
      id: record.id,
      n: record.n,
      kind,
      ...made.totals,
      warnings: made.warnings.length,
    });
    this.#options.onFinished(result);
    return result;
  }

  /** Makes `record` current: marker, head swap under the lease, marker. */
  async commit(
    record: CheckpointRecord,
    change: (head: Head) => Head,
  ): Promise<void> {
    const { head, lineage, roots } = this.#options;
    const names = roots.map((root) => root.name);
    await lineage.apply({ kind: "pending", names, id: record.id });
    await head.commit(change);
    await lineage.apply({ kind: "content", names, id: record.id });
  }
}
