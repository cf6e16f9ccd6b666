/**
 * From bytes to lines, bounded whatever a program writes. What one read brought stays together as a batch, whose last
 * newline is all that is looked for: where its lines end is found out when somebody asks. The bytes stay as they are.
 */

import { countNewlines } from "../platform/count_newlines.ts";

export type OutputStream = "stdout" | "stderr";

/** Lines and pieces of lines that came together, in order. */
export interface OutputBatch {
  /** "note": a remark of the manager about this output, such as lines that were dropped. */
  readonly stream: OutputStream | "note";
  readonly wallMs: number;
  /**
   * The pieces one after the other, each with its line end; one without a line end is a partial one. Never empty, nobody's
   * to change. Good until whoever was given the batch returns: the reader's buffer is used again. `copyOf` is for keeping.
   */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** How many pieces of its line came before the first piece. */
  readonly firstPart: number;
  /** Number of pieces; reads all bytes once. */
  readonly count: number;
  /** Where each piece ends in `bytes`; many times dearer than `count`. */
  readonly ends: readonly number[];
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

/** All but what the bytes themselves say. */
export type BatchFacts = Pick<OutputBatch, "stream" | "wallMs" | "firstPart">;

class Batch implements OutputBatch {
  readonly stream: OutputBatch["stream"];
  readonly wallMs: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly firstPart: number;
  #count: number | undefined;
  #ends: readonly number[] | undefined;

  constructor(from: BatchFacts, bytes: Uint8Array<ArrayBuffer>, count?: number) {
    this.stream = from.stream;
    this.wallMs = from.wallMs;
    this.firstPart = from.firstPart;
    this.bytes = bytes;
    this.#count = count;
  }

  get count(): number {
    return this.#count ??= this.#ends?.length ?? countOfPieces(this.bytes) ?? this.ends.length;
  }

  get ends(): readonly number[] {
    return this.#ends ??= endsOfPieces(this.bytes);
  }
}

/** Splits one stream at newlines. */
export class LineSplitter {
  readonly #stream: OutputStream;
  readonly #emit: (batch: OutputBatch) => void;
  readonly #wallMs: () => number;
  #pending = new Uint8Array(0);
  #length = 0;
  /** Pieces of the line under way that were emitted. */
  #part = 0;

  constructor(stream: OutputStream, wallMs: () => number, emit: (batch: OutputBatch) => void) {
    this.#stream = stream;
    this.#wallMs = wallMs;
    this.#emit = emit;
  }

  /** Bytes that wait for their newline; never more than LINE_LIMIT_BYTES. */
  get pendingBytes(): number {
    return this.#length;
  }

  /** What is emitted is a copy: the caller may reuse its buffer. */
  push(chunk: Uint8Array): void {
    const bytes = new Uint8Array(this.#length + chunk.length);
    bytes.set(chunk, this.#length);
    this.#split(bytes);
  }

  /**
   * Without a copy: emits views of the chunk's own buffer. Before the chunk it has LINE_LIMIT_BYTES of room, which what
   * waits for its newline is put into.
   */
  pushInPlace(chunk: Uint8Array<ArrayBuffer>): void {
    const { buffer, byteOffset, length } = chunk;
    this.#split(new Uint8Array(buffer, byteOffset - this.#length, this.#length + length));
  }

  /** Emits what waits as a partial piece: the stream ended or went quiet. */
  flush(): void {
    if (this.#length === 0) return;
    const bytes = this.#pending.slice(0, this.#length);
    this.#length = 0;
    this.#send(bytes, this.#part++);
  }

  /** `bytes` begin with room for what waits, which has no newline. */
  #split(bytes: Uint8Array<ArrayBuffer>): void {
    bytes.set(this.#pending.subarray(0, this.#length));
    const newline = bytes.subarray(this.#length).lastIndexOf(NEWLINE);
    let end = newline < 0 ? 0 : this.#length + newline + 1;
    const firstPart = this.#part;
    if (end > 0) this.#part = 0;
    while (bytes.length - end > LINE_LIMIT_BYTES) {
      end = cutAt(bytes, end);
      this.#part++;
    }
    this.#length = bytes.length - end;
    if (this.#length > this.#pending.length) this.#pending = new Uint8Array(pendingRoom(this.#length));
    this.#pending.set(bytes.subarray(end));
    if (end > 0) this.#send(bytes.subarray(0, end), firstPart);
  }

  #send(bytes: Uint8Array<ArrayBuffer>, firstPart: number): void {
    this.#emit(new Batch({ stream: this.#stream, wallMs: this.#wallMs(), firstPart }, bytes));
  }
}

/** Most programs have short lines, and there may be a hundred of these. */
const LEAST_PENDING_BYTES = 256;

function pendingRoom(length: number): number {
  return length <= LEAST_PENDING_BYTES ? LEAST_PENDING_BYTES : LINE_LIMIT_BYTES;
}

function endsOfPieces(bytes: Uint8Array, most = Infinity): number[] {
  const ends: number[] = [];
  for (let from = 0; from < bytes.length && ends.length < most;) {
    const newline = bytes.indexOf(NEWLINE, from);
    const end = newline < 0 ? bytes.length : newline;
    while (end - from > LINE_LIMIT_BYTES) {
      from = cutAt(bytes, from);
      ends.push(from);
    }
    from = newline < 0 ? bytes.length : newline + 1;
    ends.push(from);
  }
  return ends;
}

/** Null where a line may be longer than the limit: then pieces are more than newlines. */
function countOfPieces(bytes: Uint8Array<ArrayBuffer>): number | null {
  const newlines = countNewlines(bytes, LINE_LIMIT_BYTES);
  if (newlines === null) return null;
  return bytes.at(-1) === NEWLINE ? newlines : newlines + 1; // the last piece may have no line end
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
  if (count >= batch.count) return batch;
  return new Batch(batch, batch.bytes.subarray(0, batch.ends[count - 1] ?? 0));
}

/** The first `most` pieces, and the rest, which there is; looks at no more than these. */
export function splitAfter(batch: OutputBatch, most: number): [OutputBatch, OutputBatch] {
  const { stream, wallMs, bytes, count } = batch;
  const ends = endsOfPieces(bytes, most).slice(0, most); // the end of a long line brings one more
  const head = new Batch(batch, bytes.subarray(0, ends.at(-1) ?? 0), ends.length);
  const facts = { stream, wallMs, firstPart: partAt(head, ends.length) };
  return [head, new Batch(facts, bytes.subarray(head.bytes.length), count - ends.length)];
}

/** The whole in parts of at most so many pieces, each of at most so many bytes where it is not a single piece. */
export function* partsOf(batch: OutputBatch, mostPieces: number, mostBytes: number): Generator<OutputBatch> {
  let rest = batch;
  while (rest.count > 1 && (rest.count > mostPieces || rest.bytes.length > mostBytes)) {
    let most = Math.min(mostPieces, rest.count - 1);
    let [head, behind] = splitAfter(rest, most);
    while (most > 1 && head.bytes.length > mostBytes) {
      most = most >> 1;
      [head, behind] = splitAfter(rest, most);
    }
    yield head;
    rest = behind;
  }
  yield rest;
}

/** The pieces from index `from` on, of which there is one. */
export function restOf(batch: OutputBatch, from: number): OutputBatch {
  if (from === 0) return batch;
  const { stream, wallMs } = batch;
  const firstPart = partAt(batch, from);
  return new Batch({ stream, wallMs, firstPart }, batch.bytes.subarray(batch.ends[from - 1]));
}

/** The same with bytes that stay as they are. */
export function copyOf(batch: OutputBatch): OutputBatch {
  return new Batch(batch, batch.bytes.slice(), batch.count);
}

/** A batch from what was kept of one, or of the end of one. */
export function batchFrom(facts: BatchFacts, bytes: Uint8Array<ArrayBuffer>): OutputBatch {
  return new Batch(facts, bytes);
}

const encoder = new TextEncoder();

/** A remark of the manager, one line. */
export function noteOf(text: string, wallMs: number): OutputBatch {
  const bytes = encoder.encode(`state-manager: ${text}\n`);
  return new Batch({ stream: "note", wallMs, firstPart: 0 }, bytes);
}
