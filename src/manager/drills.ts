/**
 * Restore drills: now and then each database is restored from the bucket to scratch and checked, one at a time, so that
 * somebody learns that a replica is damaged before it is needed. Nothing depends on a drill; a failed one is told.
 */

import type { Clock } from "../platform/clock.ts";
import { asStateManagerError } from "../platform/errors.ts";
import { log } from "../platform/log.ts";
import type { DrillInfo } from "./control.ts";

const logger = log("drill");

export interface DrillsOptions {
  readonly clock: Clock;
  /** Ends everything. */
  readonly signal: AbortSignal;
  /** Those that have something in the bucket; an interval of 0: never. */
  readonly databases: () => readonly { readonly name: string; readonly intervalMs: number }[];
  readonly drill: (name: string, signal: AbortSignal) => Promise<DrillInfo>;
}

/** How often it is looked at who is due. */
const LOOK_MS = 60_000;
/** A start, and what follows it, comes first. */
const FIRST_AFTER_MS = 5 * 60_000;

export class Drills {
  readonly #options: DrillsOptions;
  readonly #last = new Map<string, DrillInfo>();
  /** Monotonic: when the next one of each is due. */
  readonly #dueMs = new Map<string, number>();
  #stop: AbortController | null = null;
  #running: Promise<void> = Promise.resolve();

  constructor(options: DrillsOptions) {
    this.#options = options;
  }

  last(name: string): DrillInfo | null {
    return this.#last.get(name) ?? null;
  }

  start(): void {
    if (this.#stop !== null) return;
    this.#stop = new AbortController();
    this.#running = this.#run(AbortSignal.any([this.#stop.signal, this.#options.signal]));
  }

  /** Ends one under way; what it restored is removed by whoever restores next. */
  stop(): void {
    this.#stop?.abort();
    this.#stop = null;
  }

  async idle(): Promise<void> {
    await this.#running;
  }

  /** Never rejects. */
  async #run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (!signal.aborted) {
      const due = this.#nextDue();
      if (due !== null) await this.#drill(due.name, due.intervalMs, signal);
      await clock.sleep(LOOK_MS, { signal }).catch(() => {});
    }
  }

  #nextDue(): { readonly name: string; readonly intervalMs: number } | null {
    const nowMs = this.#options.clock.monotonicMs();
    for (const { name, intervalMs } of this.#options.databases()) {
      if (intervalMs <= 0) continue;
      const dueMs = this.#dueMs.get(name);
      if (dueMs === undefined) this.#dueMs.set(name, nowMs + Math.min(FIRST_AFTER_MS, intervalMs));
      else if (dueMs <= nowMs) return { name, intervalMs };
    }
    return null;
  }

  async #drill(name: string, intervalMs: number, signal: AbortSignal): Promise<void> {
    const { clock, drill } = this.#options;
    this.#dueMs.set(name, clock.monotonicMs() + intervalMs);
    const startedMs = clock.monotonicMs();
    let result: DrillInfo;
    try {
      result = await drill(name, signal);
    } catch (thrown) {
      if (signal.aborted) return;
      const error = asStateManagerError(thrown);
      result = {
        atMs: clock.wallMs(),
        outcome: "not-run",
        txid: null,
        durationMs: clock.monotonicMs() - startedMs,
        error: error.message,
      };
    }
    this.#last.set(name, result);
    const facts = { database: name, txid: result.txid, ms: Math.round(result.durationMs) };
    switch (result.outcome) {
      case "passed":
        return logger.info("restore drill: the bucket gives back a whole database", facts);
      case "failed":
        return logger.error("restore drill FAILED: the bucket does not give back a whole database", {
          ...facts,
          error: result.error,
        });
      case "not-run":
        return logger.warn("restore drill could not be tried", { ...facts, error: result.error });
    }
  }
}
