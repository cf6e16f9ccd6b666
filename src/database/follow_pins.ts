/**
 * TXIDs of one database that must stay restorable: those of kept checkpoints, and those that were given to a checkpoint
 * which is still being made. Without the latter a merge could close over a TXID before anybody has recorded it.
 */

export class Pins {
  #kept: readonly number[];
  /** Given out, and not yet among the kept: ascending. */
  #held: number[] = [];

  constructor(kept: readonly number[]) {
    this.#kept = kept;
  }

  /** Checkpoints are made one after the other: with a later one kept, whatever was held before it was given up. */
  keep(kept: readonly number[]): void {
    const newest = Math.max(0, ...kept);
    this.#kept = kept;
    this.#held = this.#held.filter((txid) => txid > newest);
  }

  hold(txid: number): void {
    if (this.#held.includes(txid)) return;
    this.#held = [...this.#held, txid].sort((a, b) => a - b).slice(-HELD_LIMIT);
  }

  all(): readonly number[] {
    return [...this.#kept, ...this.#held.filter((txid) => !this.#kept.includes(txid))];
  }
}

/** Positions asked for in a row with no checkpoint that kept any: only the newest of those can still be wanted. */
const HELD_LIMIT = 16;
