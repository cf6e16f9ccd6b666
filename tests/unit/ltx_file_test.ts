import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fc from "fast-check";
import {
  LtxDecoder,
  LtxEncoder,
  type LtxHeaderInput,
  readHeader,
  readTrailer,
} from "../../src/database/ltx/mod.ts";
import { isError } from "../../src/platform/errors.ts";
import { damagedCopies, refuses } from "../support/damage.ts";
import { LEGACY_FILES } from "../support/fixtures/litestream_0_5_11.ts";
import {
  assertSameBytes,
  assertSamePages,
  databaseOf,
  decodeLtx,
  encodeLtx,
  joinBytes,
} from "../support/ltx_files.ts";
import { referenceLtx } from "../support/ltx_reference.ts";

const PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] as const;

/** A page whose content tells its number: half text, some of it zeros, the rest without pattern. */
function pageOf(pageSize: number, seed: number): Uint8Array<ArrayBuffer> {
  const page = new Uint8Array(pageSize);
  page.set(new TextEncoder().encode(`page ${seed} `.repeat(20)).subarray(0, pageSize / 2));
  let state = seed | 1;
  for (let at = pageSize - (seed % 3) * 100; at < pageSize; at++) {
    state = Math.imul(state, 1103515245) + 12345;
    page[at] = state >>> 16;
  }
  return page;
}

const txids = fc.tuple(fc.integer({ min: 2, max: Number.MAX_SAFE_INTEGER }), fc.nat(1000))
  .map(([min, more]) => ({ minTxid: min, maxTxid: Math.min(min + more, Number.MAX_SAFE_INTEGER) }));

const counts = fc.maxSafeNat();
const u32 = fc.integer({ min: 0, max: 0xffffffff });

/** A header and the numbers of its pages. */
const files: fc.Arbitrary<{ header: LtxHeaderInput; pgnos: number[] }> = fc.oneof(
  fc.tuple(
    fc.constantFrom(...PAGE_SIZES),
    txids,
    fc.uniqueArray(fc.integer({ min: 1, max: 16000 }), { maxLength: 20 }),
    fc.nat(1000),
  ).map(([pageSize, range, pgnos, more]) => ({
    header: { pageSize, commit: Math.max(1, ...pgnos) + more, timestampMs: 0, ...range },
    pgnos,
  })),
  fc.tuple(fc.constantFrom(...PAGE_SIZES), fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 99 }))
    .map(
      ([pageSize, commit, maxTxid]) => ({
        header: { pageSize, commit, minTxid: 1, maxTxid, timestampMs: 0 },
        pgnos: Array.from({ length: commit }, (_, i) => i + 1),
      }),
    ),
).chain(({ header, pgnos }) =>
  fc.record({
    timestampMs: counts,
    walOffset: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    walSize: counts,
    salt1: u32,
    salt2: u32,
    nodeId: counts,
  }).map((more) => ({ header: { ...header, ...more }, pgnos }))
);

function pagesFor(header: LtxHeaderInput, pgnos: readonly number[]): Map<number, Uint8Array> {
  return new Map(pgnos.map((pgno) => [pgno, pageOf(header.pageSize, pgno)]));
}

Deno.test("decoder gives back header and pages of what the encoder wrote, in any pieces", () => {
  fc.assert(fc.property(files, fc.integer({ min: 1, max: 5000 }), ({ header, pgnos }, chunkBytes) => {
    const pages = pagesFor(header, pgnos);
    const file = encodeLtx(header, pages);
    assert.deepEqual(readHeader(file), { ...header, noChecksum: true, preApplyChecksum: 0n });
    const decoded = decodeLtx(file, chunkBytes);
    assert.deepEqual([...decoded.keys()], [...pgnos].sort((a, b) => a - b));
    for (const [pgno, data] of decoded) assertSameBytes(data, pages.get(pgno));
  }));
});

Deno.test("decoder reads a small file byte by byte", () => {
  const header = { pageSize: 512, commit: 3, minTxid: 1, maxTxid: 1, timestampMs: 5 };
  const pages = pagesFor(header, [1, 2, 3]);
  assertSamePages(decodeLtx(encodeLtx(header, pages), 1), pages);
});

Deno.test("encoder and decoder agree on size and checksum", () => {
  const header = { pageSize: 1024, commit: 9, minTxid: 4, maxTxid: 6, timestampMs: 5 };
  const encoder = new LtxEncoder(header);
  const parts = [encoder.start(), encoder.page(2, pageOf(1024, 2)), encoder.page(9, pageOf(1024, 9))];
  const finished = encoder.finish();
  const decoder = new LtxDecoder();
  for (const part of [...parts, finished.bytes]) decoder.push(part);
  const { sizeBytes, checksum } = finished;
  assert.deepEqual(decoder.end(), { sizeBytes, checksum, postApply: 0n, pageCount: 2 });
  assert.deepEqual(readTrailer(finished.bytes), { checksum, postApply: 0n });
});

Deno.test("encoder writes what the plain reference writes, but for the compression", () => {
  const header = { pageSize: 512, commit: 5, minTxid: 1, maxTxid: 2, timestampMs: 1_700_000_000_000 };
  const pages = Array.from({ length: 5 }, (_, i) => ({
    pgno: i + 1,
    data: Uint8Array.from({ length: 512 }, (_, k) => (k * k * 31 + k * (i + 7) + (k >> 3)) & 0xff),
  }));
  const own = encodeLtx(header, new Map(pages.map(({ pgno, data }) => [pgno, data])));
  const plain = referenceLtx({ ...header, pages });
  assert.deepEqual(own.subarray(0, 100), plain.subarray(0, 100));
  assertSamePages(decodeLtx(own), decodeLtx(plain));
});

/** Writes the pages of `file` again, by the frames that came with them. */
function rewritten(file: Uint8Array, header: LtxHeaderInput): { file: Uint8Array; kept: number } {
  const decoder = new LtxDecoder("LTX file", { frames: true });
  const encoder = new LtxEncoder(header);
  const pages = decoder.push(file);
  decoder.end();
  const parts: Uint8Array[] = [encoder.start()];
  for (const { pgno, data, frame } of pages) parts.push(encoder.page(pgno, data, frame));
  const kept = pages.filter(({ frame }) => frame !== undefined).length;
  return { file: joinBytes([...parts, encoder.finish().bytes]), kept };
}

Deno.test("encoder writes frames that a decoder kept as they are, with the same index and checksum", () => {
  fc.assert(fc.property(files, ({ header, pgnos }) => {
    const file = encodeLtx(header, pagesFor(header, pgnos));
    const again = rewritten(file, header);
    assert.equal(again.kept, pgnos.length);
    assertSameBytes(again.file, file);
  }));
});

Deno.test("decoder keeps no frame of an older kind, so that it is not written again", () => {
  for (const frames of ["legacy", "raw"] as const) {
    const pages = [1, 2, 3].map((pgno) => ({ pgno, data: pageOf(512, pgno) }));
    const header = { pageSize: 512, commit: 3, minTxid: 1, maxTxid: 1, timestampMs: 1_700_000_000_000 };
    const again = rewritten(referenceLtx({ ...header, pages, frames }), header);
    assert.equal(again.kept, 0);
    assertSameBytes(again.file, encodeLtx(header, new Map(pages.map((page) => [page.pgno, page.data]))));
  }
});

for (const frames of ["legacy", "raw"] as const) {
  for (const pageSize of [512, 65536]) {
    Deno.test(`decoder reads ${frames} LZ4 frames of pages of ${pageSize} bytes`, () => {
      const pages = [1, 2, 3].map((pgno) => ({ pgno, data: pageOf(pageSize, pgno) }));
      const file = referenceLtx({ pageSize, commit: 3, minTxid: 1, maxTxid: 1, pages, frames });
      assertSamePages(decodeLtx(file, 1000), new Map(pages.map((page) => [page.pgno, page.data])));
    });
  }
}

for (const { pageSize, pages, file, databaseSha256 } of LEGACY_FILES) {
  Deno.test(`decoder reads what Litestream 0.5.11 wrote with pages of ${pageSize} bytes`, () => {
    const decoded = decodeLtx(Uint8Array.fromBase64(file), 700);
    const database = databaseOf(decoded, pageSize, pages);
    assert.equal(createHash("sha256").update(database).digest("hex"), databaseSha256);
  });
}

Deno.test("decoder takes a file with checksums of the database", () => {
  const pages = [{ pgno: 1, data: pageOf(512, 1) }];
  const postApply = (1n << 63n) | 5n;
  const base = { pageSize: 512, commit: 1, flags: 0, postApply, pages };
  assert.equal(decodeLtx(referenceLtx({ ...base, minTxid: 1, maxTxid: 1 })).size, 1);
  const changeHeader = (view: DataView) => view.setBigUint64(40, (1n << 63n) | 4n);
  assert.equal(decodeLtx(referenceLtx({ ...base, minTxid: 2, maxTxid: 2, changeHeader })).size, 1);
});

const data = pageOf(512, 1);
const GOOD = {
  pageSize: 512,
  commit: 4,
  minTxid: 2,
  maxTxid: 3,
  pages: [{ pgno: 1, data }, { pgno: 3, data }],
};
const SNAPSHOT = { ...GOOD, minTxid: 1, pages: [1, 2, 3, 4].map((pgno) => ({ pgno, data })) };
const set32 = (at: number, value: number) => ({
  changeHeader: (view: DataView) => view.setUint32(at, value),
});
const set64 = (at: number, value: bigint) => ({
  changeHeader: (view: DataView) => view.setBigUint64(at, value),
});

/** Each is whole and has the right checksum; it breaks only the rule that it names. */
const ILLEGAL: Readonly<Record<string, [Parameters<typeof referenceLtx>[0], RegExp]>> = {
  "another magic": [{ ...GOOD, ...set32(0, 0x4c545832) }, /LTX1/],
  "unknown flags": [{ ...GOOD, flags: 3 }, /flags/],
  "page size 1000": [{ ...GOOD, ...set32(8, 1000) }, /page size 1000/],
  "page size 256": [{ ...GOOD, ...set32(8, 256) }, /page size 256/],
  "page size 131072": [{ ...GOOD, ...set32(8, 131072) }, /page size 131072/],
  "page size 2^31": [{ ...GOOD, ...set32(8, 0x80000000) }, /page size/],
  "no pages in its database": [{ ...GOOD, commit: 0, pages: [] }, /0 pages/],
  "transaction id 0": [{ ...GOOD, minTxid: 0 }, /transaction id 0/],
  "transaction ids in the wrong order": [{ ...GOOD, minTxid: 9 }, /from 9 to 3/],
  "a transaction id beyond 2^53": [{ ...GOOD, ...set64(24, 1n << 53n) }, /too large/],
  "a time before 1970": [{ ...GOOD, ...set64(32, (1n << 64n) - 1n) }, /too large/],
  "a negative WAL offset": [{ ...GOOD, ...set64(48, 1n << 63n) }, /too large/],
  "a WAL size without offset": [{ ...GOOD, ...set64(56, 4120n) }, /WAL size/],
  "salts without offset": [{ ...GOOD, ...set32(64, 7) }, /salts/],
  "a second salt without offset": [{ ...GOOD, ...set32(68, 7) }, /salts/],
  "a pre-apply checksum that flags deny": [{ ...GOOD, ...set64(40, 1n << 63n) }, /before it/],
  "no pre-apply checksum": [{ ...GOOD, flags: 0, postApply: 1n << 63n }, /before it/],
  "a pre-apply checksum in a snapshot": [
    { ...SNAPSHOT, flags: 0, postApply: 1n << 63n, ...set64(40, 1n << 63n) },
    /before it/,
  ],
  "no post-apply checksum": [{ ...SNAPSHOT, flags: 0, postApply: 5n }, /after it/],
  "a post-apply checksum that flags deny": [{ ...GOOD, postApply: 1n << 63n }, /after it/],
  "reserved bytes": [{ ...GOOD, ...set32(96, 1) }, /reserved/],
  "a page twice": [{ ...GOOD, pages: [{ pgno: 3, data }, { pgno: 3, data }] }, /page 3 after page 3/],
  "pages in the wrong order": [{ ...GOOD, pages: [{ pgno: 3, data }, { pgno: 2, data }] }, /page 2 after/],
  "a page beyond its database": [{ ...GOOD, pages: [{ pgno: 5, data }] }, /page 5 of a database of 4/],
  "a lock page": [
    { ...GOOD, commit: 3_000_000, pages: [{ pgno: 0x40000000 / 512 + 1, data }] },
    /lock page/,
  ],
  "a snapshot without its first page": [
    { ...SNAPSHOT, pages: SNAPSHOT.pages.slice(1) },
    /page 2 where .* page 1/,
  ],
  "a snapshot without its last page": [{ ...SNAPSHOT, pages: SNAPSHOT.pages.slice(0, 3) }, /lacks page 4/],
  "a snapshot without any page": [{ ...SNAPSHOT, pages: [] }, /lacks page 1/],
  "a snapshot with a gap": [
    { ...SNAPSHOT, pages: SNAPSHOT.pages.filter(({ pgno }) => pgno !== 2) },
    /has page 2/,
  ],
  "a wrong page number in its index": [
    { ...GOOD, changeIndex: (entries) => void entries[1]?.splice(0, 1, 2) },
    /index differs/,
  ],
  "a wrong offset in its index": [
    { ...GOOD, changeIndex: (entries) => void entries[0]?.splice(1, 1, 101) },
    /index differs/,
  ],
  "a page too few in its index": [{ ...GOOD, changeIndex: (entries) => void entries.pop() }, /index/],
  "a page too many in its index": [
    { ...GOOD, changeIndex: (entries) => void entries.push([4, 900, 9]) },
    /index/,
  ],
  "another length of its index": [{ ...GOOD, indexBytes: 8n }, /an index of 8 bytes/],
  "an unknown kind of page": [
    { ...GOOD, changeFrame: (frame) => frame.with(5, 2) },
    /flags 2/,
  ],
  "a block of 4 GiB": [
    { ...GOOD, changeFrame: (frame) => frame.with(6, 255) },
    /block of \d+ bytes/,
  ],
  "an empty block": [{ ...GOOD, changeFrame: (frame) => frame.slice(0, 10).fill(0, 6) }, /block of 0 bytes/],
  "a legacy block of another length": [
    { ...GOOD, frames: "raw", changeFrame: (frame) => frame.with(13, 1) },
    /block of 513 bytes/,
  ],
  "another LZ4 frame header": [
    { ...GOOD, frames: "legacy", changeFrame: (frame) => frame.with(10, 0x60) },
    /no LZ4 frame/,
  ],
  "a legacy frame whose content checksum differs": [
    {
      ...GOOD,
      frames: "legacy",
      changeFrame: (frame) => frame.with(frame.length - 1, 0).with(frame.length - 2, 0),
    },
    /checksum of the LZ4 frame/,
  ],
  "a legacy frame without end mark": [
    { ...GOOD, frames: "raw", changeFrame: (frame) => frame.with(frame.length - 8, 1) },
    /more than one block/,
  ],
};

for (const [what, [file, wanted]] of Object.entries(ILLEGAL)) {
  Deno.test(`decoder refuses a file with ${what} and says so`, () => {
    for (const chunkBytes of [1, 1_000_000]) {
      assert.throws(
        () => decodeLtx(referenceLtx(file), chunkBytes),
        (error) => isError(error, "data-damaged") && wanted.test(error.message),
      );
    }
  });
}

Deno.test("the files that the refused ones are made from are taken", () => {
  assert.equal(decodeLtx(referenceLtx(GOOD)).size, 2);
  assert.equal(decodeLtx(referenceLtx(SNAPSHOT)).size, 4);
});

/** Small files of each kind, with their pages. */
function smallFiles(): { name: string; file: Uint8Array<ArrayBuffer>; pages: Map<number, Uint8Array> }[] {
  const pages = [1, 2, 4].map((pgno) => ({ pgno, data: pageOf(512, pgno) }));
  const map = new Map(pages.map((page) => [page.pgno, page.data]));
  const shape = { pageSize: 512, commit: 4, minTxid: 3, maxTxid: 3 };
  return [
    { name: "ours", file: encodeLtx({ ...shape, timestampMs: 5, walOffset: 32 }, map), pages: map },
    { name: "legacy", file: referenceLtx({ ...shape, pages, frames: "legacy" }), pages: map },
  ];
}

for (const { name, file, pages } of smallFiles()) {
  Deno.test(`decoder refuses every cut of a file (${name})`, () => {
    for (let length = 0; length < file.length; length++) {
      for (const chunkBytes of [97, file.length]) {
        assert.ok(refuses(() => decodeLtx(file.subarray(0, length), chunkBytes)), `${length} bytes`);
      }
    }
    assert.ok(refuses(() => decodeLtx(new Uint8Array([...file, 0]))), "a byte too many");
  });

  Deno.test(`decoder refuses every flipped bit of a file, or its pages are right all the same (${name})`, () => {
    for (let at = 0; at < file.length; at++) {
      for (const mask of [1, 2, 4, 8, 16, 32, 64, 128, 255]) {
        const copy = file.with(at, (file[at] ?? 0) ^ mask);
        refuses(() => assertSamePages(decodeLtx(copy), pages));
        // Only within an LZ4 block can other bytes mean the same page.
        if (at < 100 || at >= file.length - 40) assert.ok(refuses(() => decodeLtx(copy)), `byte ${at}`);
      }
    }
  });

  Deno.test(`decoder refuses a damaged file, or its pages are right all the same (${name})`, () => {
    fc.assert(
      fc.property(damagedCopies(file), (copy) => {
        refuses(() => assertSamePages(decodeLtx(copy, 50), pages));
      }),
      { numRuns: 1000 },
    );
  });
}

Deno.test("decoder refuses random bytes behind a good header", () => {
  const header = encodeLtx(
    { pageSize: 65536, commit: 1000, minTxid: 2, maxTxid: 2, timestampMs: 5 },
    new Map(),
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.boolean(), (bytes, isBlock) => {
      const start = isBlock ? [0, 0, 0, 1, 0, 1, 0, 0, 1] : [];
      assert.ok(
        refuses(() => decodeLtx(new Uint8Array([...header.subarray(0, 100), ...start, ...bytes]), 99)),
      );
    }),
    { numRuns: 2000 },
  );
});

Deno.test("decoder says in which part a file ends too early", () => {
  const file = encodeLtx({ ...GOOD, timestampMs: 5 }, new Map([[1, data], [3, data]]));
  const messages = [50, 110, file.length - 40, file.length - 20, file.length - 1].map((length) => {
    try {
      decodeLtx(file.subarray(0, length));
    } catch (error) {
      return error instanceof Error ? error.message : "";
    }
  });
  assert.match(messages[0] ?? "", /ends after 50 bytes, in its header/);
  assert.match(messages[1] ?? "", /in its pages/);
  assert.match(messages[3] ?? "", /in its trailer/);
  assert.match(messages[4] ?? "", /in its trailer/);
});

Deno.test("decoder that refused its file once refuses all that follows", () => {
  const file = encodeLtx({ ...GOOD, timestampMs: 5 }, new Map([[1, data], [3, data]]));
  for (const at of [7, 104, 112, file.length - 1]) {
    const decoder = new LtxDecoder();
    const push = (bytes: Uint8Array) => assert.throws(() => decoder.push(bytes), /read LTX file/);
    push(file.with(at, 0x7f));
    assert.throws(() => decoder.next(), /read LTX file/);
    push(file);
    assert.throws(() => decoder.end(), /read LTX file/);
  }
});

Deno.test("readTrailer refuses a checksum that no file has", () => {
  assert.throws(() => readTrailer(new Uint8Array(16)), (error) => isError(error, "data-damaged"));
  assert.throws(() => readTrailer(new Uint8Array(15).fill(255)), (error) => isError(error, "data-damaged"));
});

Deno.test("decoder names the file in its error", () => {
  assert.throws(
    () => new LtxDecoder("databases/app/0000/x.ltx").push(new Uint8Array(100)),
    /^StateManagerError: read databases\/app\/0000\/x.ltx: /,
  );
});

const HEADER: LtxHeaderInput = { pageSize: 512, commit: 4, minTxid: 2, maxTxid: 3, timestampMs: 5 };
const MISUSE: Readonly<Record<string, () => unknown>> = {
  "page size 1000": () => new LtxEncoder({ ...HEADER, pageSize: 1000 }),
  "a commit of 0 pages": () => new LtxEncoder({ ...HEADER, commit: 0 }),
  "a broken transaction id": () => new LtxEncoder({ ...HEADER, maxTxid: 3.5 }),
  "a token beyond 2^53": () => new LtxEncoder({ ...HEADER, nodeId: 2 ** 53 }),
  "a salt without WAL offset": () => new LtxEncoder({ ...HEADER, salt1: 1 }),
  "a negative salt": () => new LtxEncoder({ ...HEADER, walOffset: 32, salt1: -1 }),
  "a page before the start": () => new LtxEncoder(HEADER).page(1, data),
  "a page of another size": () => started(HEADER).page(1, new Uint8Array(511)),
  "page 0": () => started(HEADER).page(0, data),
  "a page beyond commit": () => started(HEADER).page(5, data),
  "pages in the wrong order": () => {
    const encoder = started(HEADER);
    encoder.page(3, data);
    encoder.page(2, data);
  },
  "the lock page": () => started({ ...HEADER, commit: 3_000_000 }).page(0x40000000 / 512 + 1, data),
  "a gap in a snapshot": () => started({ ...HEADER, minTxid: 1 }).page(2, data),
  "an unfinished snapshot": () => started({ ...HEADER, minTxid: 1 }).finish(),
  "a second end": () => {
    const encoder = started(HEADER);
    encoder.finish();
    encoder.finish();
  },
};

function started(header: LtxHeaderInput): LtxEncoder {
  const encoder = new LtxEncoder(header);
  encoder.start();
  return encoder;
}

for (const [what, act] of Object.entries(MISUSE)) {
  Deno.test(`encoder asserts when it is given ${what}`, () => {
    assert.throws(act, (error) => isError(error, "internal"));
  });
}

Deno.test("a snapshot skips the lock page at 1 GiB and needs the page after it", () => {
  // Pages of 64 KiB reach 1 GiB soonest; all of them are one array, and what is written is not kept.
  const pageSize = 65536;
  const lock = 16385;
  const zeros = new Uint8Array(pageSize);
  const header = { pageSize, commit: lock + 1, minTxid: 1, maxTxid: 1, timestampMs: 5 };
  const encoder = started(header);
  const whole = new LtxDecoder();
  whole.feed(new LtxEncoder(header).start());
  let seen = 0;
  const take = (frame: Uint8Array) => {
    for (const page of whole.push(frame)) seen = page.pgno;
  };
  for (let pgno = 1; pgno < lock; pgno++) take(encoder.page(pgno, zeros));
  assert.throws(() => encoder.page(lock, zeros), (error) => isError(error, "internal"));
  assert.throws(() => encoder.finish(), (error) => isError(error, "internal"));
  take(encoder.page(lock + 1, zeros));
  take(encoder.finish().bytes);
  assert.equal(seen, lock + 1);
  assert.equal(whole.end().pageCount, lock);
});
