/**
 * Lets checkpoints go: what the keep rules or a person no longer want leaves the head, what nothing needs then leaves the
 * store. In the order of prune_machine.ts; marking and deleting are the archiver's, the swaps are made here under the
 * lease. A collection has the checkpointer's place to itself: rule C of prune_rules.ts rests on it.
 */

import {
  type Archiver,
  automaticPrune,
  basisOf,
  type CheckpointNotes,
  type CollectReport,
  doomOf,
  dueNames,
  expired,
  findCheckpoint,
  type HeadSession,
  initialPrune,
  type KeepRules,
  type Kept,
  LABELS_LIMIT,
  notedRecord,
  planKeep,
  type PruneEffect,
  type PruneEvent,
  type PruneLearned,
  type PruneMachine,
  type PruneNow,
  type PruneRequest,
  stepPrune,
  whyItStays,
} from "../checkpoint/mod.ts";
import type { CheckpointRecord, Head } from "../checkpoint/types.ts";
import type { CatalogEvent } from "../database/mod.ts";
import type { Lease } from "../lease/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import type { Log } from "../platform/log.ts";
import { earlierNowMs, laterNowMs, type ObjectStore } from "../storage/mod.ts";
import type { Checkpointer } from "./checkpointer.ts";
import type { LongWork, PruneResult } from "./control.ts";
import { changeHead } from "./head_changes.ts";

export interface PrunerOptions {
  readonly archiver: Pick<Archiver, "collect" | "sweep">;
  readonly store: Pick<ObjectStore, "clockMs">;
  readonly head: HeadSession;
  readonly lease: Pick<Lease, "assertHeld">;
  readonly checkpointer: Pick<Checkpointer, "runPrune">;
  readonly keep: KeepRules;
  readonly graceMs: number;
  readonly clock: Clock;
  readonly log: Log;
  /** The head lists fewer checkpoints, or others of them are pinned. */
  readonly onChanged: () => void;
  readonly onFinished: (result: PruneResult) => void;
}

type Doing = Exclude<PruneEffect, { type: "ended" }>;

/** What one run comes across on its way. */
interface Found {
  report: CollectReport | null;
  error: unknown;
}

export class Pruner {
  readonly #options: PrunerOptions;
  readonly #startedMs: number;
  #collectedMs: number | null = null;
  #sweptMs: number | null = null;
  /** Doomed name → when it was first seen here, by the monotonic clock. */
  #seen = new Map<string, number>();

  constructor(options: PrunerOptions) {
    this.#options = options;
    this.#startedMs = options.clock.monotonicMs();
  }

  /** What the rules say of each checkpoint now, newest first. */
  plan(): readonly Kept[] {
    const { head, keep, store, clock } = this.#options;
    return planKeep(head.head, keep, earlierNowMs(store, clock));
  }

  /** By the keep rules; with `dryRun` it changes nothing. `busy` while a checkpoint is made. */
  prune({ dryRun }: { readonly dryRun: boolean }, work: LongWork = {}): Promise<PruneResult> {
    const { checkpointer, keep } = this.#options;
    return checkpointer.runPrune(
      (signal) =>
        dryRun
          ? this.#tell({ ...work, signal })
          : this.#run({ unwanted: { kind: "by-rules", rules: keep }, collect: true }, { ...work, signal }),
      work.signal,
    );
  }

  /**
   * Takes one checkpoint off the list; its bytes go with the next prune. Errors: `checkpoint-not-found`; `wrong-state`
   * for one that must stay, and without `force` for one that is pinned.
   */
  async remove(reference: string, { force }: { readonly force: boolean }): Promise<CheckpointRecord> {
    const { head } = this.#options;
    const record = findCheckpoint(head.head, { checkpoint: reference });
    const why = whyItStays(head.head, record.id) ??
      (record.pinned === true && !force ? "it is pinned" : null);
    if (why !== null) {
      throw new StateManagerError("wrong-state", `delete checkpoint ${record.n}: ${why}`, {
        hint: record.pinned === true && whyItStays(head.head, record.id) === null
          ? "take its pin away, or force it"
          : "make a newer checkpoint first",
      });
    }
    await this.#run({ unwanted: { kind: "listed", ids: [record.id] }, collect: false }, {});
    return record;
  }

  /**
   * Comment, labels and pin. Gives the record as it is then. Errors: `checkpoint-not-found`; `invalid-request` for too
   * many labels or too long ones.
   */
  async annotate(reference: string, notes: CheckpointNotes): Promise<CheckpointRecord> {
    const { head, onChanged } = this.#options;
    const record = findCheckpoint(head.head, { checkpoint: reference });
    const labels = Object.keys(notedRecord(record, notes).labels).length;
    if (labels > LABELS_LIMIT) {
      throw new StateManagerError(
        "invalid-request",
        `annotate checkpoint: ${labels} labels, at most ${LABELS_LIMIT}`,
        {
          hint: "take some away first",
        },
      );
    }
    await head.commit((before) => changeHead(before, { kind: "annotate", id: record.id, notes }));
    onChanged();
    return findCheckpoint(head.head, { checkpoint: record.id });
  }

  /** After a checkpoint that ended well: what is worth doing. Never rejects; what failed is told and tried again. */
  async turn(): Promise<void> {
    const { head, keep, checkpointer, log } = this.#options;
    const now = this.#now();
    const todo = automaticPrune({
      expired: expired(this.plan()).length,
      due: dueNames(head.head, now),
      nowMs: now.monotonicMs,
      startedMs: this.#startedMs,
      collectedMs: this.#collectedMs,
      sweptMs: this.#sweptMs,
    });
    if (todo === "nothing") return;
    const collect = todo === "collect";
    // Also where it fails: what is broken is not looked at with each checkpoint.
    if (collect) this.#collectedMs = now.monotonicMs;
    this.#sweptMs = now.monotonicMs;
    const unwanted = collect ? { kind: "by-rules", rules: keep } as const : { kind: "none" } as const;
    try {
      await checkpointer.runPrune((signal) => this.#run({ unwanted, collect }, { signal }));
    } catch (error) {
      if (isError(error, "busy", "cancelled")) {
        if (collect) this.#collectedMs = null; // a checkpoint was asked for meanwhile: after it
        return;
      }
      const { message, code, hint } = asStateManagerError(error);
      log.error("garbage was not collected, it is tried again later; nothing is lost by it", {
        error: message,
        code,
        hint,
      });
    }
  }

  // ---- one run

  async #tell(work: LongWork): Promise<PruneResult> {
    const { archiver, head } = this.#options;
    const plan = this.plan();
    const gone = expired(plan);
    const keep = marked(head.head).filter((record) => !gone.includes(record));
    const { report } = await archiver.collect(
      { token: head.token, head: head.head, keep, dryRun: true },
      work,
    );
    return {
      dryRun: true,
      plan,
      forgotten: gone,
      report,
      deletedObjects: 0,
      waitingObjects: waiting(head.head),
    };
  }

  async #run(request: PruneRequest, work: LongWork): Promise<PruneResult> {
    const { lease, log, onFinished } = this.#options;
    lease.assertHeld();
    const before = this.plan();
    const found: Found = { report: null, error: null };
    let { state, effect } = stepPrune(initialPrune(request), { type: "begin" }, this.#now());
    while (effect.type !== "ended") {
      const event = await this.#event(effect, work, found);
      ({ state, effect } = stepPrune(state, event, this.#now()));
    }
    if (state.failure !== null) throw found.error;
    const result = this.#resultOf(state, before, found.report);
    if (request.collect) {
      log.info("garbage was collected", {
        forgotten: result.forgotten.length,
        deleted: result.deletedObjects,
        waiting: result.waitingObjects,
        freed_bytes: result.report?.freedBytes ?? 0,
      });
    }
    if (request.collect || result.forgotten.length > 0) onFinished(result);
    return result;
  }

  async #event(effect: Doing, work: LongWork, found: Found): Promise<PruneEvent> {
    try {
      work.signal?.throwIfAborted();
      return { type: "done", learned: await this.#perform(effect, work, found) };
    } catch (error) {
      found.error = error;
      return { type: "failed", code: asStateManagerError(error).code };
    }
  }

  #resultOf(
    { forgotten, deleted }: PruneMachine,
    plan: readonly Kept[],
    report: CollectReport | null,
  ): PruneResult {
    const { head } = this.#options.head;
    return {
      dryRun: false,
      plan,
      forgotten: plan.map(({ record }) => record).filter(({ id }) => forgotten.includes(id)).reverse(),
      report,
      deletedObjects: deleted.packs.length + deleted.objects.length,
      waitingObjects: waiting(head),
    };
  }

  async #perform(effect: Doing, work: LongWork, found: Found): Promise<PruneLearned> {
    const { archiver, head, lease, onChanged } = this.#options;
    const signal = work.signal === undefined ? {} : { signal: work.signal };
    switch (effect.type) {
      case "settle":
        await head.settle(signal);
        return { head: head.head };
      case "swap":
        await head.commit((before) => changeHead(before, effect.change), signal);
        if (effect.change.kind === "forget") onChanged();
        return { head: head.head };
      case "collect": {
        const result = await archiver.collect(
          { token: head.token, head: effect.head, keep: marked(effect.head), dryRun: false },
          work,
        );
        found.report = result.report;
        return { doom: doomOf(result, basisOf(effect.head)) };
      }
      case "sweep": {
        lease.assertHeld();
        const { names, failure } = await archiver.sweep(effect.names, work);
        if (failure !== null) found.error = new StateManagerError(failure.code, failure.message);
        return { swept: { names, failure: failure?.code ?? null } };
      }
    }
  }

  #now(): PruneNow {
    const { clock, graceMs, head, store } = this.#options;
    const monotonicMs = clock.monotonicMs();
    const { doomed, doomed_objects = [] } = head.head;
    const names = [...doomed.map(({ pack }) => pack), ...doomed_objects.map(({ key }) => key)];
    this.#seen = new Map(names.map((name) => [name, this.#seen.get(name) ?? monotonicMs]));
    return {
      wallMs: earlierNowMs(store, clock),
      stampMs: laterNowMs(store, clock),
      monotonicMs,
      graceMs,
      seenMs: (name) => this.#seen.get(name),
    };
  }
}

/** All whose chunks must stay. */
function marked({ checkpoints, intent }: Head): readonly CheckpointRecord[] {
  return intent === null ? checkpoints : [...checkpoints, intent.record];
}

function waiting({ doomed, doomed_objects = [] }: Head): number {
  return doomed.length + doomed_objects.length;
}

/** For the history. */
export function pruneEvent({ forgotten, deletedObjects, report }: PruneResult): CatalogEvent {
  return {
    kind: "checkpoint",
    subject: "prune",
    summary: `${forgotten.length} checkpoints left the list`,
    detail: { ordinals: forgotten.map(({ n }) => n), deleted: deletedObjects, ...report },
  };
}
