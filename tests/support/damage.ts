/** Ways to damage bytes, for tests of decoders: each must end in `data-damaged` or in the right answer. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { isError } from "../../src/platform/errors.ts";

/** `bytes` cut short, with bits flipped, or with bytes put in or taken out. */
export function damagedCopies(
  bytes: Uint8Array,
): fc.Arbitrary<Uint8Array<ArrayBuffer>> {
  const at = fc.nat({ max: Math.max(0, bytes.length - 1) });
  const flipped = fc.array(fc.tuple(at, fc.integer({ min: 1, max: 255 })), {
    minLength: 1,
    maxLength: 4,
  }).map(
    (flips) => {
      const copy = new Uint8Array(bytes);
      for (const [index, mask] of flips) {
        copy[index] = (copy[index] ?? 0) ^ mask;
      }
      return copy;
    },
  );
  const cut = at.map((length) => new Uint8Array(bytes.subarray(0, length)));
  const grown = fc.tuple(at, fc.uint8Array({ minLength: 1, maxLength: 40 }))
    .map(([index, more]) =>
      new Uint8Array([
        ...bytes.subarray(0, index),
        ...more,
        ...bytes.subarray(index),
      ])
    );
  return fc.oneof(flipped, cut, grown);
}

const LTX_HEADER_BYTES = 100;
const LTX_FRAME_PREFIX_BYTES = 10;

/**
 * An LTX file with one bit of its first page flipped, for certain: in the first literal of the page's LZ4 block. Elsewhere a
 * flipped bit may be read as the same page: a match of equal bytes at another place.
 */
export function withFlippedPage(file: Uint8Array): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(file);
  let at = LTX_HEADER_BYTES + LTX_FRAME_PREFIX_BYTES;
  const isLong = (copy[at++] ?? 0) >> 4 === 15;
  while (isLong && copy[at++] === 255);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}

/** Runs `decode`; true when it refused the input properly, false when it took it. Any other error fails the test. */
export function refuses(decode: () => unknown): boolean {
  try {
    decode();
    return false;
  } catch (error) {
    assert.ok(
      isError(error, "data-damaged", "format-too-new"),
      `threw ${error}`,
    );
    return true;
  }
}
