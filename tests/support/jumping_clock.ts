/** The machine's clock that can be set ahead: sleepers whose time has come then wake at once. */

import { type Clock, systemClock } from "../../src/platform/clock.ts";

/** Made once, before any test: it loads libc, which older runtimes count as a leak of the test that does it. */
const machine = systemClock();

export class JumpingClock implements Clock {
  #aheadMs = 0;
  readonly #sleepers = new Set<{ readonly untilMs: number; readonly wake: AbortController }>();

  wallMs(): number {
    return machine.wallMs() + this.#aheadMs;
  }

  monotonicMs(): number {
    return machine.monotonicMs() + this.#aheadMs;
  }

  async sleep(ms: number, options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    const untilMs = this.monotonicMs() + ms;
    while (untilMs > this.monotonicMs()) {
      const wake = new AbortController();
      const sleeper = { untilMs, wake };
      this.#sleepers.add(sleeper);
      const ended = signal === undefined ? wake.signal : AbortSignal.any([signal, wake.signal]);
      await machine.sleep(untilMs - this.monotonicMs(), { signal: ended }).catch(() => {});
      this.#sleepers.delete(sleeper);
      signal?.throwIfAborted();
    }
    signal?.throwIfAborted();
  }

  jump(ms: number): void {
    this.#aheadMs += ms;
    for (const { untilMs, wake } of this.#sleepers) if (untilMs <= this.monotonicMs()) wake.abort();
  }

  /**
   * The same, with the machine's own wall clock: who compares that with the times of files, which come from there, must
   * not see it jump alone.
   */
  get besideFiles(): Clock {
    return {
      wallMs: () => machine.wallMs(),
      monotonicMs: () => this.monotonicMs(),
      sleep: (ms, options) => machine.sleep(ms, options),
    };
  }
}
