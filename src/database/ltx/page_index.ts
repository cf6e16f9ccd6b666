/**
 * The index of a file: for each page its number, and offset and length of its frame, as varints in ascending order,
 * then a 0. With it one page is read by two ranged reads (`tailOf`, `decodeIndex`, then the frame).
 */

import { damaged } from "./damage.ts";
import { LTX_HEADER_BYTES, LTX_TRAILER_BYTES, type LtxTrailer, readTrailer } from "./format.ts";
import { VARINT_LIMIT_BYTES, VarintReader, writeVarint } from "./varint.ts";

/** Length of the index, then the trailer: what a ranged read begins with. */
export const LTX_TAIL_BYTES = 8 + LTX_TRAILER_BYTES;
/** Ends the page frames: a page header of zeros. */
export const END_MARK_BYTES = 6;

const ENTRY_LIMIT_BYTES = 3 * VARINT_LIMIT_BYTES;

/** Writes one entry; the place after it. 24 bytes must be free. */
export function writeIndexEntry(
  target: Uint8Array,
  at: number,
  pgno: number,
  offset: number,
  length: number,
): number {
  return writeVarint(target, writeVarint(target, writeVarint(target, at, pgno), offset), length);
}

/** Collects the index while a file is written. Memory: 6 to 10 bytes per page. */
export class IndexWriter {
  #bytes = new Uint8Array(1024);
  #used = 0;

  add(pgno: number, offset: number, length: number): void {
    if (this.#used + ENTRY_LIMIT_BYTES > this.#bytes.length) {
      const grown = new Uint8Array(this.#bytes.length * 2);
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#used = writeIndexEntry(this.#bytes, this.#used, pgno, offset, length);
  }

  /** The index with its end and its length, as they stand in the file. */
  finish(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.#used + 1 + 8);
    bytes.set(this.#bytes.subarray(0, this.#used));
    new DataView(bytes.buffer).setBigUint64(this.#used + 1, BigInt(this.#used + 1));
    return bytes;
  }
}

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

export interface LtxTail {
  /** Where the index lies in the file. */
  readonly index: ByteRange;
  readonly trailer: LtxTrailer;
}

/** Reads the last 24 bytes of a file of `sizeBytes`. */
export function readTail(tail: Uint8Array, sizeBytes: number, file = "LTX file"): LtxTail {
  const smallest = LTX_HEADER_BYTES + END_MARK_BYTES + 1 + LTX_TAIL_BYTES;
  if (sizeBytes < smallest) throw damaged(file, `${sizeBytes} bytes, a file has at least ${smallest}`);
  if (tail.length !== LTX_TAIL_BYTES) throw damaged(file, `a tail of ${tail.length} bytes`);
  const length = new DataView(tail.buffer, tail.byteOffset).getBigUint64(0);
  const room = sizeBytes - LTX_HEADER_BYTES - END_MARK_BYTES - LTX_TAIL_BYTES;
  if (length === 0n || length > BigInt(room)) {
    throw damaged(file, `an index of ${length} bytes in a file of ${sizeBytes}`);
  }
  const index = { offset: sizeBytes - LTX_TAIL_BYTES - Number(length), length: Number(length) };
  return { index, trailer: readTrailer(tail, file) };
}

/** Where the frame of each page lies. Memory: 16 bytes per page. */
export class PageIndex {
  readonly #pgnos: Uint32Array;
  /** One more than pages: the last is where the frames end. */
  readonly #offsets: Float64Array;

  constructor(pgnos: Uint32Array, offsets: Float64Array) {
    this.#pgnos = pgnos;
    this.#offsets = offsets;
  }

  get count(): number {
    return this.#pgnos.length;
  }

  /** Where the frame of page `pgno` is; null when the file does not have that page. */
  find(pgno: number): ByteRange | null {
    let low = 0;
    let high = this.#pgnos.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#pgnos[middle] as number) < pgno) low = middle + 1;
      else high = middle;
    }
    if (this.#pgnos[low] !== pgno) return null;
    const offset = this.#offsets[low] as number;
    return { offset, length: (this.#offsets[low + 1] as number) - offset };
  }

  pages(): IterableIterator<number> {
    return this.#pgnos.values();
  }
}

/** The index from the bytes that `readTail` pointed at; they begin at `indexOffset` of the file. */
export function decodeIndex(bytes: Uint8Array, indexOffset: number, file = "LTX file"): PageIndex {
  // Three varints have at least three bytes, so the input itself bounds what is allocated.
  const most = Math.floor(bytes.length / 3);
  const pgnos = new Uint32Array(most);
  const offsets = new Float64Array(most + 1);
  const reader = new VarintReader(bytes);
  let end = LTX_HEADER_BYTES;
  let previous = 0;
  let count = 0;
  for (;;) {
    const pgno = reader.next();
    if (pgno === 0) break;
    const offset = reader.next();
    const length = reader.next();
    if (pgno === null || offset === null || length === null) {
      throw damaged(file, "the index ends in an entry");
    }
    if (pgno <= previous || pgno > 0xffffffff) {
      throw damaged(file, `page ${pgno} after ${previous} in the index`);
    }
    if (offset !== end) {
      throw damaged(file, `page ${pgno} at ${offset} in the index, the one before ends at ${end}`);
    }
    pgnos[count] = pgno;
    offsets[count++] = offset;
    previous = pgno;
    end = offset + length;
  }
  offsets[count] = end;
  if (!reader.isAtEnd) throw damaged(file, "bytes after the end of the index");
  if (end + END_MARK_BYTES !== indexOffset) {
    throw damaged(file, `the frames end at ${end} by the index, which begins at ${indexOffset}`);
  }
  return new PageIndex(pgnos.slice(0, count), offsets.slice(0, count + 1));
}
