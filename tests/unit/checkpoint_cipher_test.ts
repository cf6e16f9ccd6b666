import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createCipheriv, createHmac, hkdfSync } from "node:crypto";
import fc from "fast-check";
import {
  type BlobPlace,
  type Cipher,
  openCipher,
  plainCipher,
  sealingCipher,
} from "../../src/checkpoint/cipher.ts";
import { sha256, sha256Hex } from "../../src/checkpoint/ids.ts";
import { FLAG_SEALED, PackBuilder, readPackEntries } from "../../src/checkpoint/pack.ts";
import { SEAL_BYTES } from "../../src/checkpoint/seal.ts";
import { isError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { Secret } from "../../src/platform/secret.ts";
import { damagedCopies, refuses } from "../support/damage.ts";

const random = systemRandom();
const repoId = "0123456789abcdef".repeat(2);
const dataKey = new Uint8Array(32).map((_, i) => i * 7 + 1);

function cipherOf(id = repoId, key = dataKey): Cipher {
  return sealingCipher({ repoId: id, dataKey: new Secret(Buffer.from(key).toString("base64")) }, random);
}

/** What is stored for a blob. */
function sealed(cipher: Cipher, at: BlobPlace, blob: Uint8Array): Uint8Array<ArrayBuffer> {
  const target = new Uint8Array(blob.length + SEAL_BYTES);
  return target.subarray(0, cipher.sealBlob(at, blob, target));
}

const place = { pack: "0000002a/01arz3ndektsv4rrffq69g5fav", offset: 5 };
const contents = fc.uint8Array({ minLength: 1, maxLength: 300 });
const bytes = (length: number) => new Uint8Array(length).map((_, i) => (i * 31) % 251);
const isDamage = (error: unknown) => isError(error, "data-damaged");

Deno.test("plain cipher names by SHA-256 and changes no byte", () => {
  const content = bytes(100);
  assert.deepEqual(plainCipher.chunkId(content), sha256(content));
  assert.equal(plainCipher.hash().update(content).digest("hex"), sha256Hex(content));
  assert.deepEqual(sealed(plainCipher, place, content), content);
  assert.equal(plainCipher.sealObject("key", content), content);
});

Deno.test("sealing cipher opens what it sealed, blobs and objects", () => {
  const cipher = cipherOf();
  fc.assert(fc.property(contents, fc.nat({ max: 2 ** 32 - 1 }), (content, offset) => {
    const blob = sealed(cipher, { ...place, offset }, content);
    assert.equal(blob.length, content.length + SEAL_BYTES);
    assert.deepEqual(new Uint8Array(cipher.openBlob({ ...place, offset }, blob)), new Uint8Array(content));
    const object = cipher.sealObject("a/b", new Uint8Array(content));
    assert.deepEqual(cipher.openObject("a/b", object), new Uint8Array(content));
  }));
  const content = bytes(50);
  assert.notDeepEqual(cipher.sealObject("a", content), cipher.sealObject("a", content), "nonces are random");
  assert.notDeepEqual(cipher.chunkId(content), sha256(content));
});

Deno.test("sealed blobs are as the format says, so that another version opens them", () => {
  const cipher = cipherOf();
  const content = bytes(40);
  const derived = (use: string) =>
    new Uint8Array(hkdfSync("sha256", dataKey, new Uint8Array(), `state-manager v1 ${use}`, 32));
  // Digits of every number, and a pack that is asked for again after others.
  for (const offset of [5, 10, 4_294_967_295, 99, 100, 5]) {
    for (const pack of [place.pack, "0000002b/01arz3ndektsv4rrffq69g5fav"]) {
      const nonce = Buffer.alloc(12);
      nonce.writeUInt32BE(offset, 8);
      const reference = createCipheriv("aes-256-gcm", derived(`pack ${pack}`), nonce);
      reference.setAAD(Buffer.from(`${repoId}/checkpoints/packs/${pack}/${offset}`));
      const wanted = Buffer.concat([reference.update(content), reference.final(), reference.getAuthTag()]);
      assert.deepEqual(Buffer.from(sealed(cipher, { pack, offset }, content)), wanted, `${pack} ${offset}`);
    }
  }
  const id = createHmac("sha256", derived("id")).update(content).digest();
  assert.deepEqual(Buffer.from(cipher.chunkId(content)), id);
  const into = new Uint8Array(32);
  assert.equal(cipher.chunkId(content, into), into);
  assert.deepEqual(Buffer.from(into), id);
});

Deno.test("sealing cipher refuses whatever was changed, blobs and objects", () => {
  const cipher = cipherOf();
  const content = bytes(64);
  const blob = sealed(cipher, place, content);
  const object = cipher.sealObject("key", content);
  for (let i = 0; i < blob.length; i++) {
    const copy = blob.slice();
    copy[i] = (copy[i] ?? 0) ^ 0x80;
    assert.throws(() => cipher.openBlob(place, copy), isDamage, `byte ${i}`);
  }
  const changed = (original: Uint8Array) => (copy: Uint8Array) => Buffer.compare(original, copy) !== 0;
  fc.assert(fc.property(damagedCopies(blob).filter(changed(blob)), (copy) => {
    assert.ok(refuses(() => cipher.openBlob(place, copy)));
  }));
  fc.assert(fc.property(damagedCopies(object).filter(changed(object)), (copy) => {
    assert.ok(refuses(() => cipher.openObject("key", copy)));
  }));
});

Deno.test("sealing cipher refuses bytes of another place, pack, key, repository and secret", () => {
  const cipher = cipherOf();
  const content = bytes(64);
  const blob = sealed(cipher, place, content);
  const object = cipher.sealObject("key", content);
  const otherPack = { ...place, pack: "0000002a/01arz3ndektsv4rrffq69g5faw" };
  assert.throws(() => cipher.openBlob({ ...place, offset: 6 }, blob), isDamage);
  assert.throws(() => cipher.openBlob(otherPack, blob), isDamage);
  assert.throws(() => cipher.openObject("other", object), isDamage);
  const others = [cipherOf("f".repeat(32)), cipherOf(repoId, dataKey.map((byte) => byte ^ 1))];
  for (const other of others) {
    assert.throws(() => other.openBlob(place, blob), isDamage);
    assert.throws(() => other.openObject("key", object), isDamage);
  }
  assert.throws(() => cipher.openObject("key", content), isDamage);
  assert.notDeepEqual(others[1]?.chunkId(content), cipher.chunkId(content));
});

Deno.test("cipher made anew from its message is the same, and the secret is in nothing else", () => {
  const cipher = cipherOf();
  const message = structuredClone(cipher.forWorker());
  const again = openCipher(message, random);
  assert.deepEqual(again.openBlob(place, sealed(cipher, place, bytes(9))), bytes(9));
  assert.deepEqual(again.chunkId(bytes(9)), cipher.chunkId(bytes(9)));
  assert.equal(openCipher(plainCipher.forWorker(), random, null), plainCipher);
  const secret = Buffer.from(dataKey).toString("base64");
  assert.equal(message?.dataKey, secret);
  for (const text of [Deno.inspect(cipher, { depth: 10, showHidden: true }), JSON.stringify(cipher)]) {
    assert.ok(!text.includes(secret), text);
  }
});

/** What docs/storage_format.md says, by another implementation of the same standards. */
async function openedByTheBook(pack: string, offset: number, sealed: Uint8Array): Promise<Uint8Array> {
  const utf8 = new TextEncoder();
  const root = await crypto.subtle.importKey("raw", dataKey, "HKDF", false, ["deriveKey"]);
  const key = await crypto.subtle.deriveKey(
    {
      name: "HKDF",
      hash: "SHA-256",
      salt: new Uint8Array(),
      info: utf8.encode(`state-manager v1 pack ${pack}`),
    },
    root,
    { name: "AES-GCM", length: 256 },
    false,
    ["decrypt"],
  );
  const iv = new Uint8Array(12);
  new DataView(iv.buffer).setUint32(8, offset, false);
  const additionalData = utf8.encode(`${repoId}/checkpoints/packs/${pack}/${offset}`);
  return new Uint8Array(
    await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData }, key, new Uint8Array(sealed)),
  );
}

Deno.test("encrypted pack is as the format says: every blob is sealed for its own place, ids are keyed", async () => {
  const cipher = cipherOf();
  const builder = new PackBuilder({ name: place.pack, cipher });
  const plain = [bytes(300), bytes(20), bytes(1)];
  for (const content of plain) builder.add(cipher.chunkId(content), content, content.length, 0);
  const { bytes: pack } = builder.finish();
  const entries = [...readPackEntries(pack, "pack")];
  assert.equal(entries.length, 3);
  for (const [i, { id, offset, storedLength, length, flags }] of entries.entries()) {
    const content = plain[i] ?? new Uint8Array();
    assert.deepEqual([flags, length, storedLength], [
      FLAG_SEALED,
      content.length,
      content.length + SEAL_BYTES,
    ]);
    const sealed = pack.subarray(offset, offset + storedLength);
    assert.deepEqual(await openedByTheBook(place.pack, offset, sealed), content);
    assert.deepEqual(new Uint8Array(cipher.openBlob({ pack: place.pack, offset }, sealed)), content);
    assert.deepEqual(new Uint8Array(id), cipher.chunkId(content));
  }
});
