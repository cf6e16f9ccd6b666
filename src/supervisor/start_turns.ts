/**
 * How many starts there are at a time. One takes some 2 ms, on a busy machine 10; a hundred in a row are a whole second, in
 * which the API would not answer and the lease would not be renewed. It does not matter what they come from: one look at
 * all, or as many timers, which the runtime calls one after the other before anybody else is heard.
 */

import type { Clock } from "../platform/clock.ts";

/** After so much of it the others have their turn. */
const STARTS_MS = 10;
/** So long: an answer of the API takes some turns of the loop, each of a fraction of a millisecond. */
const PAUSE_MS = 5;

export class StartTurns {
  readonly #clock: Clock;
  readonly #onTurn: () => void;
  /** What starts took since the loop was others' last. */
  #takenMs = 0;
  #lastEndMs = -Infinity;
  #isPause = false;
  readonly #ended = new AbortController();

  /** `onTurn` is called after each pause. */
  constructor(clock: Clock, onTurn: () => void) {
    this.#clock = clock;
    this.#onTurn = onTurn;
  }

  /** Nothing is to be started: it is others' turn. */
  get isPause(): boolean {
    return this.#isPause;
  }

  /** Does what may be a start; true from it: it was one. */
  take(start: () => boolean): boolean {
    const beganMs = this.#clock.monotonicMs();
    // Nothing was started for as long as a pause takes: the loop was others' meanwhile.
    if (beganMs - this.#lastEndMs >= PAUSE_MS) this.#takenMs = 0;
    const isTaken = start();
    if (!isTaken) return false;
    this.#lastEndMs = this.#clock.monotonicMs();
    this.#takenMs += this.#lastEndMs - beganMs;
    if (this.#takenMs >= STARTS_MS) void this.#pause();
    return true;
  }

  /** Nothing is started any more. */
  stop(): void {
    this.#ended.abort();
  }

  async #pause(): Promise<void> {
    if (this.#isPause) return;
    this.#isPause = true;
    await this.#clock.sleep(PAUSE_MS, { signal: this.#ended.signal }).catch(() => {});
    if (this.#ended.signal.aborted) return;
    this.#isPause = false;
    this.#takenMs = 0;
    this.#onTurn();
  }
}
