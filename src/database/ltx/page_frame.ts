/**
 * The frame of one page: page number u32, flags u16, then either (flags 1) a length u32 and an LZ4 block, or (flags 0,
 * Litestream up to 0.5.15) a whole LZ4 frame with one block and a checksum. Only the first kind is written.
 */

import { assert } from "../../platform/assert.ts";
import { blockBound, compressBlock, decompressBlock } from "./lz4_block.ts";
import { xxhash32 } from "./xxhash32.ts";

export const PAGE_HEADER_BYTES = 6;
/** Page header and length. */
export const BLOCK_PREFIX_BYTES = 10;
const FLAG_BLOCK = 1;

/**
 * Magic, version 1 with independent blocks and a content checksum, blocks of 64 KiB, checksum of these two bytes
 * (lz4_Frame_format.md): the only header that Litestream wrote.
 */
const LZ4_FRAME_HEADER = Uint8Array.of(0x04, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7);
/** Set in the length of a block that is not compressed. */
const RAW_BLOCK = 0x80000000;
/** End mark (a block of length 0) and xxHash32 of the content. */
const LZ4_FRAME_TAIL_BYTES = 8;

/** Where things are in a frame. Offsets are from its first byte. */
export interface FrameLayout {
  readonly length: number;
  /** The bytes that the checksum of the file covers, besides the page itself. */
  readonly prefixBytes: number;
  readonly blockFrom: number;
  readonly blockTo: number;
  readonly kind: "block" | "raw" | "legacy";
}

/** The largest frame of a page. */
export function frameBound(pageSize: number): number {
  return PAGE_HEADER_BYTES + LZ4_FRAME_HEADER.length + 4 + blockBound(pageSize) + LZ4_FRAME_TAIL_BYTES;
}

/** Writes the frame of a page to `target`, which has frameBound() bytes; its length. */
export function writeFrame(target: Uint8Array, pgno: number, page: Uint8Array): number {
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  view.setUint32(0, pgno);
  view.setUint16(4, FLAG_BLOCK);
  const length = compressBlock(page, target, BLOCK_PREFIX_BYTES);
  // What is written past the end of an array is lost in silence.
  assert(length <= target.length, "a frame has room for what LZ4 makes of a page");
  view.setUint32(PAGE_HEADER_BYTES, length - BLOCK_PREFIX_BYTES);
  return length;
}

/** Page number and flags of the frame that `bytes` begin with (6 bytes). */
function pageHeader(bytes: Uint8Array): { pgno: number; flags: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { pgno: view.getUint32(0), flags: view.getUint16(4) };
}

/** The number of the page whose frame `bytes` begin with; 0 at the end mark. */
export function framePage(bytes: Uint8Array): number {
  return pageHeader(bytes).pgno;
}

export function isEndMark(bytes: Uint8Array): boolean {
  const { pgno, flags } = pageHeader(bytes);
  return pgno === 0 && flags === 0;
}

/** Layout of the frame that `bytes` begin with; null while there are too few; what is wrong, as text. */
export function frameLayout(bytes: Uint8Array, pageSize: number): FrameLayout | string | null {
  if (bytes.length < PAGE_HEADER_BYTES) return null;
  const { pgno, flags } = pageHeader(bytes);
  if (pgno === 0) return "page number 0";
  if (flags === 0) return legacyLayout(bytes, pageSize);
  if (flags !== FLAG_BLOCK) return `page ${pgno} has unknown flags ${flags}`;
  if (bytes.length < BLOCK_PREFIX_BYTES) return null;
  const size = new DataView(bytes.buffer, bytes.byteOffset).getUint32(PAGE_HEADER_BYTES);
  if (size === 0 || size > blockBound(pageSize)) return `page ${pgno} has a block of ${size} bytes`;
  const length = BLOCK_PREFIX_BYTES + size;
  return {
    length,
    prefixBytes: BLOCK_PREFIX_BYTES,
    blockFrom: BLOCK_PREFIX_BYTES,
    blockTo: length,
    kind: "block",
  };
}

function legacyLayout(bytes: Uint8Array, pageSize: number): FrameLayout | string | null {
  const { pgno } = pageHeader(bytes);
  const sizeAt = PAGE_HEADER_BYTES + LZ4_FRAME_HEADER.length;
  const known = Math.min(bytes.length, sizeAt);
  for (let i = PAGE_HEADER_BYTES; i < known; i++) {
    if (bytes[i] !== LZ4_FRAME_HEADER[i - PAGE_HEADER_BYTES]) {
      return `page ${pgno} is no LZ4 frame as Litestream wrote it`;
    }
  }
  if (bytes.length < sizeAt + 4) return null;
  const word = new DataView(bytes.buffer, bytes.byteOffset).getUint32(sizeAt, true);
  const isRaw = word >= RAW_BLOCK;
  const size = isRaw ? word - RAW_BLOCK : word;
  if (size === 0 || (isRaw ? size !== pageSize : size > blockBound(pageSize))) {
    return `page ${pgno} has a block of ${size} bytes`;
  }
  const blockFrom = sizeAt + 4;
  const blockTo = blockFrom + size;
  const length = blockTo + LZ4_FRAME_TAIL_BYTES;
  return { length, prefixBytes: PAGE_HEADER_BYTES, blockFrom, blockTo, kind: isRaw ? "raw" : "legacy" };
}

/** Expands the whole frame into `page`; what is wrong with it, else null. */
export function readFrame(frame: Uint8Array, layout: FrameLayout, page: Uint8Array): string | null {
  const block = frame.subarray(layout.blockFrom, layout.blockTo);
  if (layout.kind === "raw") page.set(block);
  else {
    const problem = decompressBlock(block, page);
    if (problem !== null) return problem;
  }
  if (layout.kind === "block") return null;
  const tail = new DataView(frame.buffer, frame.byteOffset + layout.blockTo, LZ4_FRAME_TAIL_BYTES);
  if (tail.getUint32(0, true) !== 0) return "LZ4 frame with more than one block";
  return tail.getUint32(4, true) === xxhash32(page) ? null : "checksum of the LZ4 frame differs";
}
