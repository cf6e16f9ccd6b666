/** Packs are filled in the memory that came back last. */

import assert from "node:assert/strict";
import { ClaimTable } from "../../src/checkpoint/claim_table.ts";
import { loadCodec } from "../../src/checkpoint/codec.ts";
import { type FilledPack, PackFiller } from "../../src/checkpoint/pack_filler.ts";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { returnMemory, takeMemory } from "../../src/platform/shared_memory.ts";
import { randomOf } from "../support/seeded_random.ts";

const PACK_BYTES = 4 * 1024 * 1024;

Deno.test("while packs come back at once, two are filled in turns, and the memory of others is never touched", async () => {
  const blocks = [takeMemory(PACK_BYTES), takeMemory(PACK_BYTES), takeMemory(PACK_BYTES)];
  const packs: FilledPack[] = [];
  const filler = new PackFiller({
    codec: await loadCodec(),
    cipher: plainCipher,
    claims: ClaimTable.forChunks(100),
    compression: "off",
    targetBytes: PACK_BYTES,
    onPack: (pack) => packs.push(pack),
  });
  blocks.forEach((memory, index) => filler.grant({ name: `00000001/${index}`, memory }));
  const random = randomOf(1);
  const used = new Set<bigint>();
  for (let n = 0; n < 30; n++) {
    assert.equal(filler.room(), null);
    filler.store(random.bytes(1024 * 1024));
    for (const { memory } of packs.splice(0)) {
      used.add(memory.address);
      filler.grant({ name: `00000001/again-${n}`, memory });
    }
  }
  assert.deepEqual(used, new Set([blocks[2]?.address, blocks[1]?.address]));
  for (const block of blocks) returnMemory(block);
});
