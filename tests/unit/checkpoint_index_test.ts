import assert from "node:assert/strict";
import fc from "fast-check";
import { ChunkTable } from "../../src/checkpoint/chunk_table.ts";
import { loadCodec } from "../../src/checkpoint/codec.ts";
import { idToText, packName, sha256 } from "../../src/checkpoint/ids.ts";
import { decodeIndex, encodeIndexes } from "../../src/checkpoint/index_format.ts";
import type { PackEntry } from "../../src/checkpoint/pack.ts";
import { systemRandom, ulid } from "../../src/platform/random.ts";
import { damagedCopies, refuses } from "../support/damage.ts";
import { entryList } from "../support/entry_list.ts";

const codec = await loadCodec();
const random = systemRandom();

/** `count` chunks of `length` bytes one after the other, their ids made of `salt`. */
function entriesOf(salt: string, count: number, length = 10): PackEntry[] {
  return Array.from({ length: count }, (_, i) => ({
    id: sha256(new TextEncoder().encode(`${salt} ${i}`)),
    offset: 5 + i * length,
    storedLength: length,
    length,
    flags: 0,
  }));
}

function packsOf(counts: readonly number[]) {
  return counts.map((count, i) => ({
    pack: {
      name: packName(i + 1, ulid(1000 + i, random)),
      sizeBytes: 5 + count * 10 + count * 44 + 40,
    },
    entries: entryList(entriesOf(`pack ${i}`, count)),
  }));
}

function linesOf(bytes: Uint8Array): string[] {
  const lines: string[] = [];
  decodeIndex(codec, bytes, "index", (record, pack) => {
    lines.push(
      [
        idToText(record.id),
        pack.name,
        record.offset,
        record.length,
        record.flags,
      ].join(" "),
    );
  });
  return lines;
}

Deno.test("index gives back every record, sorted by id", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 8 }),
      (counts) => {
        const packs = packsOf(counts);
        const [bytes, ...more] = encodeIndexes(codec, packs);
        assert.ok(bytes !== undefined && more.length === 0);
        const wanted = packs.flatMap(({ pack, entries }) =>
          [...entries].map((entry) =>
            [
              idToText(entry.id),
              pack.name,
              entry.offset,
              entry.length,
              entry.flags,
            ].join(" ")
          )
        );
        assert.deepEqual(linesOf(bytes).toSorted(), wanted.toSorted());
      },
    ),
  );
});

Deno.test("index reader refuses damage or reads what was written", () => {
  const [bytes] = encodeIndexes(codec, packsOf([3, 20, 1]));
  assert.ok(bytes !== undefined);
  const wanted = linesOf(bytes);
  fc.assert(fc.property(damagedCopies(bytes), (copy) => {
    // The hash in the head finds every damage; here it is enough that nothing impossible gets through.
    refuses(() => assert.equal(linesOf(copy).length, wanted.length));
  }));
});

Deno.test("chunk table finds every chunk it was given, through its growth, and no other", () => {
  const table = new ChunkTable();
  const pack = table.addPack({
    name: packName(1, ulid(1, random)),
    sizeBytes: 1_000_000,
  });
  const entries = entriesOf("table", 20_000);
  for (const entry of entries) assert.equal(table.add(entry, pack), true);
  for (const entry of entries) {
    assert.equal(table.add(entry, pack), false);
    assert.equal(table.find(entry.id)?.offset, entry.offset);
  }
  assert.equal(table.size, entries.length);
  for (const { id } of entriesOf("other", 1000)) {
    assert.equal(table.find(id), null);
  }
});

Deno.test("chunk table finds every chunk with room made at once, in between and never enough, by bytes and by text", () => {
  const entries = entriesOf("table", 9000);
  for (const rooms of [[9000], [0, 20_000], [100, 100, 100]]) {
    const table = new ChunkTable();
    const pack = table.addPack({ name: packName(1, ulid(1, random)), sizeBytes: 1_000_000 });
    entries.forEach((entry, i) => {
      if (i % 3000 === 0) table.reserve(rooms[i / 3000] ?? 0);
      assert.equal(table.add(entry, pack), true);
    });
    assert.deepEqual(entries.map(({ id }) => table.find(id)?.offset), entries.map(({ offset }) => offset));
    assert.deepEqual(
      entries.map(({ id }) => table.locate(idToText(id))?.offset),
      entries.map(({ offset }) => offset),
    );
    assert.equal(table.locate(idToText(new Uint8Array(32))), null);
  }
});

Deno.test("chunk table takes the entries of a pack at once, and says which were new", () => {
  const table = new ChunkTable();
  const [first, second] = [1, 2].map((n) =>
    table.addPack({ name: packName(n, ulid(n, random)), sizeBytes: 1_000_000 })
  );
  assert.ok(first !== undefined && second !== undefined);
  const entries = entriesOf("table", 9000);
  // As lines: of lists of objects the assertion would look for the smallest difference, for minutes.
  const line = ({ id, offset, length }: PackEntry) => `${idToText(id)} ${offset} ${length}`;
  const equal = (list: Iterable<PackEntry>, wanted: readonly PackEntry[]) => {
    const lines = [...list].map(line);
    assert.equal(lines.length, wanted.length);
    wanted.forEach((entry, i) => assert.equal(lines[i], line(entry)));
  };
  equal(table.addAll(entryList(entries.slice(0, 6000)), first), entries.slice(0, 6000));
  // Half of these are known, and some are there twice.
  const again = [...entries.slice(3000), ...entries.slice(8000)];
  equal(table.addAll(entryList(again), second), entries.slice(6000));
  assert.equal(table.size, entries.length);
  for (const [i, { id, offset, length }] of entries.entries()) {
    const found = table.find(id);
    assert.deepEqual([found?.offset, found?.length, found?.pack], [
      offset,
      length,
      table.packs[i < 6000 ? first : second],
    ]);
  }
});

Deno.test("an index is sorted by whole ids, however many begin alike", async () => {
  const codec = await loadCodec();
  const alike = [1, 2, 3, 31, 32, 33, 256];
  const entries = alike.flatMap((count, group) =>
    Array.from({ length: count }, (_, i) => {
      const id = new Uint8Array(32);
      id[1] = group;
      id[31] = 255 - (i * 7) % 256; // differs at the end
      return { id, offset: 5 + group * 256 + i, storedLength: 1, length: 1, flags: 0 };
    })
  );
  const pack = { name: "00000001/01arz3ndektsv4rrffq69g5fav", sizeBytes: 10_000 };
  const [bytes] = encodeIndexes(codec, [{ pack, entries: entryList(entries) }]);
  assert.ok(bytes);
  // Whatever is out of order is refused.
  assert.deepEqual(
    new Set(linesOf(bytes).map((line) => line.split(" ").slice(0, 3).join(" "))),
    new Set(entries.map(({ id, offset }) => `${idToText(id)} ${pack.name} ${offset}`)),
  );
});
