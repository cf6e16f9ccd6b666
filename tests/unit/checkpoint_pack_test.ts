import assert from "node:assert/strict";
import fc from "fast-check";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { idToText, sha256 } from "../../src/checkpoint/ids.ts";
import { FLAG_META, PACK_TARGET_BYTES, PackBuilder, readPackEntries } from "../../src/checkpoint/pack.ts";
import { damagedCopies, refuses } from "../support/damage.ts";

const blobs = fc.array(fc.uint8Array({ minLength: 1, maxLength: 500 }), {
  minLength: 1,
  maxLength: 20,
});

function packOf(contents: readonly Uint8Array[], flags = 0) {
  const builder = new PackBuilder({ name: "00000001/test", cipher: plainCipher });
  for (const content of contents) {
    builder.add(sha256(content), content, content.length, flags);
  }
  return builder.finish();
}

Deno.test("pack gives back every blob by its footer", () => {
  fc.assert(fc.property(blobs, (contents) => {
    const { bytes } = packOf(contents, FLAG_META);
    const entries = [...readPackEntries(bytes, "pack")];
    assert.equal(entries.length, contents.length);
    entries.forEach((entry, i) => {
      const blob = bytes.subarray(
        entry.offset,
        entry.offset + entry.storedLength,
      );
      assert.deepEqual(new Uint8Array(blob), new Uint8Array(contents[i] ?? []));
      assert.equal(idToText(sha256(blob)), idToText(entry.id));
      assert.equal(entry.flags, FLAG_META);
    });
  }));
});

Deno.test("pack reader refuses a damaged footer and never gives a wrong one", () => {
  const contents = [1, 2, 3].map((n) => new Uint8Array(200).fill(n));
  const { bytes, entries } = packOf(contents);
  const wanted = [...entries].map((entry) => ({ ...entry, id: idToText(entry.id) }));
  fc.assert(fc.property(damagedCopies(bytes), (copy) => {
    refuses(() => {
      // Damage among the blobs is found when a blob is read: the footer still says the same.
      const read = [...readPackEntries(copy, "pack")].map((entry) => ({
        ...entry,
        id: idToText(entry.id),
      }));
      assert.deepEqual(read, wanted);
    });
  }));
});

Deno.test("pack builder has no room past the target", () => {
  const builder = new PackBuilder({ name: "00000001/test", cipher: plainCipher });
  const blob = new Uint8Array(1024 * 1024);
  let added = 0;
  while (builder.hasRoom(blob.length)) {
    builder.add(sha256(Uint8Array.of(added++)), blob, blob.length, 0);
  }
  const { bytes } = builder.finish();
  assert.ok(
    bytes.length <= PACK_TARGET_BYTES &&
      bytes.length > PACK_TARGET_BYTES - 2 * blob.length,
  );
});
