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
/** As cron has it: a clock that is set back by less brings no moment twice, by more it was wrong before. */
const CORRECTION_MS = 3 * 3_600_000;
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

/**
 * Resolves with true at that moment of the wall clock, also when the clock is set meanwhile; with false when it is set
 * back so far that the moment was one of a wrong clock: what is due is to be asked anew. Rejects when the signal aborts.
 */
export async function sleepUntilWall(clock: Clock, wallMs: number, signal: AbortSignal): Promise<boolean> {
  signal.throwIfAborted();
  let latestMs = clock.wallMs();
  for (let nowMs = latestMs; nowMs < wallMs; nowMs = clock.wallMs()) {
    if (nowMs < latestMs - CORRECTION_MS) return false;
    latestMs = Math.max(latestMs, nowMs);
    await clock.sleep(Math.min(wallMs - nowMs, LOOK_AGAIN_MS), { signal });
  }
  return true;
}
