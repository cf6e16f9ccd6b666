import assert from "node:assert/strict";
import fc from "fast-check";
import { Crc64, crc64 } from "../../src/database/ltx/crc64.ts";
import { xxhash32 } from "../../src/database/ltx/xxhash32.ts";
import { slowCrc64 } from "../support/ltx_reference.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);

/** The first from the catalogue of parametrised CRC algorithms (CRC-64/GO-ISO), the others from Go's hash/crc64. */
const CRC64_VECTORS: readonly [string, bigint][] = [
  ["123456789", 0xb90956c775a41001n],
  ["", 0n],
  ["a", 0x3420000000000000n],
  ["ab", 0x36c4200000000000n],
  ["abc", 0x3776c42000000000n],
  ["abcd", 0x336776c420000000n],
  ["abcdefgh", 0x0e21b002d36776c4n],
  ["abcdefghij", 0x7f5b6e21b002d367n],
];

/** From the xxHash specification and its implementations' own tests; seed 0. */
const XXHASH32_VECTORS: readonly [string, number][] = [
  ["", 0x02cc5d05],
  ["a", 0x550d7456],
  ["abc", 0x32d153ff],
  ["Nobody inspects the spammish repetition", 0xe2293b2f],
];

for (const [text, wanted] of CRC64_VECTORS) {
  Deno.test(`crc64 gives the published value of "${text}"`, () => {
    assert.equal(crc64(utf8(text)), wanted);
  });
}

Deno.test("crc64 equals the definition bit by bit, in any pieces", () => {
  fc.assert(fc.property(fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 6 }), (parts) => {
    const crc = new Crc64();
    for (const part of parts) crc.update(part);
    assert.equal(crc.value(), slowCrc64(Uint8Array.from(parts.flatMap((part) => [...part]))));
  }));
});

for (const [text, wanted] of XXHASH32_VECTORS) {
  Deno.test(`xxhash32 gives the published value of "${text}"`, () => {
    assert.equal(xxhash32(utf8(text)), wanted);
  });
}

Deno.test("xxhash32 makes the header checksum of the LZ4 frames that Litestream wrote", () => {
  assert.equal((xxhash32(Uint8Array.of(0x64, 0x40)) >> 8) & 0xff, 0xa7);
});

Deno.test("xxhash32 reads a view from its own start", () => {
  const bytes = utf8("..Nobody inspects the spammish repetition..");
  assert.equal(xxhash32(bytes.subarray(2, bytes.length - 2)), 0xe2293b2f);
});
