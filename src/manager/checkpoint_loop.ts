/** Checkpoints by interval: the next one is due `intervalMs` after the last ended, sooner after one that failed. */

import type { Clock } from "../platform/clock.ts";
import { type CronSpec, parseCron, sleepUntilWall } from "../platform/cron.ts";
import { asStateManagerError } from "../platform/errors.ts";
import type { Log } from "../platform/log.ts";
import type { Checkpointer } from "./checkpointer.ts";

export interface CheckpointLoopOptions {
  readonly checkpointer: Checkpointer;
  /** Called after each that ended well. */
  readonly afterwards: () => void;
  /** 0: only the first one after a start, where asked for. */
  readonly intervalMs: number;
  /** Instead of the interval; null: none. */
  readonly schedule: CronSpec | null;
  readonly clock: Clock;
  readonly log: Log;
}

/** First wait after a failure; doubles up to the interval. */
const FIRST_RETRY_MS = 5000;

export class CheckpointLoop {
  readonly #options: CheckpointLoopOptions;
  #abort: AbortController | null = null;
  #nextWallMs: number | null = null;

  constructor(options: CheckpointLoopOptions) {
    this.#options = options;
  }

  get nextWallMs(): number | null {
    return this.#nextWallMs;
  }

  /** Begins, or goes on. `soon`: the first one at once, since local data may be ahead of the bucket. */
  start(soon: boolean): void {
    if (this.#abort !== null) return;
    const abort = new AbortController();
    this.#abort = abort;
    this.#run(soon, abort.signal).catch(() => {}); // ends only by its signal
  }

  /** No new one begins; a running one goes on. */
  stop(): void {
    this.#abort?.abort();
    this.#abort = null;
    this.#nextWallMs = null;
  }

  async #run(soon: boolean, signal: AbortSignal): Promise<void> {
    const { clock, intervalMs, schedule, log } = this.#options;
    const next = schedule === null ? null : parseCron(schedule);
    /** Until the next one that is due: of the wall clock where there is a schedule. */
    const due = () => {
      const nowMs = clock.wallMs();
      return next === null ? intervalMs : Math.max(0, (next(nowMs) ?? Infinity) - nowMs);
    };
    const hasTimes = next !== null || intervalMs > 0;
    let waitMs = soon ? 0 : due();
    let retryMs = FIRST_RETRY_MS;
    if (!soon && !hasTimes) return;
    while (true) {
      this.#nextWallMs = clock.wallMs() + waitMs;
      if (next === null) await clock.sleep(waitMs, { signal });
      else if (!await sleepUntilWall(clock, this.#nextWallMs, signal)) {
        waitMs = due();
        continue;
      }
      this.#nextWallMs = null;
      const failure = await this.#once();
      if (signal.aborted) return;
      if (failure === null) {
        if (!hasTimes) return;
        waitMs = due();
        retryMs = FIRST_RETRY_MS;
      } else {
        log.error("checkpoint failed, it is tried again", {
          error: failure.message,
          code: failure.code,
          hint: failure.hint,
        });
        waitMs = Math.min(retryMs, hasTimes ? due() : retryMs);
        retryMs = Math.min(retryMs * 2, 300_000);
      }
    }
  }

  async #once() {
    const { checkpointer } = this.#options;
    try {
      await checkpointer.idle();
      await checkpointer.create("interval", { comment: "", labels: {} });
      this.#options.afterwards();
      return null;
    } catch (error) {
      return asStateManagerError(error);
    }
  }
}
