import assert from "node:assert/strict";
import fc from "fast-check";
import { decodeBytes, encodeBytes, loadCodec, loadWasmCodec } from "../../src/checkpoint/codec.ts";
import { damagedCopies, refuses } from "../support/damage.ts";

const codecs = { native: await loadCodec(), wasm: await loadWasmCodec() };

const texts = fc.string({ minLength: 1, maxLength: 3000 }).map((text) =>
  new TextEncoder().encode(text.repeat(5) + "x")
);

Deno.test("codec of the runtime is the native one", () => {
  assert.equal(codecs.native.engine, "native");
});

for (const writer of ["native", "wasm"] as const) {
  for (const reader of ["native", "wasm"] as const) {
    Deno.test(`codec ${reader} reads what codec ${writer} wrote`, () => {
      fc.assert(
        fc.property(
          fc.oneof(texts, fc.uint8Array({ minLength: 1, maxLength: 5000 })),
          (plain) => {
            const stored = encodeBytes(codecs[writer], plain);
            assert.deepEqual(
              new Uint8Array(
                decodeBytes(codecs[reader], stored, plain.length, "object"),
              ),
              new Uint8Array(plain),
            );
          },
        ),
      );
    });
  }
}

Deno.test("codec stores raw what zstd cannot make smaller", () => {
  const plain = crypto.getRandomValues(new Uint8Array(50_000));
  assert.equal(encodeBytes(codecs.native, plain).compressed, false);
  assert.equal(
    encodeBytes(codecs.native, new Uint8Array(50_000)).compressed,
    true,
  );
});

for (const engine of ["native", "wasm"] as const) {
  Deno.test(`codec ${engine} gives the declared length or data-damaged, whatever the frame is`, () => {
    const plain = new TextEncoder().encode(
      "a line of a log, and another one\n".repeat(300),
    );
    const frame = new Uint8Array(codecs[engine].compress(plain));
    fc.assert(fc.property(damagedCopies(frame), (bytes) => {
      refuses(() => {
        const decoded = decodeBytes(
          codecs[engine],
          { bytes, compressed: true },
          plain.length,
          "object",
        );
        assert.equal(decoded.length, plain.length);
      });
    }));
  });
}

Deno.test("codec refuses a frame that unpacks to more than declared, without making it", () => {
  const bomb = codecs.native.compress(new Uint8Array(64 * 1024 * 1024));
  for (const codec of [codecs.native, codecs.wasm]) {
    assert.throws(() => codec.decompress(bomb, 1000), "the engine itself stops");
    assert.ok(
      refuses(() => decodeBytes(codec, { bytes: bomb, compressed: true }, 1000, "object")),
    );
  }
});

for (const engine of ["native", "wasm"] as const) {
  Deno.test(`codec ${engine} reads a good frame right after any damaged one, into memory that is used again`, () => {
    const codec = codecs[engine];
    const plain = new TextEncoder().encode("first line\n".repeat(400));
    const next = crypto.getRandomValues(new Uint8Array(5000)).fill(7, 1000, 4000);
    const frame = new Uint8Array(codec.compress(plain));
    const good = { bytes: new Uint8Array(codec.compress(next)), compressed: true };
    const into = new Uint8Array(8000);
    fc.assert(fc.property(damagedCopies(frame), (bytes) => {
      refuses(() => void decodeBytes(codec, { bytes, compressed: true }, plain.length, "object", into));
      const decoded = decodeBytes(codec, good, next.length, "object", into);
      assert.ok(decoded.length === next.length && decoded.every((byte, i) => byte === next[i]));
    }));
    const longer = new Uint8Array(codec.compress(new Uint8Array(9000)));
    const decoded = decodeBytes(codec, { bytes: longer, compressed: true }, 9000, "object", into);
    assert.ok(decoded.length === 9000 && decoded.every((byte) => byte === 0));
  });
}
