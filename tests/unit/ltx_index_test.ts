import assert from "node:assert/strict";
import fc from "fast-check";
import {
  decodeFrame,
  decodeIndex,
  LTX_TAIL_BYTES,
  ltxName,
  parseLtxName,
  readTail,
} from "../../src/database/ltx/mod.ts";
import { VarintReader, writeVarint } from "../../src/database/ltx/varint.ts";
import { isError } from "../../src/platform/errors.ts";
import { damagedCopies, refuses } from "../support/damage.ts";
import { encodeLtx } from "../support/ltx_files.ts";

const PAGE_SIZE = 1024;

function fileOf(pgnos: readonly number[]) {
  const pages = new Map(pgnos.map((pgno) => [
    pgno,
    Uint8Array.from({ length: PAGE_SIZE }, (_, i) => (pgno * i) & 0xff),
  ]));
  const header = { pageSize: PAGE_SIZE, commit: 900_000, minTxid: 2, maxTxid: 2, timestampMs: 5 };
  return { pages, file: encodeLtx(header, pages) };
}

/** The index by two ranged reads. */
function indexOf(file: Uint8Array) {
  const { index, trailer } = readTail(file.subarray(file.length - LTX_TAIL_BYTES), file.length);
  const bytes = file.subarray(index.offset, index.offset + index.length);
  return { index: decodeIndex(bytes, index.offset), trailer, bytes, offset: index.offset };
}

Deno.test("page index finds the frame of every page, and of no other", () => {
  fc.assert(fc.property(
    fc.uniqueArray(fc.integer({ min: 1, max: 900_000 }), { maxLength: 40 }),
    (pgnos) => {
      const { pages, file } = fileOf(pgnos);
      const { index } = indexOf(file);
      assert.equal(index.count, pages.size);
      assert.deepEqual([...index.pages()], [...pgnos].sort((a, b) => a - b));
      for (const [pgno, data] of pages) {
        const range = index.find(pgno);
        assert.ok(range !== null);
        const frame = file.subarray(range.offset, range.offset + range.length);
        assert.deepEqual(decodeFrame(frame, pgno, PAGE_SIZE), { pgno, data });
        if (!pages.has(pgno + 1)) assert.equal(index.find(pgno + 1), null);
        if (!pages.has(pgno - 1)) assert.equal(index.find(pgno - 1), null);
        assert.throws(() => decodeFrame(frame, pgno + 1, PAGE_SIZE), /no frame of page/);
        assert.throws(() => decodeFrame(frame.subarray(1), pgno, PAGE_SIZE), /LTX file/);
        assert.throws(() => decodeFrame(frame.subarray(0, -1), pgno, PAGE_SIZE), /no frame of page/);
      }
    },
  ));
});

Deno.test("page index that is damaged is refused, or every frame lies within the file's frames", () => {
  const { file } = fileOf([1, 2, 3, 200, 70_000, 70_001, 899_999]);
  const { bytes, offset } = indexOf(file);
  fc.assert(
    fc.property(damagedCopies(bytes), (copy) => {
      refuses(() => {
        const index = decodeIndex(copy, offset);
        let end = 100;
        for (const pgno of index.pages()) {
          const range = index.find(pgno);
          assert.equal(range?.offset, end);
          end += range?.length ?? 0;
        }
        assert.equal(end, offset - 6);
      });
    }),
    { numRuns: 3000 },
  );
});

Deno.test("page index refuses bytes after its end, entries out of order and frames that are not one after the other", () => {
  const index = (...numbers: number[]) => () => decodeIndex(Uint8Array.from(numbers), 126);
  index(1, 100, 10, 2, 110, 10, 0)();
  assert.throws(index(1, 100, 10, 2, 110, 10, 0, 0), /after the end of the index/);
  assert.throws(index(2, 100, 10, 1, 110, 10, 0), /page 1 after 2/);
  assert.throws(index(1, 100, 10, 1, 110, 10, 0), /page 1 after 1/);
  assert.throws(index(1, 100, 9, 2, 110, 10, 0), /page 2 at 110/);
  assert.throws(index(1, 101, 9, 2, 110, 10, 0), /page 1 at 101/);
  assert.throws(index(1, 100, 10, 2, 110, 11, 0), /frames end at 121/);
  assert.throws(index(1, 100, 10, 2, 110, 10), /ends in an entry/);
  assert.throws(index(1, 100, 10, 2), /ends in an entry/);
});

Deno.test("page index refuses random bytes without taking more memory than they have", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.maxSafeNat(), (bytes, offset) => {
      refuses(() => decodeIndex(bytes, offset));
    }),
    { numRuns: 2000 },
  );
});

Deno.test("tail of a file is refused when its index cannot lie in the file", () => {
  const { file } = fileOf([1, 2]);
  const tail = file.slice(file.length - LTX_TAIL_BYTES);
  const withLength = (length: bigint) => {
    new DataView(tail.buffer).setBigUint64(0, length);
    return () => readTail(tail, file.length);
  };
  for (const length of [0n, BigInt(file.length), BigInt(file.length - 129), (1n << 64n) - 1n]) {
    assert.throws(withLength(length), (error) => isError(error, "data-damaged"));
  }
  withLength(BigInt(file.length - 130))();
  assert.throws(() => readTail(tail, 130), (error) => isError(error, "data-damaged"));
  assert.throws(() => readTail(tail.subarray(1), file.length), (error) => isError(error, "data-damaged"));
});

Deno.test("varint gives back every number up to 2^53 - 1 and refuses larger ones", () => {
  const target = new Uint8Array(10);
  fc.assert(fc.property(fc.maxSafeNat(), (value) => {
    const length = writeVarint(target, 0, value);
    assert.equal(new VarintReader(target.subarray(0, length)).next(), value);
    assert.equal(new VarintReader(target.subarray(0, length - 1)).next(), null);
  }));
  const more = Uint8Array.of(0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10);
  assert.equal(new VarintReader(more).next(), null);
  assert.equal(new VarintReader(new Uint8Array(20).fill(0x80)).next(), null);
});

Deno.test("names of files say their range", () => {
  assert.equal(ltxName(1, 0xabc), "0000000000000001-0000000000000abc.ltx");
  fc.assert(fc.property(fc.maxSafeNat(), fc.maxSafeNat(), (a, b) => {
    const [minTxid, maxTxid] = [Math.max(1, Math.min(a, b)), Math.max(1, a, b)];
    assert.deepEqual(parseLtxName(ltxName(minTxid, maxTxid)), { minTxid, maxTxid });
  }));
});

for (
  const name of [
    "",
    "0000000000000001-0000000000000001.ltx.tmp",
    "0000000000000001-0000000000000001",
    "000000000000001-0000000000000001.ltx",
    "0000000000000001-000000000000000A.ltx",
    "a/0000000000000001-0000000000000001.ltx",
    "0000000000000001-0000000000000001.ltx\n",
  ]
) {
  Deno.test(`"${name.trim()}"${name.endsWith("\n") ? " with a line end" : ""} is no name of an LTX file`, () => {
    assert.equal(parseLtxName(name), null);
  });
}

for (
  const name of [
    "0000000000000000-0000000000000001.ltx",
    "0000000000000002-0000000000000001.ltx",
    "0000000000000001-0020000000000000.ltx",
    "ffffffffffffffff-ffffffffffffffff.ltx",
  ]
) {
  Deno.test(`${name} says a range that nobody writes`, () => {
    assert.throws(() => parseLtxName(name), (error) => isError(error, "data-damaged"));
  });
}
