/** The LTX room: reading, writing and merging files of SQLite pages in Litestream's format. Nothing here does I/O. */

export { decodeFrame, LtxDecoder, type LtxSummary } from "./decoder.ts";
export { type FinishedLtx, LtxEncoder } from "./encoder.ts";
export {
  isSnapshot,
  lockPage,
  LTX_HEADER_BYTES,
  LTX_TRAILER_BYTES,
  type LtxHeader,
  type LtxHeaderInput,
  type LtxPage,
  type LtxTrailer,
  nextSnapshotPage,
  readHeader,
  readTrailer,
} from "./format.ts";
export { mergePages, readPages } from "./merge.ts";
export { ltxName, parseLtxName, type TxidRange, txidText } from "./names.ts";
export {
  type ByteRange,
  decodeIndex,
  LTX_TAIL_BYTES,
  type LtxTail,
  PageIndex,
  readTail,
} from "./page_index.ts";
