/** Newlines are counted as a loop over the bytes counts them, or not at all. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { countNewlines } from "../../src/platform/count_newlines.ts";

const NEWLINE = 10;
const QUIET_BYTES = 16 * 1024;

function expected(bytes: Uint8Array): { count: number; longest: number } {
  let count = 0;
  let longest = 0;
  let quiet = 0;
  for (const byte of bytes) {
    if (byte === NEWLINE) {
      count++;
      quiet = 0;
    } else longest = Math.max(longest, ++quiet);
  }
  return { count, longest };
}

/** Lines of one length, of bytes that are near a newline in some bit. */
function bytesOf(length: number, lineBytes: number, offset: number): Uint8Array {
  const bytes = new Uint8Array(length + offset);
  const others = [0, 9, 11, 13, 26, 74, 138, 255];
  for (let at = 0; at < bytes.length; at++) {
    bytes[at] = at % lineBytes === lineBytes - 1 ? NEWLINE : others[at % others.length] ?? 0;
  }
  return bytes.subarray(offset);
}

Deno.test("newlines are counted exactly wherever their lines are short, at any offset and of any length", () => {
  fc.assert(fc.property(
    fc.integer({ min: 0, max: 70_000 }),
    fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 8_000 })),
    fc.integer({ min: 0, max: 17 }),
    (length, lineBytes, offset) => {
      const bytes = bytesOf(length, lineBytes, offset);
      assert.equal(countNewlines(bytes, QUIET_BYTES), expected(bytes).count);
    },
  ));
});

Deno.test("newlines are not counted where a line may be longer than it may be, and what was counted before does not show", () => {
  fc.assert(fc.property(
    fc.array(fc.integer({ min: 0, max: 20_000 }), { maxLength: 8 }),
    fc.integer({ min: 0, max: 17 }),
    (lines, offset) => {
      const bytes = new Uint8Array([0, ...lines].reduce((sum, line) => sum + line + 1)).fill(11);
      let end = 0;
      for (const line of lines) bytes[(end += line + 1) - 1] = NEWLINE;
      countNewlines(new Uint8Array(9_999).fill(NEWLINE), QUIET_BYTES);
      const { count, longest } = expected(bytes.subarray(offset));
      const found = countNewlines(bytes.subarray(offset), QUIET_BYTES);
      if (longest > QUIET_BYTES) assert.equal(found, null);
      else if (found !== null) assert.equal(found, count);
    },
  ));
});
