/** The last lines of one process, for people who ask what it said. Bounded by lines and by bytes. */

import { type BatchFacts, batchFrom, type OutputBatch, piecesOf, restOf, splitAfter } from "./lines.ts";

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

/** A batch and the number of its first piece; its bytes are good as long as the batch's. */
export interface NumberedBatch {
  readonly batch: OutputBatch;
  readonly sequence: number;
}

/** Enough for a person to see what happened, little enough for a hundred processes. */
export const RING_LIMIT_LINES = 1000;
export const RING_LIMIT_BYTES = 256 * 1024;

/** What is known of a batch whose bytes are in the ring. */
interface Segment {
  facts: BatchFacts;
  /** Number of its first piece. */
  sequence: number;
  count: number;
  /** Bytes of it that are kept: the last ones. */
  length: number;
  /** True when its first bytes were written over, in the middle of a piece as a rule. */
  isCut: boolean;
  readonly filed: FilePosition;
}

/** Where the end of a batch is in what the log file takes, and whether it takes the batch at all. */
export interface FilePosition {
  readonly end: number;
  readonly isTaken: boolean;
}

const NOWHERE: FilePosition = { end: 0, isTaken: false };

const LEAST_MEMORY_BYTES = 1024;
const NEWLINE = 10;

/**
 * Bytes in a circle, written over without a look at them: a program that writes a gigabyte costs two copies of it and no
 * memory. Lines are looked for when somebody reads.
 */
export class LineRing {
  #memory = new Uint8Array(0);
  /** Where the next byte goes. */
  #end = 0;
  #bytes = 0;
  #segments: Segment[] = [];
  /** Pieces of all segments. */
  #count = 0;
  #sequence = 0;

  /** Number of the newest piece; 0 before the first. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Gives the batch its number, and copies what it keeps of it. */
  push(batch: OutputBatch, filed = NOWHERE): NumberedBatch {
    const numbered = { batch, sequence: this.#sequence + 1 };
    const { stream, wallMs, firstPart, count } = batch;
    const bytes = batch.bytes.subarray(Math.max(0, batch.bytes.length - RING_LIMIT_BYTES));
    this.#makeRoom(bytes.length);
    this.#write(bytes);
    this.#segments.push({
      facts: { stream, wallMs, firstPart },
      sequence: numbered.sequence,
      count,
      length: bytes.length,
      isCut: bytes.length < batch.bytes.length,
      filed,
    });
    this.#bytes += bytes.length;
    this.#count += count;
    this.#sequence += count;
    let gone = 0;
    for (let first = this.#segments[0]; first !== undefined; first = this.#segments[++gone]) {
      if (this.#count - first.count < RING_LIMIT_LINES) break;
      this.#count -= first.count;
      this.#bytes -= first.length;
    }
    if (gone > 0) this.#segments.splice(0, gone);
    return numbered;
  }

  /** Grows as long as it may; then the oldest bytes go. */
  #makeRoom(wanted: number): void {
    const least = this.#bytes + wanted;
    const { length } = this.#memory;
    if (least > length && length < RING_LIMIT_BYTES) {
      let room = Math.max(LEAST_MEMORY_BYTES, length);
      while (room < least && room < RING_LIMIT_BYTES) room *= 2;
      const memory = new Uint8Array(room);
      memory.set(this.#read(this.#bytes, 0));
      this.#memory = memory;
      this.#end = this.#bytes;
    }
    let excess = least - this.#memory.length;
    let gone = 0;
    for (let first = this.#segments[0]; first !== undefined && excess > 0; first = this.#segments[gone]) {
      const cut = Math.min(excess, first.length);
      excess -= cut;
      first.length -= cut;
      first.isCut = true;
      this.#bytes -= cut;
      if (first.length > 0) break;
      this.#count -= first.count;
      gone++;
    }
    if (gone > 0) this.#segments.splice(0, gone);
  }

  #write(bytes: Uint8Array): void {
    if (this.#end === this.#memory.length) this.#end = 0;
    const before = bytes.subarray(0, this.#memory.length - this.#end);
    this.#memory.set(before, this.#end);
    this.#memory.set(bytes.subarray(before.length));
    this.#end = before.length < bytes.length ? bytes.length - before.length : this.#end + bytes.length;
  }

  /** A copy of `length` bytes, before which `skipped` of those that are kept lie. */
  #read(length: number, skipped: number): Uint8Array<ArrayBuffer> {
    const { length: room } = this.#memory;
    const bytes = new Uint8Array(length);
    if (length === 0) return bytes;
    const start = (this.#end - this.#bytes + skipped + 2 * room) % room;
    const before = this.#memory.subarray(start, Math.min(room, start + length));
    bytes.set(before);
    bytes.set(this.#memory.subarray(0, length - before.length), before.length);
    return bytes;
  }

  /** Makes the first segment begin with a piece, and have no more pieces than there may be. */
  #tidy(): void {
    const [first] = this.#segments;
    if (first === undefined || (!first.isCut && this.#count <= RING_LIMIT_LINES)) return;
    let bytes = this.#read(first.length, 0);
    if (first.isCut) {
      // A piece whose begin is lost goes; of a very long line that may be some more.
      bytes = bytes.subarray((bytes.indexOf(NEWLINE) + 1) || bytes.length);
      first.facts = { ...first.facts, firstPart: 0 };
    }
    let batch = bytes.length === 0 ? null : batchFrom(first.facts, bytes);
    const others = this.#count - first.count;
    const excess = others + (batch?.count ?? 0) - RING_LIMIT_LINES;
    if (batch !== null && excess > 0) batch = restOf(batch, excess);
    const { length: kept } = batch?.bytes ?? [];
    const count = batch?.count ?? 0;
    this.#bytes -= first.length - kept;
    first.isCut = false;
    first.length = kept;
    first.sequence += first.count - count;
    first.count = count;
    if (batch === null) this.#segments.shift();
    else first.facts = { ...first.facts, firstPart: batch.firstPart };
    this.#count = others + count;
  }

  /** Copies of what is kept after the piece `sequence`, oldest first; the first batch may begin before it. */
  after(sequence: number): NumberedBatch[] {
    this.#tidy();
    const found: NumberedBatch[] = [];
    let skipped = 0;
    for (const { facts, sequence: first, count, length } of this.#segments) {
      if (first + count - 1 > sequence) {
        found.push({ batch: batchFrom(facts, this.#read(length, skipped)), sequence: first });
      }
      skipped += length;
    }
    return found;
  }

  /** Number of the oldest piece that is kept, or of the next one. */
  get firstSequence(): number {
    this.#tidy();
    return this.#sequence - this.#count + 1;
  }

  /** Where the oldest piece that is kept is in what the log file takes; null: none is kept. */
  get filePosition(): number | null {
    this.#tidy();
    const [first] = this.#segments;
    if (first === undefined) return null;
    return first.filed.end - (first.filed.isTaken ? first.length : 0);
  }

  /** The last `limit` pieces, oldest first. */
  last(limit = RING_LIMIT_LINES): OutputLine[] {
    const after = this.#sequence - Math.max(0, limit);
    return this.after(after).flatMap((numbered) => linesOf(numbered, after));
  }
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** The pieces of a batch whose number is greater than `after`. */
export function linesOf({ batch, sequence }: NumberedBatch, after = 0): OutputLine[] {
  const skip = Math.max(0, after - sequence + 1);
  const { wallMs, stream } = batch;
  let number = sequence + skip;
  const texts = skip === 0 ? textsOf(batch) : null;
  if (texts !== null) {
    return texts.map((text) => ({ sequence: number++, wallMs, stream, text, partial: false, part: 0 }));
  }
  const lines: OutputLine[] = [];
  for (const { text, partial, part } of piecesOf(batch, skip)) {
    lines.push({ sequence: number++, wallMs, stream, text: decoder.decode(text), partial, part });
  }
  return lines;
}

/** The first pieces of a batch, `most` of them, and the rest; null: none is left. */
export function sliceOf(
  numbered: NumberedBatch,
  most: number,
): { lines: OutputLine[]; rest: NumberedBatch | null } {
  const { batch, sequence } = numbered;
  if (batch.count <= most) return { lines: linesOf(numbered), rest: null };
  const [head, rest] = splitAfter(batch, most);
  return { lines: linesOf({ batch: head, sequence }), rest: { batch: rest, sequence: sequence + most } };
}

/** All pieces decoded at once, several times as fast as one by one; null where not every one of them is a whole line. */
function textsOf(batch: OutputBatch): string[] | null {
  const { bytes, count, firstPart } = batch;
  if (firstPart > 0 || bytes.at(-1) !== NEWLINE) return null;
  const texts = decoder.decode(bytes).split("\n");
  texts.pop();
  if (texts.length !== count) return null; // a line of several pieces
  return texts.map((text) => text.endsWith("\r") ? text.slice(0, -1) : text);
}
