/**
 * Makes checkpoints, one at a time: the archiver child reads and uploads, this side commits the result into the head
 * under the lease, in the order of checkpoint_rules.ts. A prune takes the same place: never both at once, for what a
 * checkpoint has sent and not yet committed looks like garbage.
 */

import { type Archiver, type HeadSession, type Hold, ProgressRate, speedFigures } from "../checkpoint/mod.ts";
import type { CreateResult } from "../checkpoint/mod.ts";
import type { ArchiveProgress, CheckpointRecord } from "../checkpoint/types.ts";
import type { Lease } from "../lease/mod.ts";
import { assert } from "../platform/assert.ts";
import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import type { Log } from "../platform/log.ts";
import { type Random, ulid } from "../platform/random.ts";
import type {
  CheckpointInProgress,
  CheckpointProgress,
  CheckpointRequest,
  CheckpointResult,
  LongWork,
} from "./control.ts";
import { currentRecord } from "./lineage.ts";
import { runTerm } from "./term.ts";
import type { Positions } from "./term_machine.ts";
import { headSteps, termFacts, type TermPlace } from "./term_steps.ts";

export interface CheckpointerOptions {
  readonly archiver: Archiver;
  readonly head: HeadSession;
  readonly lease: Lease;
  readonly place: TermPlace;
  /** Where the databases stand, all of it durable: asked for before files are read. */
  readonly databases: (work: LongWork) => Promise<Positions>;
  /** Of databases that the current checkpoint names, those that are gone for good. */
  readonly goneDatabases: (names: readonly string[], work: LongWork) => Promise<readonly string[]>;
  /** Keeps programs that run still while files are captured; null: nobody need be. */
  readonly hold: (signal: AbortSignal) => (Hold & AsyncDisposable) | null;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The content is fixed, and local: only what is durable counts. */
  readonly onCaptured: (checkpoint: CheckpointInProgress) => void;
  readonly onFinished: (result: CheckpointResult) => void;
}

export class Checkpointer {
  readonly #options: CheckpointerOptions;
  #running: Promise<CheckpointResult> | null = null;
  #abort: AbortController | null = null;
  #prune: { readonly abort: AbortController; readonly ended: Promise<void> } | null = null;
  #inProgress: CheckpointInProgress | null = null;
  #progress: CheckpointProgress | null = null;
  #lastFinishedMs: number | null = null;
  #lastError: StateManagerError | null = null;

  constructor(options: CheckpointerOptions) {
    this.#options = options;
  }

  get running(): boolean {
    return this.#running !== null;
  }

  /** The one that is under way. */
  get inProgress(): CheckpointInProgress | null {
    return this.#inProgress;
  }

  /** How far it is; null: it has not begun to read. */
  get progress(): CheckpointProgress | null {
    return this.#progress;
  }

  /** Wall time of the last one that ended well, an unchanged one included. */
  get lastFinishedMs(): number | null {
    return this.#lastFinishedMs;
  }

  get lastError(): StateManagerError | null {
    return this.#lastError;
  }

  /** Ends a running one, or a prune; nothing but garbage is left of it. */
  abort(reason: string): void {
    this.#abort?.abort(
      new StateManagerError("cancelled", `make checkpoint: ${reason}`),
    );
    this.endPrune(reason);
  }

  /** Resolves when neither a checkpoint nor a prune runs, whatever became of it. */
  async idle(): Promise<void> {
    while (this.#running !== null || this.#prune !== null) {
      await this.#running?.catch(() => {});
      await this.#prune?.ended;
    }
  }

  /** A prune can wait: it goes on from where it was at its next turn. */
  endPrune(reason: string): void {
    this.#prune?.abort.abort(new StateManagerError("cancelled", `prune: ${reason}`));
  }

  /** Runs `prune` in the place of a checkpoint. `busy` while one is made, or another prune runs. */
  async runPrune<T>(prune: (signal: AbortSignal) => Promise<T>, outer?: AbortSignal): Promise<T> {
    if (this.#running !== null || this.#prune !== null) {
      throw new StateManagerError(
        "busy",
        `prune: ${this.#prune === null ? "a checkpoint" : "another one"} is under way`,
        {
          hint: "wait until it is done, then ask again",
        },
      );
    }
    const abort = new AbortController();
    const ended = Promise.withResolvers<void>();
    this.#prune = { abort, ended: ended.promise };
    try {
      return await prune(outer === undefined ? abort.signal : AbortSignal.any([abort.signal, outer]));
    } finally {
      this.#prune = null;
      ended.resolve();
    }
  }

  /**
   * Makes one checkpoint and resolves when it is durable. `busy` when one is under way; a prune is ended for it.
   * With `always`, an unchanged state gets a record of its own (a person asked and may have commented).
   */
  async create(
    kind: CheckpointRecord["kind"],
    request: CheckpointRequest,
    work: LongWork & { readonly always?: boolean } = {},
  ): Promise<CheckpointResult> {
    while (this.#prune !== null && this.#running === null) {
      this.endPrune("a checkpoint was asked for");
      await this.#prune.ended;
    }
    return await this.#begin(kind, request, work);
  }

  #begin(
    kind: CheckpointRecord["kind"],
    request: CheckpointRequest,
    work: LongWork & { readonly always?: boolean },
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
        this.#inProgress = null;
        this.#progress = null;
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
    const { archiver, head, lease, clock, random, place, databases, goneDatabases } = this.#options;
    lease.assertHeld();
    let made: CreateResult | null = null;
    await runTerm("checkpoint", termFacts(place, head.token, head), {
      ...headSteps(head),
      "write-marker": ({ change }) => place.lineage.apply(change),
      upload: async () => {
        const id = ulid(clock.wallMs(), random);
        // All others are made while no program runs.
        const runs = kind === "interval" || kind === "request";
        await using hold = runs ? this.#options.hold(work.signal) : null;
        this.#inProgress = { id, kind, state: "capturing" };
        const onCaptured = () => this.#captured({ id, kind, state: "local" }, work);
        const rate = new ProgressRate();
        const onProgress = (progress: ArchiveProgress) => {
          this.#progress = progressNow(progress, rate, clock);
          work.onProgress?.(progress);
        };
        const result = await archiver.create({
          id,
          kind,
          time: clock.wallMs(),
          comment: request.comment,
          labels: request.labels,
          token: head.token,
          head: head.head,
          roots: place.roots,
          databases: await databases(work),
          goneDatabases: await goneDatabases(
            Object.keys(currentRecord(head.head)?.databases ?? {}),
            work,
          ),
          always: work.always ?? false,
        }, { ...work, onCaptured, onProgress, ...(hold === null ? {} : { hold }) });
        made = result;
        const { record, indexes } = result;
        return { made: record === null ? null : { record, indexes } };
      },
    });
    return this.#told(kind, requireMade(made));
  }

  #captured(checkpoint: CheckpointInProgress, work: LongWork): void {
    this.#inProgress = checkpoint;
    this.#options.onCaptured(checkpoint);
    work.onCaptured?.(checkpoint.id);
  }

  #told(kind: CheckpointRecord["kind"], made: CreateResult): CheckpointResult {
    const { head, log, onFinished } = this.#options;
    if (made.record === null) {
      const current = currentRecord(head.head);
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
    const { record } = made;
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
    onFinished(result);
    return result;
  }
}

function progressNow(progress: ArchiveProgress, rate: ProgressRate, clock: Clock): CheckpointProgress {
  const { phase, entries, bytes, totalBytes } = progress;
  return {
    phase,
    entries,
    bytes,
    total_bytes: totalBytes,
    ...speedFigures(rate.next(progress, clock.monotonicMs())),
  };
}

/** The archiver was asked: it answered, or the procedure rejected. */
function requireMade(made: CreateResult | null): CreateResult {
  assert(made !== null, "a checkpoint that ended well was uploaded");
  return made;
}
