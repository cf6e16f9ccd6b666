/**
 * Lets a merge run in the process of the followers: between two pages it gives the event loop its turn, by time, so that
 * nobody waits longer for us than a turn and one page.
 */

/** Half of the 10 ms that a follower may be held up for: the rest is for the piece of work that runs then. */
const TURN_INTERVAL_MS = 5;

export class CompactionPace {
  #lastMs = performance.now();

  /** Null when it is not time yet, else a promise to await. */
  next(): Promise<void> | null {
    if (performance.now() - this.#lastMs < TURN_INTERVAL_MS) return null;
    return new Promise((resolve) =>
      setTimeout(() => {
        this.#lastMs = performance.now();
        resolve();
      }, 0)
    );
  }
}
