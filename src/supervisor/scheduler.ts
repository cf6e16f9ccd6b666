/** The ticks of all cron schedules of one run. What a tick does is the supervisor's. */

import type { Clock } from "../platform/clock.ts";
import { type CronSpec, type NextTick, parseCron, sleepUntilWall } from "../platform/cron.ts";

/** A tick that comes later than this was missed: the machine slept, or its clock was set. It is not made up for. */
const MISSED_AFTER_MS = 60_000;

export interface SchedulerOptions {
  readonly clock: Clock;
  /** Called at each tick; must not throw. */
  readonly onTick: (name: string) => void;
}

interface Schedule {
  readonly spec: CronSpec;
  readonly ended: AbortController;
  /** Null: there is none. */
  nextWallMs: number | null;
}

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #running = new Map<string, Schedule>();
  /** Whose tick came while all stands still; null: nothing does. */
  #kept: Set<string> | null = null;
  #stopped = false;

  constructor(options: SchedulerOptions) {
    this.#options = options;
  }

  /** These count from now on, all others end; those that are the same go on undisturbed. */
  schedule(schedules: ReadonlyMap<string, CronSpec>): void {
    if (this.#stopped) return;
    for (const [name, { spec, ended }] of this.#running) {
      const now = schedules.get(name);
      if (now?.cron === spec.cron && now.timeZone === spec.timeZone) continue;
      ended.abort();
      this.#running.delete(name);
    }
    for (const [name, spec] of schedules) {
      const next = this.#running.has(name) ? null : parseCron(spec);
      if (next === null) continue;
      const schedule: Schedule = { spec, ended: new AbortController(), nextWallMs: null };
      this.#running.set(name, schedule);
      void this.#run(name, schedule, next);
    }
  }

  /** Everything stands still: a tick that comes now is kept until `thaw`, one of each name. */
  freeze(): void {
    this.#kept ??= new Set();
  }

  /** What was kept comes now, but for schedules that have ended. */
  thaw(): void {
    const kept = this.#kept ?? [];
    this.#kept = null;
    for (const name of kept) if (this.#running.has(name)) this.#options.onTick(name);
  }

  stop(): void {
    this.#stopped = true;
    for (const { ended } of this.#running.values()) ended.abort();
    this.#running.clear();
  }

  /** Wall time of its next tick; null: there is none. */
  nextWallMs(name: string): number | null {
    return this.#running.get(name)?.nextWallMs ?? null;
  }

  async #run(name: string, schedule: Schedule, nextTick: NextTick): Promise<void> {
    const { clock } = this.#options;
    const { signal } = schedule.ended;
    let afterMs = clock.wallMs();
    try {
      for (let tickMs = nextTick(afterMs); tickMs !== null; tickMs = nextTick(afterMs)) {
        schedule.nextWallMs = tickMs;
        const isThen = await sleepUntilWall(clock, tickMs, signal);
        signal.throwIfAborted();
        const nowMs = clock.wallMs();
        if (!isThen) {
          afterMs = nowMs;
          continue;
        }
        // Never before the tick itself: a clock that is set back does not bring it twice.
        afterMs = Math.max(tickMs, nowMs);
        if (nowMs - tickMs < MISSED_AFTER_MS) this.#tick(name);
      }
    } catch {
      // stopped
    }
    schedule.nextWallMs = null;
  }

  #tick(name: string): void {
    if (this.#kept === null) this.#options.onTick(name);
    else this.#kept.add(name);
  }
}
