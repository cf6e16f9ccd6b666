/**
 * LZ4 blocks (lz4_Block_format.md of the reference implementation): a sequence is a token, literals, a distance of two
 * bytes and a match; the last one has literals only. The compressor is the plain fast one: one hash table, the first
 * match that is found. The decompressor believes nothing: each read and each copy is checked against both buffers.
 */

const SMALLEST_MATCH = 4;
/** The last match starts at least this far from the end, and the last five bytes are always literals. */
const MATCH_START_LIMIT = 12;
const LAST_LITERALS = 5;
const FARTHEST_MATCH = 65535;
const HASH_BITS = 13;
/** After 2^6 positions without a match the search takes bigger steps: data that does not compress costs little. */
const SKIP_TRIGGER = 6;
/**
 * A shorter match ends no such row of misses: in digits that are random there are hundreds of four bytes on a page, each
 * for one byte that is saved, and the search took three quarters of its time for them.
 */
const LIKELY_MATCH = 5;

/** Shorter pieces are copied faster in a loop than by a call of the runtime. */
const LOOP_COPY_LIMIT_BYTES = 64;

/** What `length` bytes take at most. */
export function blockBound(length: number): number {
  return length + Math.floor(length / 255) + 16;
}

/**
 * Where each hash was seen last. It outlives a call: places count on from one block to the next, so that what an
 * earlier block left lies before the start of this one and need not be cleared.
 */
const table = new Int32Array(1 << HASH_BITS);
let blocksStart = 1;
/** Then it is cleared after all. */
const BLOCKS_START_LIMIT = 1 << 30;

function startBlock(length: number): number {
  if (blocksStart > BLOCKS_START_LIMIT) {
    table.fill(0);
    blocksStart = 1;
  }
  const start = blocksStart;
  blocksStart += length;
  return start;
}

/** Writes what a nibble of 15 leaves over; the place after it. */
function writeLength(target: Uint8Array, at: number, rest: number): number {
  for (; rest >= 255; rest -= 255) target[at++] = 255;
  target[at++] = rest;
  return at;
}

/** Writes token and literals; the place after them. */
function writeLiterals(
  target: Uint8Array,
  at: number,
  plain: Uint8Array,
  from: number,
  to: number,
  matchNibble: number,
): number {
  const length = to - from;
  target[at++] = (Math.min(length, 15) << 4) | matchNibble;
  if (length >= 15) at = writeLength(target, at, length - 15);
  for (let i = from; i < to; i++) target[at++] = plain[i] as number;
  return at;
}

/** Number of equal bytes from `earlier` and `at` on. */
function matchLength(plain: DataView, earlier: number, at: number): number {
  const end = plain.byteLength - LAST_LITERALS;
  const start = at;
  while (at + 4 <= end && plain.getInt32(earlier) === plain.getInt32(at)) {
    earlier += 4;
    at += 4;
  }
  while (at < end && plain.getUint8(earlier) === plain.getUint8(at)) {
    earlier++;
    at++;
  }
  return at - start;
}

/** Compresses `plain` into `target` from `at` on, where blockBound() bytes must be free; the place after the block. */
export function compressBlock(plain: Uint8Array, target: Uint8Array, at: number): number {
  const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  const start = startBlock(plain.length);
  const lastStart = plain.length - MATCH_START_LIMIT;
  let anchor = 0;
  let from = 0;
  let misses = 1 << SKIP_TRIGGER;
  while (from <= lastStart) {
    const value = view.getInt32(from);
    const slot = Math.imul(value, 0x9e3779b1) >>> (32 - HASH_BITS);
    const earlier = (table[slot] as number) - start;
    table[slot] = start + from;
    if (earlier < 0 || from - earlier > FARTHEST_MATCH || view.getInt32(earlier) !== value) {
      from += misses++ >> SKIP_TRIGGER;
      continue;
    }
    const length = SMALLEST_MATCH + matchLength(view, earlier + SMALLEST_MATCH, from + SMALLEST_MATCH);
    const rest = length - SMALLEST_MATCH;
    at = writeLiterals(target, at, plain, anchor, from, Math.min(rest, 15));
    const distance = from - earlier;
    target[at++] = distance & 0xff;
    target[at++] = distance >> 8;
    if (rest >= 15) at = writeLength(target, at, rest - 15);
    from += length;
    anchor = from;
    if (length >= LIKELY_MATCH) misses = 1 << SKIP_TRIGGER;
  }
  return writeLiterals(target, at, plain, anchor, plain.length, 0);
}

/** Repeats what lies `distance` before `to`. Where the two overlap the match repeats what it has just written. */
function copyMatch(target: Uint8Array, to: number, distance: number, length: number): void {
  const end = to + length;
  if (length <= LOOP_COPY_LIMIT_BYTES) {
    for (; to < end; to++) target[to] = target[to - distance] as number;
    return;
  }
  for (let known = distance; to < end; known *= 2) {
    const count = Math.min(known, end - to);
    target.copyWithin(to, to - known, to - known + count);
    to += count;
  }
}

/** Fills `target` exactly from `block`; what is wrong with the block where it does not, else null. */
export function decompressBlock(block: Uint8Array, target: Uint8Array): string | null {
  let at = 0;
  let to = 0;
  while (at < block.length) {
    const token = block[at++] as number;
    let literals = token >> 4;
    if (literals === 15) {
      let more: number;
      do {
        if (at >= block.length) return "LZ4 block ends in a length";
        more = block[at++] as number;
        literals += more;
      } while (more === 255);
    }
    if (literals > block.length - at) return "LZ4 block ends in its literals";
    if (literals > target.length - to) return "LZ4 block expands to more than a page";
    for (const end = at + literals; at < end;) target[to++] = block[at++] as number;
    if (at === block.length) return to === target.length ? null : `LZ4 block expands to ${to} bytes only`;
    if (block.length - at < 2) return "LZ4 block ends in a distance";
    const distance = (block[at] as number) | ((block[at + 1] as number) << 8);
    at += 2;
    if (distance === 0 || distance > to) return "LZ4 block refers to before its start";
    let length = (token & 15) + SMALLEST_MATCH;
    if ((token & 15) === 15) {
      let more: number;
      do {
        if (at >= block.length) return "LZ4 block ends in a length";
        more = block[at++] as number;
        length += more;
      } while (more === 255);
    }
    if (length > target.length - to) return "LZ4 block expands to more than a page";
    copyMatch(target, to, distance, length);
    to += length;
  }
  return "LZ4 block ends without literals";
}
