/**
 * Verifications of what is in the bucket, one at a time: those that somebody asks for, and one now and then by schedule
 * that reads a part of the packs, so that somebody learns of damage before a restore does. The work is the archiver's;
 * nothing depends on it.
 */

import { findCheckpoint, type VerifyResult } from "../checkpoint/mod.ts";
import type { Head } from "../checkpoint/types.ts";
import type { VerifyConfig } from "../config/types.ts";
import type { CatalogEvent } from "../database/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { log } from "../platform/log.ts";
import type { LongWork, VerifyStatus, VerifySummary, VerifyWish } from "./control.ts";

const logger = log("verify");

export interface VerifierOptions {
  readonly verify: (request: VerifyWish, work: LongWork) => Promise<VerifyResult>;
  readonly head: () => Head;
  readonly settings: VerifyConfig;
  readonly clock: Clock;
  readonly record: (event: CatalogEvent) => void;
}

/** How often it is looked at whether one that is due can begin: one at a time. */
const LOOK_MS = 60_000;
/** Timers of the runtime end at 24 days, an interval may be longer. */
const LONGEST_SLEEP_MS = 3_600_000;
/** A start, and what follows it, comes first; databases' drills, too, which are due five minutes after it. */
const FIRST_AFTER_MS = 15 * 60_000;
/** Keys in the status: the first say enough. */
const OBJECTS_SHOWN = 10;

export class Verifier {
  readonly #options: VerifierOptions;
  #stop: AbortController | null = null;
  #running = false;
  #last: VerifySummary | null = null;
  /** Monotonic. */
  #dueMs = Infinity;

  constructor(options: VerifierOptions) {
    this.#options = options;
  }

  status(): VerifyStatus {
    const { clock } = this.#options;
    const isDue = this.#stop !== null && this.#dueMs !== Infinity;
    const next = isDue ? new Date(clock.wallMs() + this.#dueMs - clock.monotonicMs()).toISOString() : null;
    return { running: this.#running, next, last: this.#last };
  }

  /** Begins the schedule, or leaves it as it is. */
  start(): void {
    const { settings, clock } = this.#options;
    if (this.#stop !== null || settings.intervalMs === 0) return;
    this.#stop = new AbortController();
    this.#dueMs = clock.monotonicMs() + Math.min(FIRST_AFTER_MS, settings.intervalMs);
    void this.#schedule(this.#stop.signal);
  }

  /** Ends the schedule, and one of it that is under way. */
  stop(): void {
    this.#stop?.abort(new StateManagerError("cancelled", "verify: the manager stops"));
    this.#stop = null;
  }

  /** What it finds of all checkpoints is kept for the status. Errors: `busy`, `checkpoint-not-found`, those of the store. */
  async verify(request: VerifyWish, work: LongWork = {}): Promise<VerifyResult> {
    const { head, clock } = this.#options;
    if (this.#running) {
      throw new StateManagerError("busy", "verify: another verification is under way", {
        hint: "wait until it is done, then ask again",
      });
    }
    const checkpoint = request.checkpoint === null
      ? null
      : findCheckpoint(head(), { checkpoint: request.checkpoint }).id;
    this.#running = true;
    const startedMs = clock.monotonicMs();
    try {
      const result = await this.#options.verify({ ...request, checkpoint }, work);
      this.#tell(summaryOf(result, checkpoint, clock.wallMs()), result);
      return result;
    } catch (error) {
      const isTold = checkpoint === null && !work.signal?.aborted;
      if (isTold) this.#last = notRun(request, error, clock, startedMs);
      throw error;
    } finally {
      this.#running = false;
    }
  }

  /** Never rejects. */
  async #schedule(signal: AbortSignal): Promise<void> {
    const { clock, settings } = this.#options;
    while (!signal.aborted) {
      const untilDueMs = Math.max(0, this.#dueMs - clock.monotonicMs());
      const waitMs = this.#running ? LOOK_MS : untilDueMs;
      await clock.sleep(Math.min(waitMs, settings.intervalMs, LONGEST_SLEEP_MS), { signal }).catch(() => {});
      if (signal.aborted || this.#running || clock.monotonicMs() < this.#dueMs) continue;
      const level = settings.percent === 0 ? 2 : 3;
      try {
        await this.verify({ checkpoint: null, level, percent: settings.percent }, { signal });
      } catch (error) {
        if (signal.aborted) return;
        logger.warn("verification could not be carried out", { error: asStateManagerError(error).message });
      }
      // From its end on: one that takes longer than the interval is not followed by the next at once.
      this.#dueMs = clock.monotonicMs() + settings.intervalMs;
    }
  }

  #tell(summary: VerifySummary, { findings }: VerifyResult): void {
    if (summary.checkpoint === null) this.#last = summary;
    const { outcome, level, packs_read, damaged, duration_seconds } = summary;
    const facts = { level, packs_read, damaged, seconds: duration_seconds };
    if (outcome === "passed") {
      logger.info("verified: nothing is damaged", facts);
      return;
    }
    for (const { object, problem, detail, checkpoints, filesTotal } of findings.slice(0, OBJECTS_SHOWN)) {
      const ordinals = checkpoints.map(({ n }) => `v${n}`).join(" ");
      logger.error(`verification FAILED: an object is ${problem}`, {
        object,
        detail,
        checkpoints: ordinals,
        files: filesTotal,
      });
    }
    this.#options.record({
      kind: "verify",
      subject: summary.checkpoint ?? "all",
      summary: `verification found ${damaged} missing or damaged objects`,
      detail: { ...summary },
    });
  }
}

function summaryOf(result: VerifyResult, checkpoint: string | null, nowMs: number): VerifySummary {
  const { findings, findingsTotal, allReadSinceMs } = result;
  return {
    time: new Date(nowMs).toISOString(),
    outcome: findingsTotal === 0 ? "passed" : "damaged",
    checkpoint,
    level: result.level,
    percent: result.percent,
    packs: result.packs,
    packs_read: result.packsRead,
    all_read_since: allReadSinceMs === null ? null : new Date(allReadSinceMs).toISOString(),
    damaged: findingsTotal,
    objects: findings.slice(0, OBJECTS_SHOWN).map(({ object }) => object),
    duration_seconds: Math.round(result.durationMs) / 1000,
    error: null,
  };
}

function notRun(request: VerifyWish, error: unknown, clock: Clock, startedMs: number): VerifySummary {
  return {
    ...request,
    time: new Date(clock.wallMs()).toISOString(),
    outcome: "not-run",
    packs: 0,
    packs_read: 0,
    all_read_since: null,
    damaged: 0,
    objects: [],
    duration_seconds: Math.round(clock.monotonicMs() - startedMs) / 1000,
    error: asStateManagerError(error).message,
  };
}
