/**
 * TXIDs of one database that must stay restorable: those of kept checkpoints, those that were given to a checkpoint
 * which is still being made, and those that a restore is on its way to. Without the latter two a merge could close over
 * a TXID before anybody has recorded it, or has brought it back.
 */

export class Pins {
  #kept: readonly number[];
  /** Given out, and not yet among the kept: ascending. */
  #held: number[] = [];
  #wanted: readonly number[] = [];

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

  /** In place of those that were wanted before. */
  want(txids: readonly number[]): void {
    this.#wanted = txids;
  }

  all(): readonly number[] {
    return [...new Set([...this.#kept, ...this.#held, ...this.#wanted])];
  }
}

/** Positions asked for in a row with no checkpoint that kept any: only the newest of those can still be wanted. */
const HELD_LIMIT = 16;
