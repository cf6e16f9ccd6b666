/** How many lines a program may write: a bucket of `burst` lines that fills by `linesPerSecond`. Pure but for its state. */

export interface RateLimit {
  readonly linesPerSecond: number;
  readonly burst: number;
}

export class LineBudget {
  readonly #limit: RateLimit;
  #lines: number;
  #atMs: number;

  constructor(limit: RateLimit, nowMs: number) {
    this.#limit = limit;
    this.#lines = limit.burst;
    this.#atMs = nowMs;
  }

  /** Takes up to `wanted` lines out; gives how many there were. */
  take(wanted: number, nowMs: number): number {
    const { linesPerSecond, burst } = this.#limit;
    const earned = Math.max(0, nowMs - this.#atMs) / 1000 * linesPerSecond;
    this.#lines = Math.min(burst, this.#lines + earned);
    this.#atMs = nowMs;
    const taken = Math.min(wanted, Math.floor(this.#lines));
    this.#lines -= taken;
    return taken;
  }
}
