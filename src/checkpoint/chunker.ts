/**
 * Cuts file content into chunks by content (FastCDC with a 32-bit gear hash), so that an insertion moves few chunks.
 * Everything here is format: a changed table, mask or bound silently ends deduplication with what is stored
 * (docs/storage_format.md). Source: Xia et al., "FastCDC", USENIX ATC 2016.
 */

import { Buffer } from "node:buffer";
import { assert } from "../platform/assert.ts";

export interface ChunkerSizes {
  readonly min: number;
  readonly avg: number;
  readonly max: number;
}

/** Content of files: 256 KiB on average; at 1 MiB a small edit of a text costs five times as much. */
export const DATA_CHUNKS: ChunkerSizes = { min: 64 * 1024, avg: 256 * 1024, max: 1024 * 1024 };

/** SQLite files change by page in place: fixed blocks on page borders beat cutting by content. */
export const SQLITE_BLOCK_BYTES = 64 * 1024;

/** Large files are cut anew at each multiple of this, so that segments can be read independently. */
export const SEGMENT_BYTES = 64 * 1024 * 1024;

/** The gear hash shifts one bit per byte: after this many bytes nothing older is left in it. */
const WINDOW_BYTES = 32;

/** Long beside the window, which is gone through anew for each, and short beside a chunk. */
const STRETCH_BYTES = 1024;

/** Distance of the two masks from the average, in bits: harder before the average size, easier after. */
const NORMALISATION_BITS = 2;

/**
 * gear[b] = the first four bytes, little-endian, of SHA-256("state-manager gear32 v1" and the byte b): written out, since
 * every process that can make or read a checkpoint would else begin with 256 hashes, which take 7 ms. A test makes them.
 */
const GEAR_BYTES = Buffer.from(
  "rta62mcHT2UJjvR7iwQ7DpItIJvaXLNo6Cx0HkDNkyqHk35PDxVsm/jQVlaTumfEXmK1ZVMt6kwPu+JfcgIpHGVDR6zeQjdG" +
    "J5SvGZbUHw0Bu9J7pbRZAyvspiXdgjohiYqbxx109c0z8XxzAJm7H8fdCRZ5U0O8wYx1C3P51FShWhSmZEsCCJ0pRTyHM6Lm" +
    "Xn2jx0JVbafBcVnA925R801xD/+eH570NtJPh6qESCFrDBUeL/ZKb9mIvfaKVPMeqfgqymfrcLWjkWdcDrCqn/v07XwpgJ+4" +
    "RqX8nkfA2uxt1MAXx6wxvhNLmK2UmbfU9d2KbWdz4Llyl40HwRkXllo+VoQbOArifyQXiMi0KnM9mXRzeNv4nXHdECmYWY2O" +
    "BPqP/AqUMvQDXlbbnm6H7LgDlBP//GEB5jbMNZI1HvbQG51JBYsxSEON5dqmjFhI3ga5tPgQiUmeDxyxHTntIVGQmlbYl4b3" +
    "kjjwB525THL/OsypBsObPp13BOuqioywyqBuPbu/Ljhjn0sOfiy8FMCZN6JNRNA3eF4o9jzJwqL6RVowTd5BtJ910w4RxYNQ" +
    "Wy5BlZE+HycSrj4riHuHfJRZaEs/MHYIS/ZD3asvVHtE2mUoMBwpgrOo3TA2LJkXIrEy8GxeD2LkxGTQ7myRvW2iayGB4HiK" +
    "Z9ugdpCbsk8XS4ELt0yWRGii4ST+2WFNiwROgWSIz2gAVnKSpqiO9gTxx6jaXDC19AgjBmrdXSP0IICY0LVM48rjzzyUMPOl" +
    "In3DUvmX4gqIVOhnr8PKhp9D/HzzrqxC0TTHnb/C+3Nu9dlRiDQSsbRltZS3F+S6AGoWoC1lYs5wPar9pKhd6Fn6kHcL6EWZ" +
    "mWnAmDxF9N1HruDW2SZrDuAxVXAkuMD/Pp+1sfn1opMjI/9p1K3wzf6Qm//sLs9wU9j03HUruRBnLFho9Llq3Zx5lOYsXSrr" +
    "jGdrQUbG2BiPOnHb1Y2iKyFL0Fq3l+4Fff0MkidUIkb57EIrr1YxtewdmSLCtS5JTuxTGG5jmkXcVFwC5iLdcKdsUZhiSC0u" +
    "x2sesCs3Qaa0qdyKDfVYmvpZ0VjC99alahZB1tlPdxu7LXoidDMJgyD92CBtz2icVXwQLJWhqV+BR07NB17Kd0GCzx4KTf1N" +
    "pbyzp9/f83Z95ArYYREtsSw/+AT2N8oJyrxdtwbeJLZagPjC7xJPpRXUglizvUdnKWaF8AjZPpi46m8KUBkrBfVfyqyhsOEc" +
    "JRpJOcIXfRMt9vOJw3EseDGslEpyQj8d1tBhmH2vEdimky79jpJi44LktRRjpHxJmtrHx0HMWGdeNbFUC5rPPpBw35G7cSQE" +
    "gscg47EyY7DlXevAopw4vg==",
  "base64",
);

function gearTable(): Int32Array {
  const table = new Int32Array(256);
  for (let byte = 0; byte < 256; byte++) table[byte] = GEAR_BYTES.readInt32LE(byte * 4);
  return table;
}

const GEAR = gearTable();

/** A mask of `bits` ones at the top: the top bits of the hash depend on the whole window. */
function highMask(bits: number): number {
  return (0xffffffff << (32 - bits)) | 0;
}

/**
 * End of the next chunk of `bytes[start, end)`: between `min` and `max` bytes on, or `end` when less is left. The cut
 * depends on the 32 bytes before it alone. Unless `end` is the end of the content (or segment), at least `max`
 * bytes must be given.
 */
export function nextCut(bytes: Uint8Array, start: number, end: number, sizes: ChunkerSizes): number {
  const length = end - start;
  if (length <= sizes.min) return end;
  const averageBits = 31 - Math.clz32(sizes.avg);
  const hard = highMask(averageBits + NORMALISATION_BITS);
  const easy = highMask(averageBits - NORMALISATION_BITS);
  const normal = start + Math.min(length, sizes.avg);
  const limit = start + Math.min(length, sizes.max);
  const early = cutWithin(bytes, start + sizes.min - 1, normal, hard);
  return early ?? cutWithin(bytes, normal, limit, easy) ?? limit;
}

/**
 * The first place in (from, to] where the hash of the 32 bytes before it has none of the bits of `mask`. Two stretches at
 * a time: each step of a hash waits for the one before, so a processor takes two in hardly more time than one.
 */
function cutWithin(bytes: Uint8Array, from: number, to: number, mask: number): number | null {
  let at = from;
  for (; at + 2 * STRETCH_BYTES <= to; at += 2 * STRETCH_BYTES) {
    let first = 0;
    let second = 0;
    // The window is filled before the first place where a cut may be.
    for (let i = at - WINDOW_BYTES; i < at; i++) {
      first = ((first << 1) + (GEAR[bytes[i] as number] as number)) | 0;
      second = ((second << 1) + (GEAR[bytes[i + STRETCH_BYTES] as number] as number)) | 0;
    }
    let later = 0;
    for (let i = at; i < at + STRETCH_BYTES; i++) {
      first = ((first << 1) + (GEAR[bytes[i] as number] as number)) | 0;
      second = ((second << 1) + (GEAR[bytes[i + STRETCH_BYTES] as number] as number)) | 0;
      if ((first & mask) === 0) return i + 1;
      if ((second & mask) === 0 && later === 0) later = i + STRETCH_BYTES + 1;
    }
    if (later !== 0) return later;
  }
  let hash = 0;
  for (let i = at - WINDOW_BYTES; i < at; i++) {
    hash = ((hash << 1) + (GEAR[bytes[i] as number] as number)) | 0;
  }
  for (; at < to; at++) {
    hash = ((hash << 1) + (GEAR[bytes[at] as number] as number)) | 0;
    if ((hash & mask) === 0) return at + 1;
  }
  return null;
}

/** Lengths of all chunks of `content`, which is one segment or less. For tests and small contents. */
export function cutAll(content: Uint8Array, sizes: ChunkerSizes): number[] {
  assert(content.length <= SEGMENT_BYTES, "content is at most one segment");
  const lengths: number[] = [];
  for (let start = 0; start < content.length;) {
    const end = nextCut(content, start, content.length, sizes);
    lengths.push(end - start);
    start = end;
  }
  return lengths;
}
