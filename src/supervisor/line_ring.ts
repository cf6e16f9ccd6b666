/** The last lines of one process, for people who ask what it said. Bounded by lines and by bytes. */

import { type OutputBatch, piecesOf } from "./lines.ts";

/** One kept piece of output. */
export interface OutputLine {
  /** Grows by one with each piece of this process, across its restarts. */
  readonly sequence: number;
  readonly wallMs: number;
  readonly stream: OutputBatch["stream"];
  /** Bytes that are no UTF-8 show as U+FFFD. */
  readonly text: string;
  readonly partial: boolean;
  readonly part: number;
}

/** A batch and the number of its first piece. */
export interface NumberedBatch {
  readonly batch: OutputBatch;
  readonly sequence: number;
}

/** Enough for a person to see what happened, little enough for a hundred processes. */
export const RING_LIMIT_LINES = 1000;
export const RING_LIMIT_BYTES = 256 * 1024;

/** Whole batches are kept, so one that is mostly forgotten still holds its bytes: at most one read more than the limit. */
export class LineRing {
  #batches: NumberedBatch[] = [];
  /** Pieces of the first batch that are forgotten. */
  #skipped = 0;
  #count = 0;
  #bytes = 0;
  #sequence = 0;

  /** Number of the newest piece; 0 before the first. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Gives the batch its number. */
  push(batch: OutputBatch): NumberedBatch {
    const numbered = { batch, sequence: this.#sequence + 1 };
    this.#sequence += batch.ends.length;
    this.#batches.push(numbered);
    this.#count += batch.ends.length;
    this.#bytes += batch.bytes.length;
    this.#forget();
    return numbered;
  }

  #forget(): void {
    let gone = 0;
    while (this.#count > RING_LIMIT_LINES || this.#bytes > RING_LIMIT_BYTES) {
      const ends = this.#batches[gone]?.batch.ends ?? [];
      this.#bytes -= (ends[this.#skipped] ?? 0) - (ends[this.#skipped - 1] ?? 0);
      this.#count--;
      this.#skipped++;
      if (this.#skipped < ends.length) continue;
      this.#skipped = 0;
      gone++;
    }
    if (gone > 0) this.#batches.splice(0, gone);
  }

  /** What is kept after the piece `sequence`, oldest first; the first batch may begin before it. */
  after(sequence: number): NumberedBatch[] {
    const oldest = this.#sequence - this.#count;
    const from = Math.max(sequence, oldest);
    return this.#batches.filter(({ batch, sequence: first }) => first + batch.ends.length - 1 > from);
  }

  /** Number of the oldest piece that is kept, or of the next one. */
  get firstSequence(): number {
    return this.#sequence - this.#count + 1;
  }

  /** The last `limit` pieces, oldest first. */
  last(limit = RING_LIMIT_LINES): OutputLine[] {
    const after = this.#sequence - Math.min(Math.max(0, limit), this.#count);
    return this.after(after).flatMap((numbered) => linesOf(numbered, after));
  }
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** The pieces of a batch whose number is greater than `after`. */
export function linesOf({ batch, sequence }: NumberedBatch, after = 0): OutputLine[] {
  const skip = Math.max(0, after - sequence + 1);
  const { wallMs, stream } = batch;
  let number = sequence + skip;
  const lines: OutputLine[] = [];
  for (const { text, partial, part } of piecesOf(batch, skip)) {
    lines.push({ sequence: number++, wallMs, stream, text: decoder.decode(text), partial, part });
  }
  return lines;
}
