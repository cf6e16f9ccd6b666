/** Lines from bytes: limits, newlines, pieces; and the ring of the last. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { LineRing, linesOf, RING_LIMIT_BYTES, RING_LIMIT_LINES } from "../../src/supervisor/line_ring.ts";
import {
  firstOf,
  LINE_LIMIT_BYTES,
  LineSplitter,
  noteOf,
  type OutputBatch,
  piecesOf,
  splitAfter,
} from "../../src/supervisor/lines.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function batchesOf(chunks: readonly Uint8Array[]): OutputBatch[] {
  const batches: OutputBatch[] = [];
  const splitter = new LineSplitter("stdout", () => 1, (batch) => batches.push(batch));
  for (const chunk of chunks) splitter.push(chunk);
  splitter.flush();
  return batches;
}

function split(chunks: readonly Uint8Array[]): { text: string; partial: boolean }[] {
  return batchesOf(chunks).flatMap((batch) => [...piecesOf(batch)]).map(({ text, partial }) => ({
    text: decoder.decode(text),
    partial,
  }));
}

/** One batch a line. */
function lineBatch(text: string): OutputBatch {
  const [batch] = batchesOf([encoder.encode(text + "\n")]);
  assert.ok(batch);
  return batch;
}

Deno.test("LineSplitter cuts at newlines, trims \\r\\n and marks what has no newline", () => {
  assert.deepEqual(split([encoder.encode("one\r\n\ntwo\rx\nthree")]), [
    { text: "one", partial: false },
    { text: "", partial: false },
    { text: "two\rx", partial: false },
    { text: "three", partial: true },
  ]);
});

Deno.test("LineSplitter cuts a long line into pieces of the limit, the last of them whole", () => {
  const exact = "x".repeat(LINE_LIMIT_BYTES);
  assert.deepEqual(split([encoder.encode(exact + "\n")]), [{
    text: exact,
    partial: false,
  }]);
  assert.deepEqual(split([encoder.encode(exact + exact + "tail\n")]), [
    { text: exact, partial: true },
    { text: exact, partial: true },
    { text: "tail", partial: false },
  ]);
});

Deno.test("LineSplitter says the same however the bytes arrive, and loses none", () => {
  const text = fc.string({
    unit: fc.constantFrom("a", "b", "\n", "é"),
    maxLength: 200,
  });
  fc.assert(
    fc.property(
      text,
      fc.array(fc.integer({ min: 1, max: 7 })),
      (source, sizes) => {
        const bytes = encoder.encode(source);
        const chunks: Uint8Array[] = [];
        let from = 0;
        for (const size of sizes) {
          chunks.push(
            bytes.subarray(from, from += size),
          );
        }
        chunks.push(bytes.subarray(from));
        const pieces = split(chunks);
        assert.deepEqual(pieces, split([bytes]));
        assert.equal(
          pieces.map(({ text, partial }) => text + (partial ? "" : "\n")).join(
            "",
          ),
          source,
        );
      },
    ),
  );
});

Deno.test("LineSplitter keeps every byte as it came, whatever it is, and numbers the pieces of a line", () => {
  const seeds = fc.uint8Array({ maxLength: 300 }).map((bytes) => bytes.map((byte) => byte < 40 ? 10 : byte));
  fc.assert(fc.property(fc.array(seeds, { maxLength: 5 }), (chunks) => {
    const batches = batchesOf(chunks);
    const joined = batches.flatMap((batch) => [...batch.bytes]);
    assert.deepEqual(joined, chunks.flatMap((chunk) => [...chunk]));
    for (const batch of batches) assert.equal(batch.ends.at(-1), batch.bytes.length);
  }));
  const long = encoder.encode("x".repeat(3 * LINE_LIMIT_BYTES) + "\nnext\n");
  const chunks = [0, 1, 2, 3, 4].map((part) =>
    long.subarray(part * 10_000, part === 4 ? undefined : part * 10_000 + 10_000)
  );
  const parts = batchesOf(chunks).flatMap((batch) => [...piecesOf(batch)]).map((
    { part, partial },
  ) => [part, partial]);
  assert.deepEqual(parts, [[0, true], [1, true], [2, false], [0, false]]);
});

Deno.test("LineSplitter says the same without a copy, in a buffer that is used again, and counts what it does not cut", () => {
  const buffer = new Uint8Array(3 * LINE_LIMIT_BYTES);
  const lengths = fc.array(
    fc.oneof(
      fc.integer({ min: 0, max: 40 }),
      fc.constantFrom(LINE_LIMIT_BYTES - 1, LINE_LIMIT_BYTES, LINE_LIMIT_BYTES + 1, 3 * LINE_LIMIT_BYTES),
    ),
    { minLength: 1, maxLength: 30 },
  );
  const reads = fc.array(fc.integer({ min: 1, max: 2 * LINE_LIMIT_BYTES }), { minLength: 1 });
  fc.assert(fc.property(lengths, reads, (lines, cuts) => {
    const whole = encoder.encode(lines.map((length, i) => String(i % 10).repeat(length)).join("\n"));
    const seen: { bytes: string; count: number; ends: number; firstPart: number }[][] = [[], []];
    const facts = (batch: OutputBatch) => ({
      bytes: decoder.decode(batch.bytes),
      count: batch.count,
      ends: batch.ends.length,
      firstPart: batch.firstPart,
    });
    const [copying, inPlace] = seen.map((batches) =>
      new LineSplitter("stdout", () => 1, (batch) => batches.push(facts(batch)))
    );
    for (let at = 0, turn = 0; at < whole.length; turn++) {
      const chunk = whole.subarray(at, at + (cuts[turn % cuts.length] ?? 1));
      at += chunk.length;
      copying?.push(chunk);
      buffer.fill(10); // what another read left there
      buffer.set(chunk, LINE_LIMIT_BYTES);
      inPlace?.pushInPlace(buffer.subarray(LINE_LIMIT_BYTES, LINE_LIMIT_BYTES + chunk.length));
    }
    copying?.flush();
    inPlace?.flush();
    const [first = [], second = []] = seen;
    assert.equal(JSON.stringify(second) === JSON.stringify(first), true);
    assert.ok(first.every(({ count, ends }) => count === ends));
    assert.ok(first.map(({ bytes }) => bytes).join("") === decoder.decode(whole));
  }));
});

Deno.test("LineSplitter never cuts a character of UTF-8 at the limit", () => {
  for (let shift = 0; shift < 4; shift++) {
    const text = "a".repeat(shift) + "😀".repeat(2 * LINE_LIMIT_BYTES / 4);
    const pieces = split([encoder.encode(text + "\n")]);
    assert.equal(pieces.map((piece) => piece.text).join(""), text);
    for (const piece of pieces) assert.ok(encoder.encode(piece.text).length <= LINE_LIMIT_BYTES);
  }
  const noUtf8 = new Uint8Array(2 * LINE_LIMIT_BYTES).fill(0x80);
  assert.equal(batchesOf([noUtf8]).flatMap((batch) => [...batch.ends]).length, 2);
});

Deno.test("batches can be cut at any piece without losing its part number", () => {
  const bytes = encoder.encode("one\n" + "y".repeat(5 * LINE_LIMIT_BYTES + 5) + "\nlast\n");
  const batches = batchesOf([bytes.subarray(0, 40_000), bytes.subarray(40_000)]);
  assert.deepEqual(batches.map(({ firstPart }) => firstPart), [0, 2]);
  for (const batch of batches) {
    const all = [...piecesOf(batch)];
    for (let count = 1; count < all.length; count++) {
      assert.deepEqual([...piecesOf(firstOf(batch, count))], all.slice(0, count));
      assert.deepEqual([...piecesOf(batch, count)], all.slice(count));
      const [head, rest] = splitAfter(batch, count);
      assert.deepEqual([...piecesOf(head)], all.slice(0, count));
      assert.deepEqual([...piecesOf(rest)], all.slice(count));
      assert.deepEqual([head.count, rest.count], [count, all.length - count]);
    }
  }
});

Deno.test("LineSplitter gives copies: the caller may reuse its buffer", () => {
  const kept: OutputBatch[] = [];
  const splitter = new LineSplitter("stdout", () => 1, (batch) => kept.push(batch));
  const buffer = encoder.encode("first\n");
  splitter.push(buffer);
  buffer.fill(120);
  splitter.push(encoder.encode("other\n"));
  assert.deepEqual(kept.map(({ bytes }) => decoder.decode(bytes)), ["first\n", "other\n"]);
});

Deno.test("LineRing keeps the last lines within both limits, numbered without gaps", () => {
  const ring = new LineRing();
  for (let i = 1; i <= RING_LIMIT_LINES + 5; i++) ring.push(lineBatch(`${i}`));
  const lines = ring.last();
  assert.equal(lines.length, RING_LIMIT_LINES);
  assert.deepEqual(lines.map((line) => line.sequence), lines.map((line) => Number(line.text)));
  assert.deepEqual(ring.last(2).map((line) => line.text), [
    `${RING_LIMIT_LINES + 4}`,
    `${RING_LIMIT_LINES + 5}`,
  ]);
  assert.deepEqual(ring.last(0), []);

  const long = "y".repeat(LINE_LIMIT_BYTES - 1);
  for (let i = 0; i < 40; i++) ring.push(lineBatch(long));
  const kept = ring.last();
  assert.equal(kept.length, RING_LIMIT_BYTES / LINE_LIMIT_BYTES);
  assert.equal(kept.at(-1)?.sequence, RING_LIMIT_LINES + 45);
});

Deno.test("LineRing forgets the first lines of a batch and keeps the others", () => {
  const ring = new LineRing();
  const [batch] = batchesOf([encoder.encode(Array.from({ length: 1500 }, (_, i) => `${i + 1}\n`).join(""))]);
  assert.ok(batch);
  ring.push(batch);
  ring.push(noteOf("remark", 1));
  assert.equal(ring.last().length, RING_LIMIT_LINES);
  assert.equal(ring.last()[0]?.text, "502");
  assert.equal(ring.firstSequence, 502);
  assert.deepEqual(ring.after(1498).flatMap((each) => linesOf(each, 1498)).map((line) => line.text), [
    "1499",
    "1500",
    "state-manager: remark",
  ]);
  assert.equal(ring.after(1501).length, 0);
});

Deno.test("LineRing says the last lines of whatever came, and copies what it keeps", () => {
  const sizes = fc.array(
    fc.tuple(fc.integer({ min: 1, max: 400 }), fc.integer({ min: 0, max: 900 })),
    { minLength: 1, maxLength: 20 },
  );
  fc.assert(
    fc.property(sizes, (batches) => {
      const ring = new LineRing();
      const all: string[] = [];
      for (const [count, length] of batches) {
        const texts = Array.from({ length: count }, (_, i) => `${all.length + i + 1} ${"x".repeat(length)}`);
        const [batch] = batchesOf([encoder.encode(texts.map((text) => `${text}\n`).join(""))]);
        assert.ok(batch);
        ring.push(batch);
        batch.bytes.fill(10);
        all.push(...texts);
      }
      const lines = ring.last();
      assert.ok(lines.every(({ text, sequence }) => text === all[sequence - 1]));
      assert.ok(lines.every(({ sequence }, i) => sequence === all.length - lines.length + i + 1));
      assert.equal(ring.firstSequence, all.length - lines.length + 1);
      // All that the limits allow; of the first kept one of a batch its begin may be lost.
      const longest = all.reduce((most, { length }) => Math.max(most, length + 1), 0);
      const bytes = lines.reduce((sum, { text }) => sum + text.length + 1, 0);
      assert.ok(bytes <= RING_LIMIT_BYTES && lines.length <= RING_LIMIT_LINES);
      assert.ok(
        lines.length === Math.min(all.length, RING_LIMIT_LINES) || bytes > RING_LIMIT_BYTES - 2 * longest,
        `${lines.length} lines, ${bytes} bytes of ${all.length}`,
      );
      const after = ring.sequence - 3;
      const last = ring.after(after).flatMap((each) => linesOf(each, after));
      assert.deepEqual(last.map(({ text }) => text), all.slice(-3));
      assert.deepEqual(ring.last(2).map(({ text }) => text), all.slice(-2));
    }),
    { numRuns: 60 },
  );
});
