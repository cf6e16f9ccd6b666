/**
 * Writes one LTX file, page by page, without I/O: the caller sends on what each call returns. Memory: one frame and
 * the index. Every rule of the format that depends on what is written is asserted here, so that no file of ours can
 * be one that a reader refuses.
 */

import { assert } from "../../platform/assert.ts";
import { Crc64 } from "./crc64.ts";
import {
  CHECKSUM_FLAG,
  completeHeader,
  completenessProblem,
  LTX_TRAILER_BYTES,
  type LtxHeader,
  type LtxHeaderInput,
  orderProblem,
  writeHeader,
} from "./format.ts";
import { BLOCK_PREFIX_BYTES, frameBound, writeFrame } from "./page_frame.ts";
import { END_MARK_BYTES, IndexWriter } from "./page_index.ts";

export interface FinishedLtx {
  /** The end of the file: end mark, index, trailer. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Of the whole file. */
  readonly sizeBytes: number;
  /** Checksum of the file, as its last 8 bytes have it. */
  readonly checksum: bigint;
}

export class LtxEncoder {
  readonly header: LtxHeader;
  readonly #crc = new Crc64();
  readonly #index = new IndexWriter();
  readonly #frame: Uint8Array<ArrayBuffer>;
  #state: "new" | "pages" | "finished" = "new";
  #written = 0;
  #lastPage = 0;

  constructor(header: LtxHeaderInput) {
    this.header = completeHeader(header);
    this.#frame = new Uint8Array(frameBound(header.pageSize));
  }

  /** The header. */
  start(): Uint8Array<ArrayBuffer> {
    assert(this.#state === "new", "an LTX file starts once");
    this.#state = "pages";
    const bytes = writeHeader(this.header);
    this.#crc.update(bytes);
    this.#written = bytes.length;
    return bytes;
  }

  /** The frame of one page; pages come in ascending order. `made`: a block frame that is known to hold it. */
  page(pgno: number, data: Uint8Array, made?: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    assert(this.#state === "pages", "pages come between start and finish");
    assert(data.length === this.header.pageSize, "a page has the page size");
    assert(pgno === pgno >>> 0 && pgno > 0, "a page number is a u32 from 1 on");
    const problem = orderProblem(this.header, this.#lastPage, pgno);
    assert(problem === null, `pages in order: ${problem}`);
    const frame = made ?? this.#frame.slice(0, writeFrame(this.#frame, pgno, data));
    this.#crc.update(frame.subarray(0, BLOCK_PREFIX_BYTES));
    this.#crc.update(data);
    this.#index.add(pgno, this.#written, frame.length);
    this.#written += frame.length;
    this.#lastPage = pgno;
    return frame;
  }

  finish(): FinishedLtx {
    assert(this.#state === "pages", "an LTX file is finished once, after its start");
    const problem = completenessProblem(this.header, this.#lastPage);
    assert(problem === null, `a snapshot is whole: ${problem}`);
    this.#state = "finished";
    const index = this.#index.finish();
    const bytes = new Uint8Array(END_MARK_BYTES + index.length + LTX_TRAILER_BYTES);
    bytes.set(index, END_MARK_BYTES);
    this.#crc.update(bytes.subarray(0, bytes.length - 8));
    const checksum = CHECKSUM_FLAG | this.#crc.value();
    new DataView(bytes.buffer).setBigUint64(bytes.length - 8, checksum);
    return { bytes, sizeBytes: this.#written + bytes.length, checksum };
  }
}
