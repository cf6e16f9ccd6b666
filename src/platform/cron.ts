/** Cron expressions as a function of time: croner computes, our own clock waits. */

import { Cron } from "croner";
import type { Clock } from "./clock.ts";

/** When it is due, and in which time zone that is meant. */
export interface CronSpec {
  /** Five fields, six with seconds before them, or @hourly, @daily and the like. */
  readonly cron: string;
  /** IANA name. */
  readonly timeZone: string;
}

/** A wall clock that is set or a machine that slept is seen this soon. */
const LOOK_AGAIN_MS = 30_000;
const FORM = /^(@[a-z]+|\S+( +\S+){4,5})$/;

/** The first moment after `wallMs`, to the second; null: never. */
export type NextTick = (wallMs: number) => number | null;

/** Null where the expression or the time zone is none. */
export function parseCron({ cron, timeZone }: CronSpec): NextTick | null {
  if (!FORM.test(cron)) return null;
  try {
    const parsed = new Cron(cron, { timezone: timeZone, paused: true });
    const next: NextTick = (wallMs) => parsed.nextRun(new Date(wallMs))?.getTime() ?? null;
    next(0); // only here a wrong time zone shows
    return next;
  } catch {
    return null;
  }
}

/** Resolves at that moment of the wall clock, also when the clock is set meanwhile. Rejects when the signal aborts. */
export async function sleepUntilWall(clock: Clock, wallMs: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  for (let leftMs = wallMs - clock.wallMs(); leftMs > 0; leftMs = wallMs - clock.wallMs()) {
    await clock.sleep(Math.min(leftMs, LOOK_AGAIN_MS), { signal });
  }
}
