/**
 * Reads one LTX file as it comes, without I/O, and verifies all of it: header, order and completeness of the pages,
 * index, checksum. Memory: the bytes of one frame beside the chunk that was fed. Pages are given out before the
 * checksum at the end of the file is known: nobody may rely on them until `end` has returned.
 */

import { assert } from "../../platform/assert.ts";
import { asStateManagerError, type StateManagerError } from "../../platform/errors.ts";
import { Crc64 } from "./crc64.ts";
import { damaged } from "./damage.ts";
import {
  CHECKSUM_FLAG,
  completenessProblem,
  LTX_HEADER_BYTES,
  LTX_TRAILER_BYTES,
  type LtxHeader,
  type LtxPage,
  orderProblem,
  readHeader,
  readTrailer,
  trailerProblem,
} from "./format.ts";
import { frameLayout, framePage, isEndMark, PAGE_HEADER_BYTES, readFrame } from "./page_frame.ts";
import { END_MARK_BYTES, writeIndexEntry } from "./page_index.ts";

export interface LtxSummary {
  readonly sizeBytes: number;
  /** Checksum of the file, verified. */
  readonly checksum: bigint;
  /** Checksum of the database after it, as the file says; 0 in files without. */
  readonly postApply: bigint;
  readonly pageCount: number;
}

type State = "header" | "pages" | "index" | "trailer" | "done";

/** What is taken beyond the need, so that a frame that comes byte by byte is not moved with each. */
const SPARE_LIMIT_BYTES = 128 * 1024;

/** Bytes that came and were not yet read. */
class ByteQueue {
  #bytes = new Uint8Array(4096);
  #from = 0;
  #to = 0;
  /** All that was taken so far. */
  taken = 0;

  get length(): number {
    return this.#to - this.#from;
  }

  put(chunk: Uint8Array): void {
    if (this.#to + chunk.length > this.#bytes.length) {
      const needed = this.length + chunk.length;
      const room = needed + Math.min(needed, SPARE_LIMIT_BYTES);
      const target = needed <= this.#bytes.length ? this.#bytes : new Uint8Array(room);
      target.set(this.#bytes.subarray(this.#from, this.#to));
      this.#bytes = target;
      this.#to -= this.#from;
      this.#from = 0;
    }
    this.#bytes.set(chunk, this.#to);
    this.#to += chunk.length;
  }

  /** What is there, valid until the next put. */
  peek(): Uint8Array {
    return this.#bytes.subarray(this.#from, this.#to);
  }

  take(count: number): Uint8Array {
    const bytes = this.#bytes.subarray(this.#from, this.#from + count);
    this.#from += count;
    this.taken += count;
    return bytes;
  }
}

export class LtxDecoder {
  readonly #file: string;
  readonly #keepsFrames: boolean;
  readonly #queue = new ByteQueue();
  readonly #crc = new Crc64();
  /** The index that the pages call for, as a checksum and a length: the one in the file must have the same. */
  readonly #wantedIndex = new Crc64();
  readonly #foundIndex = new Crc64();
  readonly #entry = new Uint8Array(24);
  #wantedIndexBytes = 0;
  #foundIndexBytes = 0;
  #state: State = "header";
  #header: LtxHeader | null = null;
  #lastPage = 0;
  #pageCount = 0;
  #summary: LtxSummary | null = null;
  #refusal: StateManagerError | null = null;

  /** `file` names it in errors. `frames`: pages come with theirs, but for those of an older kind. */
  constructor(file = "LTX file", options: { readonly frames?: boolean } = {}) {
    this.#file = file;
    this.#keepsFrames = options.frames === true;
  }

  /** Null until its 100 bytes have come. */
  get header(): LtxHeader | null {
    return this.#header;
  }

  /** The pages that `chunk` completes. It may expand 250-fold: `feed` and `next` give them one by one. */
  push(chunk: Uint8Array): LtxPage[] {
    this.feed(chunk);
    const pages: LtxPage[] = [];
    for (let page = this.next(); page !== null; page = this.next()) pages.push(page);
    return pages;
  }

  /** Takes bytes in; `next` must be called until it gives null before more are fed. */
  feed(chunk: Uint8Array): void {
    this.#queue.put(chunk);
  }

  /** The next page; null when more bytes are needed. A file that was refused once stays refused. */
  next(): LtxPage | null {
    if (this.#refusal !== null) throw this.#refusal;
    try {
      return this.#next();
    } catch (error) {
      this.#refusal = asStateManagerError(error);
      throw this.#refusal;
    }
  }

  #next(): LtxPage | null {
    for (;;) {
      const state = this.#state;
      if (state === "pages") {
        const page = this.#readPage();
        if (page !== null) return page;
      } else if (state === "header") this.#readHeader();
      else if (state === "index") this.#readIndex();
      else if (state === "trailer") this.#readTrailer();
      else if (this.#queue.length > 0) throw this.#damaged("bytes after its end");
      if (state === this.#state) return null;
    }
  }

  /** To be called after the last byte. `data-damaged` where the file is not whole. */
  end(): LtxSummary {
    assert(this.next() === null, "all pages are taken before the end");
    if (this.#summary === null) {
      const after = this.#queue.taken + this.#queue.length;
      throw this.#damaged(`ends after ${after} bytes, in its ${this.#place()}`);
    }
    return this.#summary;
  }

  #place(): string {
    return this.#state === "pages" && this.#lastPage > 0 ? `pages after page ${this.#lastPage}` : this.#state;
  }

  #damaged(what: string) {
    return damaged(this.#file, what);
  }

  #readHeader(): void {
    if (this.#queue.length < LTX_HEADER_BYTES) return;
    const bytes = this.#queue.take(LTX_HEADER_BYTES);
    this.#header = readHeader(bytes, this.#file);
    this.#crc.update(bytes);
    this.#state = "pages";
  }

  #readPage(): LtxPage | null {
    const header = this.#header;
    const bytes = this.#queue.peek();
    if (header === null || bytes.length < PAGE_HEADER_BYTES) return null;
    if (isEndMark(bytes)) {
      const problem = completenessProblem(header, this.#lastPage);
      if (problem !== null) throw this.#damaged(problem);
      this.#crc.update(this.#queue.take(END_MARK_BYTES));
      this.#addWantedIndex(Uint8Array.of(0));
      this.#state = "index";
      return null;
    }
    const layout = frameLayout(bytes, header.pageSize);
    if (typeof layout === "string") throw this.#damaged(layout);
    if (layout === null || bytes.length < layout.length) return null;
    const pgno = framePage(bytes);
    const order = orderProblem(header, this.#lastPage, pgno);
    if (order !== null) throw this.#damaged(order);
    const data = new Uint8Array(header.pageSize);
    const offset = this.#queue.taken;
    const frame = this.#queue.take(layout.length);
    const problem = readFrame(frame, layout, data);
    if (problem !== null) throw this.#damaged(`page ${pgno}: ${problem}`);
    this.#crc.update(frame.subarray(0, layout.prefixBytes));
    this.#crc.update(data);
    this.#addWantedIndex(
      this.#entry.subarray(0, writeIndexEntry(this.#entry, 0, pgno, offset, layout.length)),
    );
    this.#lastPage = pgno;
    this.#pageCount++;
    return this.#keepsFrames && layout.kind === "block"
      ? { pgno, data, frame: frame.slice() }
      : { pgno, data };
  }

  #addWantedIndex(bytes: Uint8Array): void {
    this.#wantedIndex.update(bytes);
    this.#wantedIndexBytes += bytes.length;
  }

  #readIndex(): void {
    const part = this.#queue.take(
      Math.min(this.#queue.length, this.#wantedIndexBytes - this.#foundIndexBytes),
    );
    this.#crc.update(part);
    this.#foundIndex.update(part);
    this.#foundIndexBytes += part.length;
    if (this.#foundIndexBytes < this.#wantedIndexBytes) return;
    if (this.#foundIndex.value() !== this.#wantedIndex.value()) {
      throw this.#damaged("its index differs from its pages");
    }
    this.#state = "trailer";
  }

  #readTrailer(): void {
    if (this.#queue.length < 8 + LTX_TRAILER_BYTES || this.#header === null) return;
    const bytes = this.#queue.take(8 + LTX_TRAILER_BYTES);
    const indexBytes = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0);
    if (indexBytes !== BigInt(this.#wantedIndexBytes)) {
      throw this.#damaged(`an index of ${indexBytes} bytes, ${this.#wantedIndexBytes} are there`);
    }
    const trailer = readTrailer(bytes, this.#file);
    const problem = trailerProblem(this.#header, trailer);
    if (problem !== null) throw this.#damaged(problem);
    this.#crc.update(bytes.subarray(0, bytes.length - 8));
    if ((CHECKSUM_FLAG | this.#crc.value()) !== trailer.checksum) {
      throw this.#damaged("its checksum differs from its content");
    }
    const sizeBytes = this.#queue.taken;
    this.#summary = { sizeBytes, pageCount: this.#pageCount, ...trailer };
    this.#state = "done";
  }
}

/** One page from its frame alone (found by a page index). A block frame has no checksum of its own. */
export function decodeFrame(
  frame: Uint8Array,
  pgno: number,
  pageSize: number,
  file = "LTX file",
): LtxPage {
  const layout = frameLayout(frame, pageSize);
  if (typeof layout === "string") throw damaged(file, layout);
  if (layout === null || layout.length !== frame.length || framePage(frame) !== pgno) {
    throw damaged(file, `no frame of page ${pgno} where the index says`);
  }
  const data = new Uint8Array(pageSize);
  const problem = readFrame(frame, layout, data);
  if (problem !== null) throw damaged(file, `page ${pgno}: ${problem}`);
  return { pgno, data };
}
