/**
 * From bytes to lines, bounded whatever a program writes. What one read brought stays together as a batch: one copy
 * and a list of offsets, so that a million lines a second cost no object each. The bytes stay as they are.
 */

export type OutputStream = "stdout" | "stderr";

/** Lines and pieces of lines that came together, in order. */
export interface OutputBatch {
  /** "note": a remark of the manager about this output, such as lines that were dropped. */
  readonly stream: OutputStream | "note";
  readonly wallMs: number;
  /** The pieces one after the other, each with its line end; one without a line end is a partial one. Nobody's to change. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Where each piece ends in `bytes`; never empty. */
  readonly ends: readonly number[];
  /** How many pieces of its line came before the first piece. */
  readonly firstPart: number;
}

/** One line, or a piece of one. */
export interface OutputPiece {
  /** Without its line end. */
  readonly text: Uint8Array<ArrayBuffer>;
  /** True when no newline ended it: the line goes on in the next piece of this stream, or broke off. */
  readonly partial: boolean;
  /** 0 for the first piece of a line, 1 for the second. */
  readonly part: number;
}

/** Docker's limit of one log message; longer lines come in pieces. */
export const LINE_LIMIT_BYTES = 16 * 1024;

const NEWLINE = 10;
const RETURN = 13;
/** A character of UTF-8 has at most three bytes that go on. */
const CONTINUATIONS = 3;

/** Splits one stream at newlines. Batches are copies: the caller may reuse its buffer. */
export class LineSplitter {
  readonly #stream: OutputStream;
  readonly #emit: (batch: OutputBatch) => void;
  readonly #wallMs: () => number;
  readonly #pending = new Uint8Array(LINE_LIMIT_BYTES);
  #length = 0;
  /** Pieces of the line under way that were emitted. */
  #part = 0;

  constructor(stream: OutputStream, wallMs: () => number, emit: (batch: OutputBatch) => void) {
    this.#stream = stream;
    this.#wallMs = wallMs;
    this.#emit = emit;
  }

  /** Bytes that wait for their newline. */
  get pendingBytes(): number {
    return this.#length;
  }

  push(chunk: Uint8Array): void {
    const bytes = new Uint8Array(this.#length + chunk.length);
    bytes.set(this.#pending.subarray(0, this.#length));
    bytes.set(chunk, this.#length);
    const ends: number[] = [];
    const firstPart = this.#part;
    let from = 0;
    // What was kept has no newline.
    for (let look = this.#length; from < bytes.length; look = from) {
      const newline = bytes.indexOf(NEWLINE, look);
      const end = newline < 0 ? bytes.length : newline;
      while (end - from > LINE_LIMIT_BYTES) {
        from = cutAt(bytes, from);
        ends.push(from);
        this.#part++;
      }
      if (newline < 0) break;
      from = newline + 1;
      ends.push(from);
      this.#part = 0;
    }
    this.#pending.set(bytes.subarray(from));
    this.#length = bytes.length - from;
    this.#send(bytes.subarray(0, from), ends, firstPart);
  }

  /** Emits what waits as a partial piece: the stream ended or went quiet. */
  flush(): void {
    if (this.#length === 0) return;
    const bytes = this.#pending.slice(0, this.#length);
    this.#length = 0;
    this.#send(bytes, [bytes.length], this.#part++);
  }

  #send(bytes: Uint8Array<ArrayBuffer>, ends: readonly number[], firstPart: number): void {
    if (ends.length === 0) return;
    this.#emit({ stream: this.#stream, wallMs: this.#wallMs(), bytes, ends, firstPart });
  }
}

/** Where a piece that begins at `from` ends: at the limit, or up to three bytes before it so as not to split a character. */
function cutAt(bytes: Uint8Array, from: number): number {
  const limit = from + LINE_LIMIT_BYTES;
  for (let cut = limit; cut >= limit - CONTINUATIONS; cut--) {
    if (((bytes[cut] ?? 0) & 0xc0) !== 0x80) return cut;
  }
  return limit; // no UTF-8
}

/** The pieces of a batch from index `from` on; they are views of its bytes. */
export function* piecesOf(batch: OutputBatch, from = 0): Generator<OutputPiece> {
  const { bytes, ends, firstPart } = batch;
  let part = from === 0 ? firstPart : partAt(batch, from);
  let start = from === 0 ? 0 : ends[from - 1] ?? 0;
  for (let index = from; index < ends.length; index++) {
    const end = ends[index] ?? 0;
    const partial = bytes[end - 1] !== NEWLINE;
    const textEnd = partial ? end : end - 1 - Number(end - 2 >= start && bytes[end - 2] === RETURN);
    yield { text: bytes.subarray(start, textEnd), partial, part };
    part = partial ? part + 1 : 0;
    start = end;
  }
}

function partAt({ bytes, ends, firstPart }: OutputBatch, index: number): number {
  let part = 0;
  for (let before = index - 1; before >= 0; before--) {
    if (bytes[(ends[before] ?? 0) - 1] === NEWLINE) return part;
    part++;
  }
  return part + firstPart;
}

/** The first `count` pieces of the batch, at least one. */
export function firstOf(batch: OutputBatch, count: number): OutputBatch {
  if (count >= batch.ends.length) return batch;
  const ends = batch.ends.slice(0, count);
  return { ...batch, bytes: batch.bytes.subarray(0, ends.at(-1) ?? 0), ends };
}

const encoder = new TextEncoder();

/** A remark of the manager, one line. */
export function noteOf(text: string, wallMs: number): OutputBatch {
  const bytes = encoder.encode(`state-manager: ${text}\n`);
  return { stream: "note", wallMs, bytes, ends: [bytes.length], firstPart: 0 };
}
