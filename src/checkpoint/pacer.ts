/**
 * Keeps long synchronous work polite: gives the event loop its turn (uploads go on, a cancel is seen) and tells
 * progress, both by time.
 */

import type { Clock } from "../platform/clock.ts";
import type { ArchiveProgress } from "./types.ts";

/** Work between two turns of the event loop. */
const TURN_INTERVAL_MS = 20;
/** At most ten a second reach the listener. */
export const PROGRESS_INTERVAL_MS = 100;

export class Pacer {
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  readonly #onProgress: (progress: ArchiveProgress) => void;
  #lastTurnMs: number;
  #lastProgressMs: number;
  #phase: ArchiveProgress["phase"] = "scan";
  #totalBytes: number | null = null;
  /** Counted for each entry: no object is made of them but to tell. */
  #entries = 0;
  #bytes = 0;

  constructor(options: {
    readonly clock: Clock;
    readonly signal: AbortSignal;
    readonly onProgress: (progress: ArchiveProgress) => void;
  }) {
    this.#clock = options.clock;
    this.#signal = options.signal;
    this.#onProgress = options.onProgress;
    this.#lastTurnMs = options.clock.monotonicMs();
    this.#lastProgressMs = this.#lastTurnMs;
  }

  /** Begins a phase; its counters start at zero. */
  begin(phase: ArchiveProgress["phase"], totalBytes: number | null): void {
    this.#phase = phase;
    this.#totalBytes = totalBytes;
    this.#entries = 0;
    this.#bytes = 0;
    this.#onProgress(this.#progress());
    this.#lastProgressMs = this.#clock.monotonicMs();
  }

  count(entries: number, bytes: number): void {
    this.#entries += entries;
    this.#bytes += bytes;
  }

  #progress(): ArchiveProgress {
    return {
      phase: this.#phase,
      entries: this.#entries,
      bytes: this.#bytes,
      totalBytes: this.#totalBytes,
    };
  }

  /** Tells progress if it is time. */
  tell(): void {
    const now = this.#clock.monotonicMs();
    if (now - this.#lastProgressMs < PROGRESS_INTERVAL_MS) return;
    this.#lastProgressMs = now;
    this.#onProgress(this.#progress());
  }

  /** Null when it is not time yet, else a promise to await. Throws the signal's reason when it was aborted. */
  turn(): Promise<void> | null {
    const now = this.#clock.monotonicMs();
    return now - this.#lastTurnMs < TURN_INTERVAL_MS ? null : this.pause();
  }

  /** A turn now: somebody waits for what the loop has to do. Throws as `turn` does. */
  pause(): Promise<void> {
    this.#signal.throwIfAborted();
    this.tell();
    return this.#clock.sleep(0).then(() => {
      this.#lastTurnMs = this.#clock.monotonicMs();
      this.#signal.throwIfAborted();
    });
  }
}
