/** A stop that takes long is told of now and then, so that the log says who is in the way. */

import type { Clock } from "../platform/clock.ts";

/** The first time after this, again after twice the time and so on. */
const TELL_AFTER_MS = 2_000;
const TELL_LONGEST_MS = 60_000;

export class SlowStop {
  readonly #clock: Clock;
  readonly #tell: () => void;
  #timer: AbortController | null = null;

  constructor(clock: Clock, tell: () => void) {
    this.#clock = clock;
    this.#tell = tell;
  }

  /** Called after every change: whether one is under way. */
  watch(isUnderWay: boolean): void {
    if (!isUnderWay) {
      this.#timer?.abort();
      this.#timer = null;
    } else if (this.#timer === null) {
      this.#timer = new AbortController();
      void this.#tellLater(this.#timer.signal);
    }
  }

  async #tellLater(signal: AbortSignal): Promise<void> {
    for (let waitMs = TELL_AFTER_MS; !signal.aborted; waitMs = Math.min(2 * waitMs, TELL_LONGEST_MS)) {
      await this.#clock.sleep(waitMs, { signal }).catch(() => {});
      if (!signal.aborted) this.#tell();
    }
  }
}
