/**
 * The fixed parts of an LTX file, version 3 (SQLite page images of one or more transactions, as Litestream 0.5 keeps
 * them): header · page frames · 6 zero bytes · page index · u64 length of the index · trailer. Numbers are big-endian.
 */

import { assert } from "../../platform/assert.ts";
import { damaged } from "./damage.ts";

export const LTX_HEADER_BYTES = 100;
export const LTX_TRAILER_BYTES = 16;

/** "LTX1"; versions 2 and 3 share it. */
const MAGIC = 0x4c545831;
const FLAG_NO_CHECKSUM = 2;
const RESERVED_FROM = 80;
/** Set in every checksum of a file, so that none is ever zero. */
export const CHECKSUM_FLAG = 1n << 63n;
/** SQLite's locking bytes begin here; the page that holds them never has content. */
const LOCK_OFFSET = 0x40000000;

export interface LtxHeader {
  /** 512 to 65536, a power of two. */
  readonly pageSize: number;
  /** Size of the database in pages, after the last transaction. */
  readonly commit: number;
  readonly minTxid: number;
  readonly maxTxid: number;
  /** Wall clock of the commit, ms since 1970. */
  readonly timestampMs: number;
  /** Where in the WAL the pages came from; 0 where they did not. */
  readonly walOffset: number;
  readonly walSize: number;
  readonly salt1: number;
  readonly salt2: number;
  /** The writer's fencing token; 0 in files of others. */
  readonly nodeId: number;
  /** The file has no checksum of the whole database: ours never have one, Litestream's neither. */
  readonly noChecksum: boolean;
  readonly preApplyChecksum: bigint;
}

/** What an encoder is told; what is left out is 0. */
export type LtxHeaderInput =
  & Pick<LtxHeader, "pageSize" | "commit" | "minTxid" | "maxTxid" | "timestampMs">
  & Partial<Pick<LtxHeader, "walOffset" | "walSize" | "salt1" | "salt2" | "nodeId">>;

export interface LtxPage {
  readonly pgno: number;
  /** One page, owned by the receiver. */
  readonly data: Uint8Array<ArrayBuffer>;
  /** The same page as the file has it, where a reader asked for that: whoever writes it again need not compress it again. */
  readonly frame?: Uint8Array<ArrayBuffer>;
}

export interface LtxTrailer {
  /** Checksum of the database after the last transaction; 0 where the header says there is none. */
  readonly postApply: bigint;
  /** Checksum of the file. */
  readonly checksum: bigint;
}

/** Number of the page that is never written. */
export function lockPage(pageSize: number): number {
  return Math.floor(LOCK_OFFSET / pageSize) + 1;
}

/** True for a file that holds every page of its database. */
export function isSnapshot(header: Pick<LtxHeader, "minTxid">): boolean {
  return header.minTxid === 1;
}

export function isPageSize(size: number): boolean {
  return size >= 512 && size <= 65536 && (size & (size - 1)) === 0;
}

/** Number of the page that must follow `previous` in a snapshot. */
export function nextSnapshotPage(previous: number, pageSize: number): number {
  return previous + 1 === lockPage(pageSize) ? previous + 2 : previous + 1;
}

/** Why page `pgno` cannot come after `previous` (0: none yet); null when it can. */
export function orderProblem(header: LtxHeader, previous: number, pgno: number): string | null {
  if (pgno > header.commit) return `page ${pgno} of a database of ${header.commit} pages`;
  if (pgno === lockPage(header.pageSize)) return `page ${pgno} is the lock page, which has no content`;
  if (isSnapshot(header)) {
    const wanted = nextSnapshotPage(previous, header.pageSize);
    if (pgno !== wanted) return `page ${pgno} where a snapshot has page ${wanted}`;
  } else if (pgno <= previous) {
    return `page ${pgno} after page ${previous}`;
  }
  return null;
}

/** Why no page may be missing after `last` (0: none); null when the file may end there. */
export function completenessProblem(header: LtxHeader, last: number): string | null {
  if (!isSnapshot(header)) return null;
  const wanted = nextSnapshotPage(last, header.pageSize);
  return wanted > header.commit ? null : `a snapshot of ${header.commit} pages that lacks page ${wanted}`;
}

/** The first rule of the format that `header` breaks, in words. */
function headerProblem(header: LtxHeader): string | null {
  const { pageSize, commit, minTxid, maxTxid, walOffset, preApplyChecksum } = header;
  if (!isPageSize(pageSize)) return `page size ${pageSize}`;
  if (commit === 0) return "a database of 0 pages";
  if (minTxid === 0 || maxTxid === 0) return "transaction id 0";
  if (minTxid > maxTxid) return `transaction ids from ${minTxid} to ${maxTxid}`;
  if (walOffset === 0 && header.walSize !== 0) return "a WAL size without a WAL offset";
  if (walOffset === 0 && (header.salt1 !== 0 || header.salt2 !== 0)) return "WAL salts without a WAL offset";
  if (isSnapshot(header) || header.noChecksum) {
    if (preApplyChecksum !== 0n) return "a checksum of the database before it, where there is none";
  } else if ((preApplyChecksum & CHECKSUM_FLAG) === 0n) {
    return "no checksum of the database before it";
  }
  return null;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A u64 as a number; the format allows more than we count to, and nobody writes it. */
function readCount(view: DataView, at: number, file: string, what: string): number {
  const value = view.getBigUint64(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged(file, `${what} ${value} is too large`);
  return Number(value);
}

/** Header from the first 100 bytes of `bytes`; `data-damaged` that names `file` where it breaks a rule. */
export function readHeader(bytes: Uint8Array, file = "LTX file"): LtxHeader {
  if (bytes.length < LTX_HEADER_BYTES) {
    throw damaged(file, `${bytes.length} bytes, a header has ${LTX_HEADER_BYTES}`);
  }
  const view = viewOf(bytes);
  if (view.getUint32(0) !== MAGIC) throw damaged(file, "does not begin with LTX1");
  const flags = view.getUint32(4);
  if ((flags & ~FLAG_NO_CHECKSUM) !== 0) throw damaged(file, `unknown flags 0x${flags.toString(16)}`);
  for (let i = RESERVED_FROM; i < LTX_HEADER_BYTES; i++) {
    if (bytes[i] !== 0) throw damaged(file, "reserved bytes of the header are not zero");
  }
  const header: LtxHeader = {
    pageSize: view.getUint32(8),
    commit: view.getUint32(12),
    minTxid: readCount(view, 16, file, "transaction id"),
    maxTxid: readCount(view, 24, file, "transaction id"),
    timestampMs: readCount(view, 32, file, "time"),
    preApplyChecksum: view.getBigUint64(40),
    walOffset: readCount(view, 48, file, "WAL offset"),
    walSize: readCount(view, 56, file, "WAL size"),
    salt1: view.getUint32(64),
    salt2: view.getUint32(68),
    nodeId: readCount(view, 72, file, "node id"),
    noChecksum: flags === FLAG_NO_CHECKSUM,
  };
  const problem = headerProblem(header);
  if (problem !== null) throw damaged(file, problem);
  return header;
}

/** A header of ours: without checksums of the database, as Litestream writes them. */
export function completeHeader(input: LtxHeaderInput): LtxHeader {
  const { walOffset = 0, walSize = 0, salt1 = 0, salt2 = 0, nodeId = 0 } = input;
  const header = {
    ...input,
    walOffset,
    walSize,
    salt1,
    salt2,
    nodeId,
    noChecksum: true,
    preApplyChecksum: 0n,
  };
  for (const value of [header.minTxid, header.maxTxid, header.timestampMs, walOffset, walSize, nodeId]) {
    assert(Number.isSafeInteger(value) && value >= 0, "a header's counts are whole numbers up to 2^53 - 1");
  }
  for (const value of [header.pageSize, header.commit, salt1, salt2]) {
    assert(value === value >>> 0, "page size, page count and salts are u32");
  }
  const problem = headerProblem(header);
  assert(problem === null, `a header to write is legal: ${problem}`);
  return header;
}

export function writeHeader(header: LtxHeader): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LTX_HEADER_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.noChecksum ? FLAG_NO_CHECKSUM : 0);
  view.setUint32(8, header.pageSize);
  view.setUint32(12, header.commit);
  view.setBigUint64(16, BigInt(header.minTxid));
  view.setBigUint64(24, BigInt(header.maxTxid));
  view.setBigUint64(32, BigInt(header.timestampMs));
  view.setBigUint64(40, header.preApplyChecksum);
  view.setBigUint64(48, BigInt(header.walOffset));
  view.setBigUint64(56, BigInt(header.walSize));
  view.setUint32(64, header.salt1);
  view.setUint32(68, header.salt2);
  view.setBigUint64(72, BigInt(header.nodeId));
  return bytes;
}

/** Trailer from the last 16 bytes of `bytes`. */
export function readTrailer(bytes: Uint8Array, file = "LTX file"): LtxTrailer {
  if (bytes.length < LTX_TRAILER_BYTES) {
    throw damaged(file, `${bytes.length} bytes, a trailer has ${LTX_TRAILER_BYTES}`);
  }
  const view = viewOf(bytes);
  const postApply = view.getBigUint64(bytes.length - 16);
  const checksum = view.getBigUint64(bytes.length - 8);
  if ((checksum & CHECKSUM_FLAG) === 0n) throw damaged(file, "no checksum of the file");
  return { postApply, checksum };
}

/** Why `trailer` cannot end a file that began with `header`; null when it can. */
export function trailerProblem(header: LtxHeader, trailer: LtxTrailer): string | null {
  if (header.noChecksum) {
    return trailer.postApply === 0n ? null : "a checksum of the database after it, where there is none";
  }
  return (trailer.postApply & CHECKSUM_FLAG) === 0n ? "no checksum of the database after it" : null;
}
