/** Unsigned LEB128 numbers, as the page index has them, within what a double counts exactly. */

/** Most bytes of one number up to 2^53 - 1. */
export const VARINT_LIMIT_BYTES = 8;

/** Writes `value` to `target` at `at`; the place after it. */
export function writeVarint(target: Uint8Array, at: number, value: number): number {
  while (value >= 0x80) {
    target[at++] = (value % 0x80) | 0x80;
    value = Math.floor(value / 0x80);
  }
  target[at++] = value;
  return at;
}

export class VarintReader {
  #at = 0;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** Null where the bytes end, or the number is larger than 2^53 - 1. */
  next(): number | null {
    let value = 0;
    let scale = 1;
    for (let count = 0; count < VARINT_LIMIT_BYTES && this.#at < this.#bytes.length; count++) {
      const byte = this.#bytes[this.#at++] as number;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return Number.isSafeInteger(value) ? value : null;
      scale *= 0x80;
    }
    return null;
  }
}
