import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { type ChunkerSizes, cutAll, DATA_CHUNKS, nextCut } from "../../src/checkpoint/chunker.ts";
import { chunkId } from "../../src/checkpoint/ids.ts";

/** Bytes from a small generator: the same seed gives the same bytes on every machine. */
function noise(seed: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed >>> 0 || 1;
  for (let i = 0; i < length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state;
  }
  return bytes;
}

const SMALL = { min: 64, avg: 256, max: 1024 };
const MIB = 1024 * 1024;

function idsOf(content: Uint8Array, sizes = DATA_CHUNKS): string[] {
  let at = 0;
  return cutAll(content, sizes).map((length) => chunkId(content.subarray(at, at += length)));
}

Deno.test("chunker covers the content with chunks between min and max", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 5000 }), (content) => {
    const lengths = cutAll(content, SMALL);
    assert.equal(
      lengths.reduce((sum, length) => sum + length, 0),
      content.length,
    );
    lengths.slice(0, -1).forEach((length) => assert.ok(length >= SMALL.min && length <= SMALL.max));
    assert.ok((lengths.at(-1) ?? 0) <= SMALL.max);
  }));
});

Deno.test("chunker cuts at places that depend on the bytes before them alone", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1 }),
      fc.nat({ max: 3000 }),
      (seed, shift) => {
        const content = noise(seed, 8000);
        const moved = new Uint8Array(shift + content.length);
        moved.set(noise(seed + 1, shift));
        moved.set(content, shift);
        assert.equal(
          nextCut(moved, shift, moved.length, SMALL) - shift,
          nextCut(content, 0, content.length, SMALL),
        );
      },
    ),
  );
});

/** The definition, byte by byte, as the format's description has it. */
function plainCut(bytes: Uint8Array, start: number, end: number, sizes: ChunkerSizes): number {
  const bits = 31 - Math.clz32(sizes.avg);
  for (let cut = start + sizes.min; cut < Math.min(end, start + sizes.max); cut++) {
    let hash = 0;
    for (const byte of bytes.subarray(cut - 32, cut)) hash = ((hash << 1) + (GEAR[byte] ?? 0)) | 0;
    const ones = cut <= start + sizes.avg ? bits + 2 : bits - 2;
    if (hash >>> (32 - ones) === 0) return cut;
  }
  return Math.min(end, start + sizes.max);
}

const GEAR = Array.from({ length: 256 }, (_, byte) => {
  const text = [...new TextEncoder().encode("state-manager gear32 v1"), byte];
  return createHash("sha256").update(Uint8Array.from(text)).digest().readInt32LE(0);
});

Deno.test("chunker cuts where the definition says, however many bytes it looks at in one step", () => {
  const sizes = fc.constantFrom(
    SMALL,
    { min: 64, avg: 4096, max: 20_000 },
    { min: 2048, avg: 8192, max: 16_384 },
  );
  fc.assert(
    fc.property(fc.integer({ min: 1 }), fc.nat({ max: 30_000 }), fc.nat({ max: 99 }), sizes, (...args) => {
      const [seed, length, start, each] = args;
      const content = noise(seed, start + length);
      if (seed % 3 === 0) content.forEach((byte, i) => content[i] = byte & 3);
      assert.equal(
        nextCut(content, start, content.length, each),
        plainCut(content, start, content.length, each),
      );
    }),
    { numRuns: 300 },
  );
});

Deno.test("chunker keeps almost all chunks when bytes are inserted", () => {
  const content = noise(7, 16 * MIB);
  const edited = new Uint8Array(content.length + 10);
  edited.set(content.subarray(0, 5 * MIB));
  edited.set(content.subarray(5 * MIB), 5 * MIB + 10);
  const before = new Set(idsOf(content));
  const fresh = idsOf(edited).filter((id) => !before.has(id));
  assert.ok(fresh.length <= 2, `${fresh.length} new chunks`);
});

Deno.test("chunker makes chunks of 256 KiB on average", () => {
  const lengths = cutAll(noise(3, 48 * MIB), DATA_CHUNKS);
  const mean = 48 * MIB / lengths.length;
  assert.ok(
    mean > 200 * 1024 && mean < 340 * 1024,
    `mean is ${Math.round(mean / 1024)} KiB`,
  );
});

Deno.test("chunker cuts as the format says: these ids are in buckets", () => {
  const lengths = cutAll(noise(1, 2 * MIB), DATA_CHUNKS);
  assert.deepEqual(lengths, GOLDEN_LENGTHS);
});

/** Made once with the format's first version; a change here means that nothing deduplicates with older checkpoints. */
const GOLDEN_LENGTHS = [327009, 361170, 321104, 275080, 324178, 312691, 175920];
