/** At most so many at a time; the others wait in order. */

import { StateManagerError } from "./errors.ts";

/** Waiting bodies are memory: far more than any room queues, and still bounded. */
const MOST_WAITING = 10_000;

export class LimitedTurns {
  readonly #action: string;
  readonly #waiting: (() => void)[] = [];
  #free: number;

  /** `action`: what is waited for, for the error of a queue that is too long. */
  constructor(action: string, concurrency: number) {
    this.#action = action;
    this.#free = concurrency;
  }

  /** Resolves with our turn, which is given back by `give`; rejects, without one, when `signal` aborts first. */
  take(signal: AbortSignal): Promise<void> {
    // Nothing would tell this one's place in the queue from one whose caller still waits: its turn would never be given back.
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve();
    }
    if (this.#waiting.length >= MOST_WAITING) {
      throw new StateManagerError(
        "busy",
        `${this.#action}: ${MOST_WAITING} operations are waiting already`,
      );
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const turn = () => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    };
    const onAbort = () => {
      const at = this.#waiting.indexOf(turn);
      if (at < 0) return; // it has its turn
      this.#waiting.splice(at, 1);
      reject(signal.reason);
    };
    this.#waiting.push(turn);
    signal.addEventListener("abort", onAbort, { once: true });
    return promise;
  }

  give(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}
