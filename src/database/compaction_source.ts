/** A file in the store as a merge reads it: from its begin to its end, in pieces, so that memory is bounded. */

import { StateManagerError } from "../platform/errors.ts";
import type { Turns } from "../platform/turns.ts";
import type { ObjectStore, StoredObject } from "../storage/object_store.ts";
import { LTX_HEADER_BYTES, LtxDecoder, type LtxHeader, type LtxPage, readHeader } from "./ltx/mod.ts";
import type { ReplicaFile } from "./replica_listing.ts";

/** One request to the store, under the lease. */
export type Send = <T>(send: (signal: AbortSignal) => Promise<T>) => Promise<T>;

export interface SourceOptions {
  readonly store: ObjectStore;
  readonly send: Send;
  readonly pace: Turns;
  /** Bytes in memory per file; a file that is not larger is one request. */
  readonly pieceBytes: number;
}

/** Between two looks at the clock at most so many compressed bytes are decoded: some pages, whatever they expand to. */
const FEED_BYTES = 16 * 1024;

export class CompactionSource {
  readonly file: ReplicaFile;
  readonly header: LtxHeader;
  readonly #options: SourceOptions;
  #first: Uint8Array<ArrayBuffer> | null;

  private constructor(
    file: ReplicaFile,
    header: LtxHeader,
    first: Uint8Array<ArrayBuffer>,
    options: SourceOptions,
  ) {
    this.file = file;
    this.header = header;
    this.#first = first;
    this.#options = options;
  }

  /** Reads the first piece. `data-damaged` when the object is not what its name and the listing say. */
  static async open(file: ReplicaFile, options: SourceOptions): Promise<CompactionSource> {
    const object = await readPiece(file, 0, options);
    const header = readHeader(object.body.subarray(0, LTX_HEADER_BYTES), file.key);
    if (header.minTxid !== file.minTxid || header.maxTxid !== file.maxTxid) {
      const found = `its header says TXIDs ${header.minTxid} to ${header.maxTxid}`;
      throw new StateManagerError("data-damaged", `read ${file.key}: ${found}`);
    }
    return new CompactionSource(file, header, object.body, options);
  }

  /** All pages; throws `data-damaged` at the latest at the end where the file is not whole. Once. */
  async *pages(): AsyncGenerator<LtxPage, void, undefined> {
    const decoder = new LtxDecoder(this.file.key, { frames: true });
    const { pace } = this.#options;
    for await (const piece of this.#pieces()) {
      for (let at = 0; at < piece.length; at += FEED_BYTES) {
        decoder.feed(piece.subarray(at, at + FEED_BYTES));
        for (let page = decoder.next(); page !== null; page = decoder.next()) {
          yield page;
          const pause = pace.next();
          if (pause !== null) await pause;
        }
      }
    }
    decoder.end();
  }

  async *#pieces(): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    let piece = this.#first;
    if (piece === null) throw new StateManagerError("internal", `read ${this.file.key}: it was read before`);
    this.#first = null;
    for (let end = piece.length;; end += piece.length) {
      yield piece;
      if (end >= this.file.sizeBytes) return;
      piece = (await readPiece(this.file, end, this.#options)).body;
    }
  }
}

async function readPiece(file: ReplicaFile, start: number, options: SourceOptions): Promise<StoredObject> {
  const range = { start, end: Math.min(start + options.pieceBytes, file.sizeBytes) };
  const object = await options.send((signal) => options.store.get(file.key, { range, signal }));
  const isWhole = object.sizeBytes === file.sizeBytes && object.body.length === range.end - range.start;
  if (isWhole) return object;
  const found = `${object.sizeBytes} bytes, of which ${object.body.length} came`;
  throw new StateManagerError(
    "data-damaged",
    `read ${file.key}: ${found}, wanted ${file.sizeBytes}, of which ${range.end - range.start}`,
  );
}
