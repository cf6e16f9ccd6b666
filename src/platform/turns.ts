/**
 * Lets long work run beside others in one process: between two synchronous pieces it gives the event loop its turn, by
 * time, so that nobody waits longer than an interval and one piece. A single call that the disk or a busy machine holds
 * for longer is not bounded by it.
 */

export class Turns {
  readonly #intervalMs: number;
  #lastMs = performance.now();

  /** Work between two turns. */
  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /** Null when it is not time yet, else a promise to await. */
  next(): Promise<void> | null {
    if (performance.now() - this.#lastMs < this.#intervalMs) return null;
    return new Promise((resolve) =>
      setTimeout(() => {
        this.#lastMs = performance.now();
        resolve();
      }, 0)
    );
  }
}
