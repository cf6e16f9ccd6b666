/** One who follows the output of a process. Slow ones lose the oldest of what waits for them; the numbers show the gap. */

import type { NumberedBatch } from "./line_ring.ts";

/** What waits for a follower: a few seconds of a talkative program. Batches are shared, so most followers cost nothing. */
const QUEUE_LIMIT_BYTES = 1 << 20;
/** Batches of one short line each must not pile up either. */
const QUEUE_LIMIT_BATCHES = 4096;

export class LogFollower {
  #queue: NumberedBatch[];
  #bytes: number;
  #wake: (() => void) | null = null;
  #closed = false;
  readonly #onClose: () => void;

  constructor(kept: readonly NumberedBatch[], onClose: () => void) {
    this.#queue = [...kept];
    this.#bytes = kept.reduce((sum, { batch }) => sum + batch.bytes.length, 0);
    this.#onClose = onClose;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** A batch whose bytes stay as they are. */
  push(numbered: NumberedBatch): void {
    this.#queue.push(numbered);
    this.#bytes += numbered.batch.bytes.length;
    let gone = 0;
    while (this.#bytes > QUEUE_LIMIT_BYTES || this.#queue.length - gone > QUEUE_LIMIT_BATCHES) {
      this.#bytes -= this.#queue[gone]?.batch.bytes.length ?? 0;
      gone++;
    }
    if (gone > 0) this.#queue.splice(0, gone);
    this.#wake?.();
  }

  /** What came since the last time, in order; numbers that are missing were dropped. Null: nothing yet. */
  next(): NumberedBatch | null {
    const first = this.#queue.shift();
    if (first === undefined) return null;
    this.#bytes -= first.batch.bytes.length;
    return first;
  }

  /** Resolves when there may be something, or it is closed. One waits at a time. */
  async wait(): Promise<void> {
    if (this.#queue.length > 0 || this.#closed) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    this.#wake = null;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#onClose();
    this.#wake?.();
  }
}
