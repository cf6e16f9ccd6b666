/** How fast long work goes, and how long the rest of its phase will take at that. */

import type { ArchiveProgress } from "./types.ts";

/** The rate is that of the last while: what a slow start or a fast beginning was, is soon forgotten. */
const RATE_WINDOW_MS = 10_000;
/** Before this a rate says nothing. */
const RATE_FROM_MS = 1000;

export interface ProgressSpeed {
  /** Null while it is too early to say. */
  readonly bytesPerSecond: number | null;
  /** Null where the total is not known, or nothing moves. */
  readonly secondsLeft: number | null;
}

/** As it is told: in whole bytes and seconds, under the names of the API. */
export interface SpeedFigures {
  readonly bytes_per_second: number | null;
  readonly seconds_left: number | null;
}

export function speedFigures({ bytesPerSecond, secondsLeft }: ProgressSpeed): SpeedFigures {
  const whole = (value: number | null) => value === null ? null : Math.round(value);
  return { bytes_per_second: whole(bytesPerSecond), seconds_left: whole(secondsLeft) };
}

/** One for each listener or piece of work; `next` with all its progress, in order. */
export class ProgressRate {
  #phase: string | null = null;
  #samples: { readonly atMs: number; readonly bytes: number }[] = [];

  /** `nowMs` is monotonic. */
  next({ phase, bytes, totalBytes }: Omit<ArchiveProgress, "entries">, nowMs: number): ProgressSpeed {
    if (phase !== this.#phase) this.#samples = [];
    this.#phase = phase;
    this.#samples.push({ atMs: nowMs, bytes });
    // The one before the window stays: it is where the window begins.
    while ((this.#samples[1]?.atMs ?? Infinity) <= nowMs - RATE_WINDOW_MS) this.#samples.shift();
    const rate = this.#rate();
    if (rate === null || rate <= 0 || totalBytes === null) return { bytesPerSecond: rate, secondsLeft: null };
    // What is counted can pass what was expected: a tree that grew while it was read.
    return { bytesPerSecond: rate, secondsLeft: Math.max(0, totalBytes - bytes) / rate };
  }

  #rate(): number | null {
    const [first] = this.#samples;
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.atMs - first.atMs < RATE_FROM_MS) return null;
    return Math.max(0, (last.bytes - first.bytes) / (last.atMs - first.atMs) * 1000);
  }
}
