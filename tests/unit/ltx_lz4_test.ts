import assert from "node:assert/strict";
import fc from "fast-check";
import { blockBound, compressBlock, decompressBlock } from "../../src/database/ltx/lz4_block.ts";
import { damagedCopies } from "../support/damage.ts";
import { assertSameBytes } from "../support/ltx_files.ts";
import { literalBlock } from "../support/ltx_reference.ts";

function compress(plain: Uint8Array): Uint8Array<ArrayBuffer> {
  const target = new Uint8Array(blockBound(plain.length));
  return target.slice(0, compressBlock(plain, target, 0));
}

function expand(block: Uint8Array, length: number): Uint8Array | string {
  const target = new Uint8Array(length);
  return decompressBlock(block, target) ?? target;
}

function assertExpands(block: Uint8Array, plain: Uint8Array): void {
  const expanded = expand(block, plain.length);
  if (typeof expanded === "string") assert.fail(expanded);
  assertSameBytes(expanded, plain);
}

/** Bytes as pages have them: runs, repetitions near and far, and noise. */
const plains = fc.array(
  fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.tuple(fc.nat(255), fc.nat(3000)).map(([byte, count]) => new Uint8Array(count).fill(byte)),
    fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 20 }), fc.nat(200)).map(([unit, count]) =>
      Uint8Array.from({ length: unit.length * count }, (_, i) => unit[i % unit.length] ?? 0)
    ),
  ),
  { maxLength: 8 },
).map((parts) => Uint8Array.from(parts.flatMap((part) => [...part])));

Deno.test("LZ4 decompressor gives back what the compressor made", () => {
  fc.assert(
    fc.property(plains, (plain) => {
      const block = compress(plain);
      assert.ok(block.length <= blockBound(plain.length));
      assertExpands(block, plain);
    }),
    { numRuns: 500 },
  );
});

for (const length of [0, 1, 4, 5, 11, 12, 13, 14, 15, 16, 17, 269, 270, 271, 511, 512, 65535, 65536]) {
  Deno.test(`LZ4 blocks of ${length} equal bytes and of ${length} random bytes are right`, () => {
    const random = new Uint8Array(length);
    for (let at = 0; at < length; at += 65536) crypto.getRandomValues(random.subarray(at, at + 65536));
    for (const plain of [new Uint8Array(length).fill(7), random]) {
      const block = compress(plain);
      assert.ok(block.length <= blockBound(length));
      assertExpands(block, plain);
      assert.equal(typeof expand(block, length + 1), "string");
      if (length > 0) assert.equal(typeof expand(block, length - 1), "string");
    }
  });
}

Deno.test("LZ4 compressor makes a page of zeros and a text small", () => {
  assert.ok(compress(new Uint8Array(65536)).length < 300);
  const text = new TextEncoder().encode("a line of a log, and another one\n".repeat(100));
  assert.ok(compress(text).length < 100);
});

Deno.test("LZ4 compressor looks for little in digits that are random, and for all in a text", () => {
  const random = noise(10_000);
  const digits = new TextEncoder().encode(
    Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join(""),
  );
  const block = compress(digits);
  assertExpands(block, digits);
  assert.ok(block.length > 0.99 * digits.length, `${block.length} of ${digits.length} bytes`);
  // Matches come after more noise than the search would still look at closely, and are all found.
  const words = new TextEncoder().encode("the quick brown fox jumps over the lazy dog ".repeat(40));
  const plain = Uint8Array.from([...words, ...digits.subarray(0, 500), ...words]);
  const whole = compress(plain);
  assertExpands(whole, plain);
  assert.ok(whole.length < 500 + 150, `${whole.length} bytes`);
});

/** What the format demands of the end of a block (lz4_Block_format.md): other decompressors rely on it. */
function checkEnd(block: Uint8Array, length: number): void {
  let at = 0;
  let to = 0;
  const nibble = (start: number) => {
    let value = start;
    for (let more = 255; start === 15 && more === 255;) value += more = block[at++] ?? 0;
    return value;
  };
  for (;;) {
    const token = block[at++] ?? 0;
    const literals = nibble(token >> 4);
    at += literals;
    to += literals;
    if (at >= block.length) {
      assert.ok(literals >= 5 || literals === length, `${literals} literals at the end`);
      return;
    }
    at += 2;
    assert.ok(length - to >= 12, `a match begins ${length - to} bytes before the end`);
    to += nibble(token & 15) + 4;
  }
}

Deno.test("LZ4 compressor keeps the rules for the end of a block", () => {
  fc.assert(fc.property(plains, (plain) => checkEnd(compress(plain), plain.length)), { numRuns: 500 });
});

/** Bytes without a match in them. */
function noise(length: number): Uint8Array<ArrayBuffer> {
  let state = 7;
  return Uint8Array.from({ length }, () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 24);
}

Deno.test("LZ4 compressor keeps the rules for the end of a block when a match reaches to it", () => {
  for (let repeated = 4; repeated < 30; repeated++) {
    const start = noise(40);
    const plain = Uint8Array.from([...start, ...start.subarray(0, repeated)]);
    const block = compress(plain);
    checkEnd(block, plain.length);
    assertExpands(block, plain);
    assert.equal(block.length < plain.length, repeated >= 12);
  }
});

Deno.test("LZ4 compressor uses no match that is farther away than a distance can say", () => {
  for (const apart of [65_534, 65_535, 65_536, 70_000]) {
    const start = noise(40);
    const plain = Uint8Array.from([...start, ...noise(apart).subarray(40), ...start, ...noise(20)]);
    assertExpands(compress(plain), plain);
  }
});

Deno.test("LZ4 decompressor reads a block written by hand after the format", () => {
  // "abcd", then 8 bytes from 4 before (an overlapping match), then 5 literals.
  const block = Uint8Array.of(0x44, 97, 98, 99, 100, 4, 0, 0x50, 49, 50, 51, 52, 53);
  assert.deepEqual(expand(block, 17), new TextEncoder().encode("abcdabcdabcd12345"));
  assert.deepEqual(expand(literalBlock(block), block.length), block);
});

const WRONG_BLOCKS: Readonly<Record<string, [readonly number[], RegExp]>> = {
  "nothing": [[], /without literals/],
  "a length that does not end": [[0xf0, 255, 255], /in a length/],
  "fewer literals than it says": [[0x50, 1, 2], /in its literals/],
  "more literals than a page": [[0xf0, 255, 255, 0, ...new Array(525).fill(0)], /more than a page/],
  "half a distance": [[0x10, 1, 1], /in a distance/],
  "distance 0": [[0x14, 1, 0, 0, 0x50, 1, 2, 3, 4, 5], /before its start/],
  "a distance to before its start": [[0x14, 1, 2, 0, 0x50, 1, 2, 3, 4, 5], /before its start/],
  "a match longer than a page": [[0x1f, 1, 1, 0, 255, 255, 255, 0, 0x00], /more than a page/],
  "a match length that does not end": [[0x1f, 1, 1, 0, 255], /in a length/],
  "a match at its end": [[0x14, 1, 1, 0], /without literals/],
  "too little": [[0x14, 1, 1, 0, 0x00], /to 9 bytes only/],
};

for (const [what, [bytes, wanted]] of Object.entries(WRONG_BLOCKS)) {
  Deno.test(`LZ4 decompressor refuses a block with ${what} and says so`, () => {
    assert.match(String(expand(Uint8Array.from(bytes), 512)), wanted);
  });
}

Deno.test("LZ4 decompressor fills exactly a page or refuses, whatever the bytes are", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(600), (bytes, length) => {
      // A guard on both sides shows a write outside; a read outside would show as NaN turned 0, hence the exact oracle.
      const whole = new Uint8Array(length + 32).fill(0xa5);
      const problem = decompressBlock(bytes, whole.subarray(16, 16 + length));
      assert.ok(whole.subarray(0, 16).every((byte) => byte === 0xa5));
      assert.ok(whole.subarray(16 + length).every((byte) => byte === 0xa5));
      const slow = slowExpand(bytes, length);
      assert.equal(problem === null, slow !== null);
      if (slow !== null) assert.deepEqual([...whole.subarray(16, 16 + length)], slow);
    }),
    { numRuns: 5000 },
  );
});

/** The format as plainly as it can be said; null for what is no block of `length` bytes. */
function slowExpand(block: Uint8Array, length: number): number[] | null {
  const output: number[] = [];
  const input = [...block];
  const size = (nibble: number): number | null => {
    if (nibble < 15) return nibble;
    for (let sum = 15;;) {
      const more = input.shift();
      if (more === undefined) return null;
      sum += more;
      if (more < 255) return sum;
    }
  };
  for (;;) {
    const token = input.shift();
    if (token === undefined) return null;
    const literals = size(token >> 4);
    if (literals === null || literals > input.length) return null;
    output.push(...input.splice(0, literals));
    if (input.length === 0) return output.length === length ? output : null;
    const low = input.shift();
    const high = input.shift();
    if (low === undefined || high === undefined) return null;
    const distance = low + 256 * high;
    const match = size(token & 15);
    if (match === null || distance === 0 || distance > output.length) return null;
    for (let i = 0; i < match + 4; i++) output.push(output[output.length - distance] ?? 0);
    if (output.length > length) return null;
  }
}

Deno.test("LZ4 decompressor fills exactly a page or refuses when a good block is damaged", () => {
  const plain = new TextEncoder().encode("a line of a log, and another one\n".repeat(60));
  fc.assert(
    fc.property(damagedCopies(compress(plain)), (bytes) => {
      const got = expand(bytes, plain.length);
      const slow = slowExpand(bytes, plain.length);
      assert.deepEqual(typeof got === "string" ? null : [...got], slow);
    }),
    { numRuns: 2000 },
  );
});
