/** The rolling sum of a write-ahead log. Source: https://sqlite.org/fileformat2.html#checksum_algorithm */

/** Both halves, as signed or unsigned 32-bit numbers; updated in place. */
export interface WalSum {
  sum1: number;
  sum2: number;
}

const LITTLE_ENDIAN_MACHINE = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/**
 * Adds `bytes[from, to)` to `sum`. Both are multiples of 8 apart, `from` is a multiple of 4 in the array's buffer.
 * `bigEndian` is the order in which the log's writer read its words.
 */
export function addToSum(
  sum: WalSum,
  bytes: Uint8Array<ArrayBuffer>,
  from: number,
  to: number,
  bigEndian: boolean,
): void {
  if (bigEndian === LITTLE_ENDIAN_MACHINE) return addSwapped(sum, bytes, from, to, bigEndian);
  const words = wordsOf(bytes.buffer);
  const end = (bytes.byteOffset + to) / 4;
  let { sum1, sum2 } = sum;
  for (let i = (bytes.byteOffset + from) / 4; i < end; i += 2) {
    sum1 = (sum1 + (words[i] ?? 0) + sum2) | 0;
    sum2 = (sum2 + (words[i + 1] ?? 0) + sum1) | 0;
  }
  sum.sum1 = sum1 >>> 0;
  sum.sum2 = sum2 >>> 0;
}

/** Kept from one frame of a chunk to the next: a view costs more to make than its sum. */
let lastWords = new Int32Array(0);

function wordsOf(buffer: ArrayBuffer): Int32Array {
  if (lastWords.buffer !== buffer) lastWords = new Int32Array(buffer, 0, Math.floor(buffer.byteLength / 4));
  return lastWords;
}

function addSwapped(
  sum: WalSum,
  bytes: Uint8Array<ArrayBuffer>,
  from: number,
  to: number,
  bigEndian: boolean,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let { sum1, sum2 } = sum;
  for (let at = from; at < to; at += 8) {
    sum1 = (sum1 + view.getInt32(at, !bigEndian) + sum2) | 0;
    sum2 = (sum2 + view.getInt32(at + 4, !bigEndian) + sum1) | 0;
  }
  sum.sum1 = sum1 >>> 0;
  sum.sum2 = sum2 >>> 0;
}
