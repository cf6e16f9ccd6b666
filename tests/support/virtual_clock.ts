/** A clock that stands still until the test moves it; sleepers wake in order of their time. */

import type { Clock } from "../../src/platform/clock.ts";

interface Sleeper {
  readonly atMs: number;
  readonly wake: () => void;
}

export class VirtualClock implements Clock {
  #nowMs = 1_000;
  #wallMs = Date.UTC(2030, 0, 1);
  readonly #sleepers = new Set<Sleeper>();

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#wallMs;
  }

  sleep(ms: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = () => {
        this.#sleepers.delete(sleeper);
        reject(signal?.reason);
      };
      const sleeper: Sleeper = {
        atMs: this.#nowMs + Math.max(0, ms),
        wake: () => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      this.#sleepers.add(sleeper);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Number of sleeps under way; 0 when a subject has left nothing behind. */
  get sleeping(): number {
    return this.#sleepers.size;
  }

  /** Lets `ms` pass; every sleeper wakes at its own time and runs as far as it can before the next one. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    await settled();
    while (true) {
      const next = [...this.#sleepers].sort((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined || next.atMs > untilMs) break;
      this.#moveTo(Math.max(this.#nowMs, next.atMs));
      this.#sleepers.delete(next);
      next.wake();
      await settled();
    }
    this.#moveTo(untilMs);
    await settled();
  }

  /** Time passes and nobody runs, as in a stopped process; the next `advance` wakes the late sleepers. */
  jump(ms: number): void {
    this.#moveTo(this.#nowMs + ms);
  }

  /** The wall clock alone is set. */
  stepWall(ms: number): void {
    this.#wallMs += ms;
  }

  #moveTo(nowMs: number): void {
    this.#wallMs += nowMs - this.#nowMs;
    this.#nowMs = nowMs;
  }
}

/** Resolves when all promise reactions that are due have run. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}
