/**
 * Reads a SQLite write-ahead log from its file, never its shared-memory index: salts and rolling sums say which frames
 * are whole, and only frames up to a commit count. What a program spilled and did not commit is never taken. Opening
 * and closing the log is free of harm; the database and its `-shm` are not (POSIX locks), and are never opened here.
 * Source: https://sqlite.org/fileformat2.html#the_write_ahead_log
 */

import { readAt } from "../platform/libc_files.ts";
import { type LogEvidence, type LogPoint, type LogView, NO_EVIDENCE, type WalPoint } from "./follow_rules.ts";
import { addToSum, type WalSum } from "./wal_checksum.ts";

export const WAL_HEADER_BYTES = 32;
export const WAL_FRAME_HEADER_BYTES = 24;
const MAGIC = 0x377f0682;
const VERSION = 3007000;
/** Read at once; at least one frame. More would be read past the end of each sync, and leave the processor's cache. */
const CHUNK_BYTES = 128 * 1024;

export interface WalHeader {
  /** Order of the words in the sums; the headers' own numbers are always big-endian. */
  readonly bigEndian: boolean;
  readonly pageSize: number;
  readonly salt1: number;
  readonly salt2: number;
  readonly sum1: number;
  readonly sum2: number;
}

interface Frame {
  readonly pgno: number;
  /** Size of the database in pages where the frame is a commit's last, else 0. */
  readonly commit: number;
  readonly salt1: number;
  readonly salt2: number;
  readonly sum1: number;
  readonly sum2: number;
}

export interface WalScan {
  /** After the last frame of the last commit. */
  readonly end: WalPoint;
  /** Size of the database in pages at `end`. */
  readonly commit: number;
  readonly commits: number;
  /** Page → where its newest content begins in the log; only pages up to `commit`. */
  readonly pages: ReadonlyMap<number, number>;
  /** The bound was reached: there may be more. */
  readonly more: boolean;
}

export function frameBytes(pageSize: number): number {
  return WAL_FRAME_HEADER_BYTES + pageSize;
}

/** Null for what is no header of a log, which SQLite takes for an empty log, too. */
export function parseWalHeader(bytes: Uint8Array<ArrayBuffer>): WalHeader | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const magic = view.getUint32(0);
  const pageSize = view.getUint32(8);
  if (((magic & ~1) >>> 0) !== MAGIC || view.getUint32(4) !== VERSION) return null;
  if (pageSize < 512 || pageSize > 65536 || (pageSize & (pageSize - 1)) !== 0) return null;
  const bigEndian = (magic & 1) === 1;
  const sum: WalSum = { sum1: 0, sum2: 0 };
  addToSum(sum, bytes, 0, 24, bigEndian);
  if (sum.sum1 !== view.getUint32(24) || sum.sum2 !== view.getUint32(28)) return null;
  return { bigEndian, pageSize, salt1: view.getUint32(16), salt2: view.getUint32(20), ...sum };
}

/** The header of the open log; "empty" for one without bytes, "torn" for one whose header does not hold. */
export function readWalHeader(fd: number): WalHeader | "empty" | "torn" {
  const bytes = new Uint8Array(WAL_HEADER_BYTES);
  const count = readAt(fd, bytes, 0);
  if (count === 0) return "empty";
  return (count === WAL_HEADER_BYTES ? parseWalHeader(bytes) : null) ?? "torn";
}

/** False once the log has begun anew: its header is written before any frame is overwritten. */
export function logIsStill(fd: number, header: WalHeader): boolean {
  const now = readWalHeader(fd);
  return typeof now !== "string" && now.salt1 === header.salt1 && now.salt2 === header.salt2;
}

export function viewOfLog(header: WalHeader | "empty" | "torn", sizeBytes: number): LogView {
  if (typeof header === "string") return { kind: header };
  const { pageSize, salt1, salt2 } = header;
  return { kind: "log", sizeBytes, pageSize, salt1, salt2 };
}

/** Where the first frame begins. */
export function logStart(header: WalHeader): LogPoint {
  const { salt1, salt2, sum1, sum2 } = header;
  return { offset: WAL_HEADER_BYTES, salt1, salt2, sum1, sum2 };
}

function frameAt(view: DataView, at: number): Frame {
  return {
    pgno: view.getUint32(at),
    commit: view.getUint32(at + 4),
    salt1: view.getUint32(at + 8),
    salt2: view.getUint32(at + 12),
    sum1: view.getUint32(at + 16),
    sum2: view.getUint32(at + 20),
  };
}

function readFrame(fd: number, offset: number): Frame | null {
  const bytes = new Uint8Array(WAL_FRAME_HEADER_BYTES);
  return readAt(fd, bytes, offset) === bytes.length ? frameAt(new DataView(bytes.buffer), 0) : null;
}

/** After so many frames, by what the last of them says of the sums, which may not hold; null: the log is shorter. */
export function pointAfter(fd: number, header: WalHeader, frames: number): LogPoint | null {
  const { salt1, salt2 } = header;
  const offset = WAL_HEADER_BYTES + frames * frameBytes(header.pageSize);
  const last = frames === 0 ? null : readFrame(fd, offset - frameBytes(header.pageSize));
  return last === null ? null : { offset, salt1, salt2, sum1: last.sum1, sum2: last.sum2 };
}

let chunk = new Uint8Array(CHUNK_BYTES);

function chunkFor(frameSize: number): Uint8Array<ArrayBuffer> {
  const wanted = Math.max(1, Math.floor(CHUNK_BYTES / frameSize)) * frameSize;
  if (chunk.length < wanted) chunk = new Uint8Array(wanted);
  return chunk.subarray(0, wanted);
}

/** Calls `take` for each frame that is whole, from `from` on, until it says false or the first that is not. */
function eachFrame(
  fd: number,
  header: WalHeader,
  from: WalPoint,
  take: (frame: Frame, offset: number) => boolean,
): void {
  const size = frameBytes(header.pageSize);
  const bytes = chunkFor(size);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sum: WalSum = { sum1: from.sum1, sum2: from.sum2 };
  for (let offset = from.offset;;) {
    const count = Math.floor(readAt(fd, bytes, offset) / size) * size;
    for (let at = 0; at < count; at += size) {
      const frame = frameAt(view, at);
      if (frame.salt1 !== header.salt1 || frame.salt2 !== header.salt2 || frame.pgno === 0) return;
      addToSum(sum, bytes, at, at + 8, header.bigEndian);
      addToSum(sum, bytes, at + WAL_FRAME_HEADER_BYTES, at + size, header.bigEndian);
      if (frame.sum1 !== sum.sum1 || frame.sum2 !== sum.sum2) return;
      if (!take(frame, offset + at)) return;
    }
    if (count < bytes.length) return;
    offset += count;
  }
}

/**
 * The commits from `from` on; null when there is none. Stops at the first commit at or past `maxBytes`, or before it
 * when that would take more and there was one; memory is one number or two per page, whatever the size.
 */
export function scanWal(fd: number, header: WalHeader, from: WalPoint, maxBytes: number): WalScan | null {
  const pages = new Map<number, number>();
  let pending: number[] = []; // page, offset, page, offset, … of the transaction that has not committed yet
  let end = from;
  let commit = 0;
  let commits = 0;
  let more = false;
  const size = frameBytes(header.pageSize);
  eachFrame(fd, header, from, (frame, offset) => {
    const next = offset + size;
    if (commits > 0 && next - from.offset > maxBytes) {
      more = true;
      return false;
    }
    pending.push(frame.pgno, offset + WAL_FRAME_HEADER_BYTES);
    if (frame.commit === 0) return true;
    for (let i = 0; i < pending.length; i += 2) pages.set(pending[i] ?? 0, pending[i + 1] ?? 0);
    pending = [];
    end = { offset: next, sum1: frame.sum1, sum2: frame.sum2 };
    commit = frame.commit;
    commits++;
    return true;
  });
  if (commits === 0) return null;
  for (const pgno of pages.keys()) if (pgno > commit) pages.delete(pgno);
  return { end, commit, commits, pages, more };
}

/** One scan of what `scan` and `rest`, which begins where that ends, have read; null: there was no commit more. */
export function joinScans(scan: WalScan, rest: WalScan | null): WalScan {
  if (rest === null) return scan;
  const pages = new Map([...scan.pages, ...rest.pages]);
  for (const pgno of pages.keys()) if (pgno > rest.commit) pages.delete(pgno);
  return { ...rest, commits: scan.commits + rest.commits, pages };
}

/** What of the log up to `position` is still there, for a start after a time when nobody watched. */
export function evidenceOf(fd: number, header: WalHeader, position: LogPoint): LogEvidence {
  const size = frameBytes(header.pageSize);
  const sameLog = header.salt1 === position.salt1 && header.salt2 === position.salt2;
  if (sameLog) return { ...NO_EVIDENCE, chainHolds: chainReaches(fd, header, position) };
  if (position.offset === WAL_HEADER_BYTES) return NO_EVIDENCE; // no frame to find
  const last = readFrame(fd, position.offset - size);
  const next = readFrame(fd, position.offset);
  const former = (frame: Frame) => frame.salt1 === position.salt1 && frame.salt2 === position.salt2;
  return {
    chainHolds: false,
    lastFrameLeft: last !== null && former(last) && last.sum1 === position.sum1 &&
      last.sum2 === position.sum2,
    nothingFollowed: next !== null && !former(next),
  };
}

function chainReaches(fd: number, header: WalHeader, position: LogPoint): boolean {
  let reached: WalPoint = logStart(header);
  const size = frameBytes(header.pageSize);
  if (reached.offset < position.offset) {
    eachFrame(fd, header, reached, (frame, offset) => {
      reached = { offset: offset + size, sum1: frame.sum1, sum2: frame.sum2 };
      return reached.offset < position.offset;
    });
  }
  return reached.offset === position.offset && reached.sum1 === position.sum1 &&
    reached.sum2 === position.sum2;
}
