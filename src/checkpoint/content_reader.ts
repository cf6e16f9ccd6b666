/**
 * Cuts one open file into content parts. Holes, and chunks that are all zeros, are recorded and never stored. Memory:
 * one window, shared by all files.
 */

import { Buffer } from "node:buffer";
import { DATA_CHUNKS, nextCut, SEGMENT_BYTES, SQLITE_BLOCK_BYTES } from "./chunker.ts";
import type { Extent } from "./file_reader.ts";
import type { ContentPart } from "./types.ts";

/** What is read at one time; the chunker needs `max` bytes ahead of it, so this is a few of those. */
const WINDOW_BYTES = 4 * 1024 * 1024;
/** Shorter holes are read as the zeros they are: a file of many small ones would be cut to crumbs. */
const HOLE_MIN_BYTES = 64 * 1024;

/** What is needed of an open file. */
export interface ContentSource {
  extents(): readonly Extent[];
  read(offset: number, buffer: Uint8Array<ArrayBuffer>): number;
}

export interface ContentRange {
  readonly start: number;
  readonly end: number | null;
}

export interface ContentOptions {
  /** Fixed blocks instead of cuts by content. */
  readonly sqlite: boolean;
  /** Only this part of it, `end` null: to its end. `start` is a multiple of `SEGMENT_BYTES`, of the block for SQLite. */
  readonly range?: ContentRange | null;
  /** Takes a chunk and says its id. The bytes are valid during the call only. */
  readonly store: (chunk: Uint8Array<ArrayBuffer>) => string;
  /** Awaited before each chunk: room in the queue, the loop's turn, cancellation. */
  readonly pace: (bytesRead: number) => Promise<void> | null;
}

const window = new Uint8Array(WINDOW_BYTES);
const zeros = new Uint8Array(DATA_CHUNKS.max);

function isZero(chunk: Uint8Array): boolean {
  if (chunk[0] !== 0 || chunk[chunk.length - 1] !== 0) return false;
  return Buffer.compare(chunk, zeros.subarray(0, chunk.length)) === 0;
}

class Parts {
  readonly list: ContentPart[] = [];

  hole(length: number): void {
    const last = this.list.at(-1);
    if (last?.kind === "hole") {
      this.list[this.list.length - 1] = { kind: "hole", length: last.length + length };
    } else this.list.push({ kind: "hole", length });
  }

  chunk(id: string, length: number): void {
    this.list.push({ kind: "chunk", id, length });
  }
}

/** Long holes as they are, all else joined to data. */
function joined(extents: readonly Extent[]): Extent[] {
  const result: Extent[] = [];
  for (const extent of extents) {
    const kind = extent.kind === "hole" && extent.length >= HOLE_MIN_BYTES ? "hole" : "data";
    const last = result.at(-1);
    if (last !== undefined && last.kind === kind) {
      result[result.length - 1] = { ...last, length: last.length + extent.length };
    } else {
      result.push({ ...extent, kind });
    }
  }
  return result;
}

/** What of an extent lies in `range`; null for nothing. */
function clipped(extent: Extent, range: ContentRange | null): Extent | null {
  if (range === null) return extent;
  const offset = Math.max(extent.offset, range.start);
  const end = Math.min(extent.offset + extent.length, range.end ?? Infinity);
  return offset < end ? { kind: extent.kind, offset, length: end - offset } : null;
}

/** One after the other; a hole that ends one list and begins the next is one hole, as if both had been read at once. */
export function joinParts(lists: readonly (readonly ContentPart[])[]): readonly ContentPart[] {
  const joined = new Parts();
  for (const part of lists.flat()) {
    if (part.kind === "hole") joined.hole(part.length);
    else joined.chunk(part.id, part.length);
  }
  return joined.list;
}

/**
 * The content of `source` from 0 to its end as its parts, in order. Where the file ends early (it is being cut by its
 * program) so do the parts: their sum is the size that was read.
 */
export async function readContent(
  source: ContentSource,
  options: ContentOptions,
): Promise<readonly ContentPart[]> {
  const parts = new Parts();
  for (const whole of joined(source.extents())) {
    const extent = clipped(whole, options.range ?? null);
    if (extent === null) continue;
    if (extent.kind === "hole") {
      parts.hole(extent.length);
      continue;
    }
    const end = extent.offset + extent.length;
    for (let at = extent.offset; at < end;) {
      const segmentEnd = Math.min(end, (Math.floor(at / SEGMENT_BYTES) + 1) * SEGMENT_BYTES);
      const read = await readSegment(source, at, segmentEnd, parts, options);
      if (read < segmentEnd - at) return parts.list;
      at = segmentEnd;
    }
  }
  return parts.list;
}

/** Chunks of [start, end). Returns the bytes there were. */
async function readSegment(
  source: ContentSource,
  start: number,
  end: number,
  parts: Parts,
  options: ContentOptions,
): Promise<number> {
  let filled = 0;
  let from = 0;
  let next = start;
  let ended = false;
  for (;;) {
    if (!ended && next < end && filled - from < DATA_CHUNKS.max) {
      window.copyWithin(0, from, filled);
      filled -= from;
      from = 0;
      const wanted = Math.min(WINDOW_BYTES - filled, end - next);
      const count = source.read(next, window.subarray(filled, filled + wanted));
      next += count;
      filled += count;
      ended = count < wanted;
    }
    if (from === filled) return next - start;
    const offset = next - (filled - from);
    const cut = options.sqlite
      ? Math.min(filled, from + SQLITE_BLOCK_BYTES - offset % SQLITE_BLOCK_BYTES)
      : nextCut(window, from, filled, DATA_CHUNKS);
    const chunk = window.subarray(from, cut);
    const pause = options.pace(chunk.length);
    if (pause !== null) await pause;
    if (isZero(chunk)) parts.hole(chunk.length);
    else parts.chunk(options.store(chunk), chunk.length);
    from = cut;
  }
}
