/**
 * CRC-64/GO-ISO (reflected polynomial 0xD800000000000000, initial value and final XOR all ones), which LTX uses for
 * its file checksum. Kept as two 32-bit halves, since BigInt in the loop is a hundred times slower.
 */

/** Entries of the table use no more than the top 16 bits of 64, so that the low half of each is zero. */
const TABLE = tableOf(0xd8000000);

function tableOf(polynomialHigh: number): Int32Array {
  const table = new Int32Array(256);
  for (let i = 0; i < 256; i++) {
    let low = i;
    let high = 0;
    for (let bit = 0; bit < 8; bit++) {
      const carry = low & 1;
      low = (low >>> 1) | (high << 31);
      high = (high >>> 1) ^ (carry === 1 ? polynomialHigh : 0);
    }
    table[i] = high;
  }
  return table;
}

export class Crc64 {
  #high = -1;
  #low = -1;

  update(bytes: Uint8Array): void {
    let high = this.#high;
    let low = this.#low;
    for (let i = 0; i < bytes.length; i++) {
      const entry = TABLE[(low ^ (bytes[i] as number)) & 0xff] as number;
      low = (low >>> 8) | (high << 24);
      high = (high >>> 8) ^ entry;
    }
    this.#high = high;
    this.#low = low;
  }

  /** Unsigned; more bytes may follow. */
  value(): bigint {
    return (BigInt(~this.#high >>> 0) << 32n) | BigInt(~this.#low >>> 0);
  }
}

export function crc64(bytes: Uint8Array): bigint {
  const crc = new Crc64();
  crc.update(bytes);
  return crc.value();
}
