/** What a gushing program writes passes a slow reader whole where the program waits, and is counted where it does not. */

import assert from "node:assert/strict";
import { passThrough } from "../../src/cli/pass_through.ts";
import { LARGE_PIPE_BYTES } from "../../src/platform/libc_pipe_size.ts";
import { boundedOutput, type OutputSink } from "../../src/platform/standard_output.ts";
import { linesOf, type LogFormat, partsOf } from "../../src/supervisor/mod.ts";
import { LINE_LIMIT_BYTES } from "../../src/supervisor/lines.ts";
import { batchOf } from "../support/process_logs.ts";
import { randomOf } from "../support/seeded_random.ts";

/** As much as one read brings at most, in the shortest lines but the empty ones: as JSON fifty times as long. */
const LINES = (LARGE_PIPE_BYTES + LINE_LIMIT_BYTES) / 2;
const GUSH = "y\n".repeat(LINES);

/** A reader that takes `perTurn` bytes a turn. */
function slowReader(perTurn: number) {
  let text = "";
  let room = perTurn;
  const decoder = new TextDecoder();
  const sink = boundedOutput({
    tryWrite(bytes) {
      const taken = Math.min(room, bytes.length);
      room -= taken;
      text += decoder.decode(bytes.subarray(0, taken), { stream: true });
      return taken;
    },
  });
  const turns = setInterval(() => room = perTurn, 1);
  return { sink, text: () => text, [Symbol.dispose]: () => clearInterval(turns) };
}

function passTo(sink: OutputSink) {
  return passThrough({ output: () => sink, error: () => sink }, false);
}

async function whole(sink: OutputSink): Promise<void> {
  await sink.flush(60_000);
}

for (const format of ["json", "prefix", "plain"] as const) {
  Deno.test(`lines as ${format} that are many times the queue arrive whole where the program waits`, async () => {
    using reader = slowReader(512 * 1024);
    const passOn = passTo(reader.sink);
    let sequence = 1;
    const streams = ["stdout", "stderr"] as const;
    await Promise.all(streams.map(async (stream) => {
      for (let read = 0; read < 2; read++) {
        const batch = batchOf(GUSH, stream);
        const from = sequence;
        sequence += LINES;
        await passOn("web", { batch, sequence: from }, format, true);
        batch.bytes.fill(0); // the reader's buffer is used again
      }
    }));
    await whole(reader.sink);
    assert.equal(reader.sink.droppedLines, 0);
    const lines = reader.text().trimEnd().split("\n");
    assert.equal(lines.length, 4 * LINES);
    assert.ok(lines.every((line) => line === shapeOf(format, line)), "each line whole");
    if (format !== "json") return;
    for (const [index, stream] of streams.entries()) {
      const numbers = lines.filter((line) => line.includes(stream)).map((line) =>
        Number(/"sequence":(\d+)/.exec(line)?.[1])
      );
      const wrong = numbers.findIndex((n, i) => n <= (numbers[i - 1] ?? 0));
      assert.equal(wrong, -1, `${stream}: in order`);
      assert.ok(numbers.length === 2 * LINES && numbers[0] === 1 + index * LINES, stream);
    }
  });
}

function shapeOf(format: LogFormat, line: string): string {
  if (format === "plain") return "y";
  if (format === "prefix") return "web | y";
  const sequence = /"sequence":(\d+)/.exec(line)?.[1];
  const stream = line.includes("stderr") ? "stderr" : "stdout";
  return `{"time":"1970-01-01T00:00:00.000Z","process":"web","sequence":${sequence},"stream":"${stream}","text":"y"}`;
}

Deno.test("lines that nobody waits for are counted where they do not fit, and the rest arrives", async () => {
  using reader = slowReader(512 * 1024);
  const passOn = passTo(reader.sink);
  await passOn("web", { batch: batchOf(GUSH), sequence: 1 }, "json", false);
  await whole(reader.sink);
  const lines = reader.text().trimEnd().split("\n");
  const told = lines.filter((line) => line.startsWith("state-manager: "));
  const dropped = told.map((line) => Number(/(\d+) lines dropped/.exec(line)?.[1])).reduce(
    (a, b) => a + b,
    0,
  );
  assert.ok(dropped > 0 && lines.length - told.length > 1000, `${dropped} of ${LINES}`);
  assert.equal(lines.length - told.length + dropped, LINES);
});

Deno.test("a write that never fits is told though nothing comes after it", () => {
  let text = "";
  const sink = boundedOutput({
    tryWrite(bytes) {
      text += new TextDecoder().decode(bytes);
      return bytes.length;
    },
  }, { queueBytes: 100 });
  sink.write(new TextEncoder().encode("x\n".repeat(60)));
  assert.equal(text, "state-manager: 60 lines dropped, the reader of this output stalled\n");
});

Deno.test("parts of a batch are the batch, none larger than asked for but a single piece", () => {
  const random = randomOf(3);
  for (let round = 0; round < 50; round++) {
    let text = "";
    for (let line = 0; line < 40; line++) {
      const length = random.float() < 0.1 ? 40_000 : random.float() * 300;
      text += "z".repeat(length) + (line === 39 && round % 2 === 0 ? "" : "\n");
    }
    // Only what one read brings: the end without a newline is no batch of its own then.
    if (round % 2 === 0) text = `${text.slice(0, text.lastIndexOf("\n") + 1)}`;
    const batch = batchOf(text);
    const mostPieces = 1 + Math.floor(random.float() * 20);
    const mostBytes = 1 + Math.floor(random.float() * 2_000);
    const parts = [...partsOf(batch, mostPieces, mostBytes)];
    assert.ok(
      parts.every(({ count, bytes }) => count <= mostPieces && (bytes.length <= mostBytes || count === 1)),
    );
    let sequence = 1;
    const lines = parts.flatMap((part) => {
      const some = linesOf({ batch: part, sequence });
      sequence += part.count;
      return some;
    });
    const wanted = linesOf({ batch, sequence: 1 });
    const wrong = wanted.findIndex((line, index) => JSON.stringify(line) !== JSON.stringify(lines[index]));
    assert.ok(wrong < 0 && lines.length === wanted.length, `round ${round}: line ${wrong}`);
  }
});
