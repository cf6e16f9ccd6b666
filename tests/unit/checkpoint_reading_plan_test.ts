import assert from "node:assert/strict";
import fc from "fast-check";
import { SEGMENT_BYTES, SQLITE_BLOCK_BYTES } from "../../src/checkpoint/chunker.ts";
import { levelOf } from "../../src/checkpoint/compression.ts";
import { encodeBytes, loadCodec } from "../../src/checkpoint/codec.ts";
import { fileSegments } from "../../src/checkpoint/content_jobs.ts";
import { planReading } from "../../src/checkpoint/reading_plan.ts";

const MIB = 2 ** 20;
const MUCH = { bytes: 10_000 * MIB, files: 100_000 };
const machine = (cores: number, mebibytes: number) => ({ cores, memoryLimitBytes: mebibytes * MIB });

Deno.test("a checkpoint is read by as many threads as there are cores, four at most, in what memory there is", () => {
  assert.deepEqual(planReading(machine(2, 8192), MUCH), {
    workers: 2,
    packBytes: 16 * MIB,
    packsPerWorker: 2,
  });
  assert.equal(planReading({ ...machine(2, 8192), putsInPlace: true }, MUCH).packsPerWorker, 4);
  assert.equal(planReading(machine(64, 8192), MUCH).workers, 4);
  assert.deepEqual(planReading(machine(1, 8192), MUCH), {
    workers: 0,
    packBytes: 16 * MIB,
    packsPerWorker: 2,
  });
  assert.equal(planReading(machine(4, 256), MUCH).workers, 0);
  assert.ok(planReading(machine(4, 600), MUCH).workers < 4);
});

Deno.test("what little there is to read is read without threads", () => {
  assert.equal(planReading(machine(4, 8192), { bytes: MIB, files: 10 }).workers, 0);
  assert.equal(planReading(machine(4, 8192), { bytes: MIB, files: 5000 }).workers, 4);
  assert.equal(planReading(machine(4, 8192), { bytes: 100 * MIB, files: 1 }).workers, 4);
});

Deno.test("threads and their packs never take more than the budget", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 128 }),
      fc.integer({ min: 16, max: 65_536 }),
      fc.boolean(),
      (cores, mebibytes, putsInPlace) => {
        const plan = planReading({ ...machine(cores, mebibytes), putsInPlace }, MUCH);
        const { workers, packBytes, packsPerWorker } = plan;
        const budget = Math.min(350, mebibytes * 0.4) * MIB;
        assert.ok(workers <= Math.min(cores, 4) && workers !== 1);
        assert.ok(packsPerWorker >= 2 && packsPerWorker <= 4);
        assert.ok(packBytes >= 4 * MIB && packBytes <= 16 * MIB);
        assert.ok(workers === 0 || workers * packBytes * packsPerWorker <= budget);
      },
    ),
  );
});

Deno.test("segments of a file are all of it, cut where the chunker begins anew, and those at a database's end are small", () => {
  fc.assert(
    fc.property(fc.nat(300 * MIB), fc.boolean(), (size, sqlite) => {
      const ranges = fileSegments(size, sqlite);
      assert.equal(ranges[0]?.start, 0);
      assert.equal(ranges.at(-1)?.end, null);
      for (const [i, { start, end }] of ranges.entries()) {
        assert.equal(start % (sqlite ? SQLITE_BLOCK_BYTES : SEGMENT_BYTES), 0);
        assert.equal(end, ranges[i + 1]?.start ?? null);
      }
      const last = size - (ranges.at(-1)?.start ?? 0);
      assert.ok(last <= (sqlite ? 4 * MIB : SEGMENT_BYTES), `${last} bytes`);
    }),
  );
});

Deno.test("compression: off stores as it is, max is smaller than fast, auto spends more when the store is slow", async () => {
  const codec = await loadCodec();
  const words = Array.from({ length: 20_000 }, (_, i) => `entry ${i * 7919 % 4001} of ${i % 97}\n`);
  const plain = new TextEncoder().encode(words.join(""));
  const size = (level: number | null) => encodeBytes(codec, plain, level).bytes.length;
  const now = { storeIsSlow: false };
  assert.equal(size(levelOf("off", now)), plain.length);
  assert.ok(size(levelOf("max", now)) < size(levelOf("fast", now)));
  assert.equal(levelOf("auto", now), levelOf("fast", now));
  assert.ok((levelOf("auto", { storeIsSlow: true }) ?? 0) > (levelOf("auto", now) ?? 0));
  assert.equal(levelOf("fast", { storeIsSlow: true }), levelOf("fast", now));
});

Deno.test("frames of a kept compressor stand alone, at every level, whatever came before", async () => {
  const codec = await loadCodec();
  const frames: { plain: Uint8Array; frame: Uint8Array }[] = [];
  for (let n = 0; n < 60; n++) {
    const length = [3, 100, 70_000, 1024 * 1024, 1024 * 1024 + 1, 3_000_000][n % 6] ?? 0;
    const plain = new Uint8Array(length).map((_, i) => (i * i + n) % (n % 4 === 0 ? 256 : 11));
    frames.push({ plain, frame: codec.compress(plain, [1, 3, 12][n % 3]).slice() });
  }
  for (const { plain, frame } of frames.toReversed()) {
    assert.deepEqual(new Uint8Array(codec.decompress(frame, plain.length)), plain);
  }
});
