/** The one source of randomness of a simulated history: equal seeds, equal histories. */

export class Chance {
  #state: number;

  constructor(seed: number) {
    // Neighbouring seeds must not give neighbouring histories.
    this.#state = Math.imul(seed ^ (seed >>> 16), 0x45d9f3b) >>> 0;
  }

  /** Uniform in [0, 1); Mulberry32. */
  float(): number {
    const a = this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  between(low: number, high: number): number {
    return low + (high - low) * this.float();
  }

  happens(probability: number): boolean {
    return this.float() < probability;
  }

  /** One of `count`, from 0. */
  below(count: number): number {
    return Math.floor(this.float() * count);
  }
}
