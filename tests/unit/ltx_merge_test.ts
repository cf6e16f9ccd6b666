import assert from "node:assert/strict";
import fc from "fast-check";
import { lockPage, LtxDecoder, type LtxPage, mergePages, readPages } from "../../src/database/ltx/mod.ts";
import { isError } from "../../src/platform/errors.ts";
import { encodeLtx } from "../support/ltx_files.ts";

const PAGE_SIZE = 512;

/** A file in short: page number → version. */
type Versions = ReadonlyMap<number, number>;

/** Pages of a file in order; `closed` is told when the reader has let go of it. */
async function* pagesOf(versions: Versions, closed?: () => void): AsyncGenerator<LtxPage, void, undefined> {
  try {
    for (const [pgno, version] of [...versions].sort(([a], [b]) => a - b)) {
      await Promise.resolve();
      yield { pgno, data: new Uint8Array(PAGE_SIZE).fill(version) };
    }
  } finally {
    closed?.();
  }
}

async function collect(pages: AsyncIterable<LtxPage>): Promise<[number, number][]> {
  const found: [number, number][] = [];
  for await (const { pgno, data } of pages) found.push([pgno, data[0] ?? -1]);
  return found;
}

async function merged(files: readonly Versions[], commit: number): Promise<Versions> {
  return new Map(await collect(mergePages(files.map((file) => pagesOf(file)), commit)));
}

const versions: fc.Arbitrary<Versions> = fc.array(
  fc.tuple(fc.integer({ min: 1, max: 30 }), fc.nat(255)),
  { maxLength: 15 },
).map((entries) => new Map(entries));
const chains = fc.array(versions, { maxLength: 12 });
const commits = fc.integer({ min: 1, max: 32 });

Deno.test("merge gives each page once, ascending, in the version of the newest file that has it", async () => {
  await fc.assert(fc.asyncProperty(chains, commits, async (files, commit) => {
    const wanted = new Map(files.flatMap((file) => [...file]));
    assert.deepEqual(
      await collect(mergePages(files.map((file) => pagesOf(file)), commit)),
      [...wanted].filter(([pgno]) => pgno <= commit).sort(([a], [b]) => a - b),
    );
  }));
});

Deno.test("merge gives the same however neighbours were merged before", async () => {
  await fc.assert(fc.asyncProperty(chains, fc.nat(12), fc.nat(12), commits, async (files, a, b, commit) => {
    const [from, to] = [Math.min(a, b), Math.max(a, b)];
    // A merge within the chain keeps what lies beyond the end of later ones: its own commit is larger.
    const middle = await merged(files.slice(from, to), 99);
    const steps = [...files.slice(0, from), middle, ...files.slice(to)];
    assert.deepEqual(await merged(steps, commit), await merged(files, commit));
  }));
});

Deno.test("merge takes the newest of more files than it opens at once", async () => {
  const files = Array.from({ length: 100 }, (_, i) => new Map([[1, i], [2 + i, 7]]));
  const found = await merged(files, 999);
  assert.equal(found.get(1), 99);
  assert.equal(found.size, 101);
});

Deno.test("merge leaves out the lock page", async () => {
  const lock = lockPage(PAGE_SIZE);
  const file = new Map([[lock - 1, 1], [lock, 2], [lock + 1, 3]]);
  assert.deepEqual([...(await merged([file], lock + 5)).keys()], [lock - 1, lock + 1]);
});

Deno.test("merge reads every file to its end, so that each is verified", async () => {
  const good = encodeLtx(
    { pageSize: PAGE_SIZE, commit: 9, minTxid: 2, maxTxid: 2, timestampMs: 5 },
    new Map([1, 8, 9].map((pgno) => [pgno, new Uint8Array(PAGE_SIZE).fill(pgno)])),
  );
  async function* chunks(file: Uint8Array) {
    await Promise.resolve();
    for (let at = 0; at < file.length; at += 40) yield file.subarray(at, at + 40);
  }
  const read = (file: Uint8Array) =>
    collect(mergePages([pagesOf(new Map([[1, 7]])), readPages(chunks(file))], 2));
  assert.deepEqual(await read(good), [[1, 1]]);
  const damaged = good.with(good.length - 1, (good[good.length - 1] ?? 0) ^ 1);
  await assert.rejects(read(damaged), (error) => isError(error, "data-damaged"));
  await assert.rejects(read(good.subarray(0, good.length - 30)), (error) => isError(error, "data-damaged"));
});

Deno.test("merge lets go of every file when its reader stops early, and when one is damaged", async () => {
  let open = 3;
  const three = () =>
    [1, 2, 3].map((n) => pagesOf(new Map([[n, n], [n + 4, n], [n + 8, n]]), () => void open--));
  for await (const _ of mergePages(three(), 99)) break;
  assert.equal(open, 0);
  open = 3;
  async function* broken(): AsyncGenerator<LtxPage> {
    yield { pgno: 1, data: new Uint8Array(PAGE_SIZE) };
    await Promise.reject(new Error("the store is gone"));
  }
  await assert.rejects(collect(mergePages([...three(), broken()], 99)), /the store is gone/);
  assert.equal(open, 0);
});

Deno.test("merge refuses files of different page sizes and pages out of order", async () => {
  async function* other(...pages: LtxPage[]) {
    await Promise.resolve();
    yield* pages;
  }
  const page = (pgno: number, size: number) => ({ pgno, data: new Uint8Array(size) });
  for (
    const wrong of [
      other(page(2, 1024)),
      other(page(2, 512), page(2, 512)),
      other(page(2, 512), page(1, 512)),
    ]
  ) {
    await assert.rejects(
      collect(mergePages([pagesOf(new Map([[1, 1], [5, 1]])), wrong], 9)),
      (error) => isError(error, "data-damaged"),
    );
  }
});

Deno.test("readPages gives a decoder's header to who asks for it", async () => {
  const file = encodeLtx(
    { pageSize: 512, commit: 1, minTxid: 1, maxTxid: 8, timestampMs: 5, nodeId: 3 },
    new Map([[
      1,
      new Uint8Array(512),
    ]]),
  );
  async function* whole() {
    await Promise.resolve();
    yield file;
  }
  const decoder = new LtxDecoder();
  for await (const page of readPages(whole(), decoder)) assert.equal(page.pgno, 1);
  assert.equal(decoder.header?.nodeId, 3);
});
