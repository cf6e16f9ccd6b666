/** Work of one followed database that is tried until it succeeds, with longer and longer pauses: nothing ever gives it up. */

import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, type StateManagerError } from "../platform/errors.ts";
import { retryDelayMs } from "./follow_rules.ts";

export interface PersistenceOptions {
  readonly clock: Clock;
  /** The number of failures in a row with the last one, and 0 with null when it works again. */
  readonly onFailures: (failures: number, error: StateManagerError | null) => void;
}

export class Persistence {
  readonly #options: PersistenceOptions;
  #failures = 0;

  constructor(options: PersistenceOptions) {
    this.#options = options;
  }

  /** In a row; 0 while it works. */
  get failures(): number {
    return this.#failures;
  }

  /** Rejects with the signal's reason alone. */
  async run<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const { clock, onFailures } = this.#options;
    for (;;) {
      try {
        const result = await work();
        if (this.#failures > 0) onFailures(this.#failures = 0, null);
        return result;
      } catch (error) {
        signal.throwIfAborted();
        onFailures(++this.#failures, asStateManagerError(error));
        await clock.sleep(retryDelayMs(this.#failures), { signal });
      }
    }
  }
}
