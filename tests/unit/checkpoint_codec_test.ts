import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import {
  decodeBytes,
  encodeBytes,
  loadCodec,
  loadRuntimeCodec,
  loadWasmCodec,
} from "../../src/checkpoint/codec.ts";
import { isError } from "../../src/platform/errors.ts";
import { damagedCopies, refuses } from "../support/damage.ts";

const codecs = { native: await loadCodec(), runtime: loadRuntimeCodec(), wasm: await loadWasmCodec() };

const texts = fc.string({ minLength: 1, maxLength: 3000 }).map((text) =>
  new TextEncoder().encode(text.repeat(5) + "x")
);

Deno.test("codec of the runtime is the native one", () => {
  assert.equal(codecs.native.engine, "native");
});

for (const writer of ["native", "wasm"] as const) {
  for (const reader of ["native", "runtime", "wasm"] as const) {
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

for (const engine of ["native", "runtime", "wasm"] as const) {
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
  for (const codec of Object.values(codecs)) {
    assert.throws(() => codec.decompress(bomb, 1000), "the engine itself stops");
    assert.ok(
      refuses(() => decodeBytes(codec, { bytes: bomb, compressed: true }, 1000, "object")),
    );
  }
});

for (const engine of ["native", "runtime", "wasm"] as const) {
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

Deno.test("codec runtime keeps one context for frames up to a mebibyte, and gives what the public call gives", () => {
  const native = codecs.runtime;
  const limit = 1024 * 1024;
  const lengths = [1, 2, 63, 64, 65, 4096, 65_535, 65_536, limit - 1, limit, limit + 1, 3 * limit, 5];
  const into = new Uint8Array(limit + 1000);
  for (const length of lengths) {
    const plain = new Uint8Array(length);
    for (let i = 0; i < length; i++) plain[i] = (i * i) >> 7;
    const frame = new Uint8Array(native.compress(plain));
    const fresh = native.decompress(frame, length);
    const reused = native.decompress(frame, length, into);
    assert.ok(Buffer.from(plain).equals(fresh), `${length} bytes`);
    assert.ok(Buffer.from(plain).equals(reused), `${length} bytes into memory that is used again`);
    // Unpacked to the caller's memory, or the public call was taken all along and each frame costs five times as much.
    assert.equal(reused.buffer === into.buffer, length <= limit, `${length} bytes`);
  }
});

for (const engine of ["native", "runtime"] as const) {
  Deno.test(`codec ${engine} takes nothing but one whole frame of the declared length`, () => {
    const native = codecs[engine];
    const plain = new TextEncoder().encode("a line\n".repeat(1000));
    const frame = new Uint8Array(native.compress(plain));
    const second = new Uint8Array(native.compress(new Uint8Array(100)));
    const odd = {
      "a second frame behind it": Buffer.concat([frame, second]),
      "bytes behind it": Buffer.concat([frame, new Uint8Array([1, 2, 3])]),
      "its last byte missing": frame.subarray(0, frame.length - 1),
      "nothing": new Uint8Array(0),
    };
    for (const [what, bytes] of Object.entries(odd)) {
      const open = (length: number) => decodeBytes(native, { bytes, compressed: true }, length, "object");
      for (const length of [plain.length - 1, plain.length, plain.length + 1]) {
        try {
          const decoded = open(length);
          assert.ok(Buffer.from(plain).equals(decoded), `${what}: only the content itself may come out`);
        } catch (error) {
          assert.ok(isError(error, "data-damaged"), what);
        }
      }
      assert.ok(
        Buffer.from(plain).equals(native.decompress(frame, plain.length)),
        `a good frame after ${what}`,
      );
    }
    for (const length of [0, plain.length - 1, plain.length + 1]) {
      assert.throws(() => decodeBytes(native, { bytes: frame, compressed: true }, length, "object"));
    }
  });
}
