import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createCipheriv, createHash, createHmac } from "node:crypto";
import { openCipher } from "../../src/checkpoint/cipher.ts";
import { nativeCrypto } from "../../src/platform/libcrypto.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { isError } from "../../src/platform/errors.ts";

const native = nativeCrypto();
const ignore = native === null;
const random = systemRandom();
const SIZES = [0, 1, 15, 16, 17, 63, 64, 65, 1000, 65_536, 300_001];
const content = (size: number) => new Uint8Array(size).map((_, i) => (i * 31 + size) % 251);
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

function library() {
  assert(native !== null);
  return native;
}

Deno.test("libcrypto hashes as the runtime does", { ignore }, () => {
  const { sha256, hmacSha256 } = library();
  const key = random.bytes(32);
  const other = hmacSha256(random.bytes(32));
  const hmac = hmacSha256(key);
  for (const size of SIZES) {
    const bytes = content(size);
    assert.equal(text(sha256(bytes)), createHash("sha256").update(bytes).digest("hex"));
    assert.equal(text(hmac(bytes)), createHmac("sha256", key).update(bytes).digest("hex"));
    assert.notEqual(text(other(bytes)), text(hmac(bytes)), "each key has a state of its own");
    const view = content(size + 9).subarray(9);
    assert.equal(text(sha256(view)), createHash("sha256").update(view).digest("hex"), "of a view");
  }
});

Deno.test(
  "libcrypto seals as the runtime does, opens its own and refuses what was changed",
  { ignore },
  () => {
    const { seal, unseal } = library();
    for (const size of SIZES) {
      const use = { key: random.bytes(32), nonce: random.bytes(12), about: content(size % 70) };
      const bytes = content(size);
      const target = new Uint8Array(size + 20).fill(7);
      seal(use, bytes, target.subarray(2));
      const cipher = createCipheriv("aes-256-gcm", use.key, use.nonce).setAAD(use.about);
      const wanted = Buffer.concat([cipher.update(bytes), cipher.final(), cipher.getAuthTag()]);
      const sealed = target.subarray(2, size + 18);
      assert.equal(text(sealed), text(wanted));
      assert.deepEqual(
        [...target.subarray(0, 2), ...target.subarray(size + 18)],
        [7, 7, 7, 7],
        "and no more",
      );
      assert.equal(text(unseal(use, sealed) ?? new Uint8Array()), text(bytes));
      const own = sealed.slice();
      const opened = unseal(use, own, true) ?? new Uint8Array();
      assert.equal(text(opened), text(bytes), "in place");
      assert.equal(opened.buffer, own.buffer);
      for (const at of [0, size >> 1, size, size + 15]) {
        const changed = sealed.slice();
        changed[at] = (changed[at] ?? 0) ^ 1;
        assert.equal(unseal(use, changed), null, `byte ${at} of ${size} changed`);
      }
      assert.equal(unseal({ ...use, nonce: random.bytes(12) }, sealed), null);
      assert.equal(unseal({ ...use, key: random.bytes(32) }, sealed), null);
      assert.equal(unseal({ ...use, about: content(71) }, sealed), null);
      assert.equal(unseal(use, sealed.subarray(0, 15)), null);
    }
    assert.throws(() =>
      seal({ key: random.bytes(16), nonce: random.bytes(12), about: content(1) }, content(1), content(99))
    );
    assert.throws(() =>
      seal({ key: random.bytes(32), nonce: random.bytes(12), about: content(1) }, content(9), content(24))
    );
  },
);

Deno.test("cipher by libcrypto and by the runtime name and seal the same", { ignore }, () => {
  for (
    const wire of [null, { repoId: "ab".repeat(16), dataKey: Buffer.from(content(32)).toString("base64") }]
  ) {
    const [ours, theirs] = [openCipher(wire, random), openCipher(wire, random, null)];
    const place = { pack: "0000002a/01arz3ndektsv4rrffq69g5fav", offset: 5 };
    const blob = content(5000);
    assert.deepEqual(ours.chunkId(blob), theirs.chunkId(blob));
    const [a, b] = [new Uint8Array(5016), new Uint8Array(5016)];
    assert.equal(ours.sealBlob(place, blob, a), theirs.sealBlob(place, blob, b));
    assert.equal(text(a), text(b));
    const length = wire === null ? 5000 : 5016;
    assert.equal(text(theirs.openBlob(place, a.subarray(0, length))), text(blob));
    assert.equal(text(ours.openBlob(place, b.subarray(0, length))), text(blob));
    if (wire === null) continue;
    const isDamage = (error: unknown) => isError(error, "data-damaged");
    assert.throws(() => ours.openBlob({ ...place, offset: 6 }, a), isDamage);
  }
});

Deno.test("a cipher asks for the library at its first chunk, and each cipher names chunks the same", () => {
  for (const wire of [null, { repoId: "ab".repeat(16), dataKey: Buffer.alloc(32, 7).toString("base64") }]) {
    let asked = 0;
    const cipher = openCipher(wire, random, () => (asked++, nativeCrypto()));
    cipher.openObject("roots/1", cipher.sealObject("roots/1", Uint8Array.of(1, 2, 3)));
    assert.equal(asked, 0, "an object alone needs none of it");
    const chunk = Uint8Array.of(4, 5, 6);
    assert.deepEqual(cipher.chunkId(chunk), openCipher(wire, random, null).chunkId(chunk));
    assert.ok(asked > 0);
  }
});
