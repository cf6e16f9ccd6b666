/** Lines from bytes: limits, newlines, pieces; and the ring of the last. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  LINE_LIMIT_BYTES,
  LineRing,
  LineSplitter,
  RING_LIMIT_BYTES,
  RING_LIMIT_LINES,
} from "../../src/supervisor/lines.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function split(
  chunks: readonly Uint8Array[],
): { text: string; partial: boolean }[] {
  const pieces: { text: string; partial: boolean }[] = [];
  const splitter = new LineSplitter(({ text, partial }) =>
    pieces.push({ text: decoder.decode(text), partial })
  );
  for (const chunk of chunks) splitter.push(chunk);
  splitter.flush();
  return pieces;
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

Deno.test("LineSplitter gives copies: the caller may reuse its buffer", () => {
  const kept: Uint8Array[] = [];
  const splitter = new LineSplitter(({ text }) => kept.push(text));
  const buffer = encoder.encode("first\n");
  splitter.push(buffer);
  buffer.fill(120);
  splitter.push(encoder.encode("other\n"));
  assert.deepEqual(kept.map((text) => decoder.decode(text)), [
    "first",
    "other",
  ]);
});

Deno.test("LineRing keeps the last lines within both limits, numbered without gaps", () => {
  const ring = new LineRing();
  const push = (text: string) =>
    ring.push({
      text: encoder.encode(text),
      partial: false,
      stream: "stdout",
      wallMs: 1,
    });
  for (let i = 1; i <= RING_LIMIT_LINES + 5; i++) push(`${i}`);
  const lines = ring.last();
  assert.equal(lines.length, RING_LIMIT_LINES);
  assert.deepEqual(
    lines.map((line) => line.sequence),
    lines.map((line) => Number(line.text)),
  );
  assert.deepEqual(ring.last(2).map((line) => line.text), [
    `${RING_LIMIT_LINES + 4}`,
    `${RING_LIMIT_LINES + 5}`,
  ]);

  const long = "y".repeat(LINE_LIMIT_BYTES);
  for (let i = 0; i < 40; i++) push(long);
  const kept = ring.last();
  assert.equal(kept.length, RING_LIMIT_BYTES / LINE_LIMIT_BYTES);
  assert.equal(kept.at(-1)?.sequence, RING_LIMIT_LINES + 45);
});
