/**
 * Notices when the wall clock runs ahead of the monotonic one: a machine that was frozen from outside (a hypervisor's
 * pause, a snapshot brought back) may count the time in its wall clock only, as soon as that is set right. CLOCK_BOOTTIME
 * counts an ordinary suspend, which is no jump here. A wall clock that goes back means nothing.
 */

import type { Clock } from "../platform/clock.ts";

/** Less than the default margin of 3 s, and more than time services step a clock by once they have set it. */
const LARGEST_STEP_MS = 2_000;

export class WallClockWatch {
  readonly #clock: Clock;
  /** Wall less monotonic time, at the last proof or the last jump; lower when the wall clock went back since. */
  #baseMs: number;
  #sentMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#baseMs = this.#sentMs = this.#offsetMs();
  }

  /** True once for each jump ahead. */
  jumped(): boolean {
    const offsetMs = this.#offsetMs();
    const jumped = offsetMs - this.#baseMs > LARGEST_STEP_MS;
    if (jumped || offsetMs < this.#baseMs) this.#baseMs = offsetMs;
    return jumped;
  }

  /** A write that may become a proof is about to be sent. */
  sent(): void {
    this.#sentMs = this.#offsetMs();
  }

  /** The last write that was sent is one: what a clock drifted until then does not count any more. */
  proven(): void {
    this.#baseMs = Math.min(this.#sentMs, this.#offsetMs());
  }

  #offsetMs(): number {
    return this.#clock.wallMs() - this.#clock.monotonicMs();
  }
}
