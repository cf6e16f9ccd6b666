import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import zlib from "node:zlib";
import { loadCodec } from "../../src/checkpoint/codec.ts";
import { nativeZstd } from "../../src/platform/libzstd.ts";

const native = nativeZstd();
const ignore = native === null;

function unpack(frame: Uint8Array, into: Uint8Array): number | null {
  assert(native !== null);
  return native(frame, into);
}

const LENGTHS = [0, 1, 64, 65_536, 1_048_576, 1_048_577, 3_000_000];

function content(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * i) >> 7;
  return bytes;
}

Deno.test("libzstd unpacks what the runtime packed, and writes nothing behind it", { ignore }, () => {
  const place = new Uint8Array(3_000_100);
  for (const length of LENGTHS) {
    const plain = content(length);
    for (const level of [-5, 1, 3, 19]) {
      const params = { [zlib.constants.ZSTD_c_compressionLevel]: level };
      const frame = zlib.zstdCompressSync(plain, { params });
      place.fill(0xee);
      assert.equal(unpack(frame, place.subarray(50, 50 + length)), length);
      assert.ok(
        Buffer.from(plain).equals(place.subarray(50, 50 + length)),
        `${length} bytes, level ${level}`,
      );
      assert.ok(place.subarray(0, 50).every((byte) => byte === 0xee));
      assert.ok(place.subarray(50 + length).every((byte) => byte === 0xee), "what lies behind is as it was");
    }
  }
});

Deno.test("libzstd gives nothing of a damaged frame, or of one that has no room", { ignore }, () => {
  const plain = content(70_000);
  const frame = zlib.zstdCompressSync(plain);
  const place = new Uint8Array(70_000);
  assert.equal(unpack(frame, place.subarray(1)), null, "no room");
  for (const length of [1, 4, 12, frame.length - 1]) {
    assert.equal(unpack(frame.subarray(0, length), place), null, `cut to ${length}`);
  }
  assert.equal(unpack(Buffer.concat([frame, new Uint8Array([1, 2, 3])]), place), null, "bytes behind it");
  assert.equal(unpack(new Uint8Array(100), place), null, "no frame");
  assert.equal(unpack(frame, place), plain.length, "a good one after all these");
  assert.ok(Buffer.from(plain).equals(place));
});

Deno.test(
  "the codec unpacks by libzstd, where the caller says, whatever the length",
  { ignore },
  async () => {
    const codec = await loadCodec();
    const into = new Uint8Array(3_000_000);
    for (const length of LENGTHS.filter((length) => length > 0)) {
      const plain = content(length);
      const unpacked = codec.decompress(new Uint8Array(codec.compress(plain)), length, into);
      assert.ok(Buffer.from(plain).equals(unpacked));
      assert.equal(unpacked.buffer, into.buffer, `${length} bytes`);
    }
  },
);
