/**
 * What every simulated world has: virtual time, chance from a seed, faults while a storm lasts, a tally of them and a
 * trace. The order of draws from `chance` is part of a history: seeds are named in texts and tests.
 */

import { Chance } from "./chance.ts";
import { type NetworkWorld, type Reply, sendRequest } from "./lossy_network.ts";
import { Timeline } from "./timeline.ts";

export interface StormyWorldOptions {
  readonly stormMs: number;
  /** Null: nothing is traced. */
  readonly traceLines: number | null;
}

export abstract class StormyWorld implements NetworkWorld {
  readonly chance: Chance;
  readonly tally: Record<string, number> = {};
  nowMs = 0;
  readonly #options: StormyWorldOptions;
  readonly #timeline = new Timeline();
  readonly #lines: string[] = [];

  constructor(seed: number, options: StormyWorldOptions) {
    this.chance = new Chance(seed);
    this.#options = options;
  }

  get isStormy(): boolean {
    return this.nowMs < this.#options.stormMs;
  }

  /** Only while faults happen. */
  happens(probability: number): boolean {
    return this.isStormy && this.chance.float() < probability;
  }

  at(atMs: number, run: () => void): void {
    this.#timeline.add(Math.max(this.nowMs, atMs), run);
  }

  count(what: string): void {
    this.tally[what] = (this.tally[what] ?? 0) + 1;
  }

  trace(line: () => string): void {
    const { traceLines } = this.#options;
    if (traceLines === null) return;
    this.#lines.push(`${this.nowMs.toFixed(0).padStart(7)} ${line()}`);
    if (this.#lines.length > traceLines) this.#lines.shift();
  }

  /** One request of a machine; `apply` runs where it lands, `answer` gets what the machine hears. */
  request<T>(apply: () => T, answer: (reply: Reply<T>) => void): void {
    sendRequest(this, apply, answer);
  }

  protected get lines(): readonly string[] {
    return this.#lines;
  }

  /** Lets time pass until then, while `goesOn`. */
  protected pass(endMs: number, goesOn: () => boolean): void {
    while (goesOn()) {
      const next = this.#timeline.next();
      if (next === undefined || next.atMs > endMs) return;
      this.nowMs = next.atMs;
      next.run();
    }
  }
}
