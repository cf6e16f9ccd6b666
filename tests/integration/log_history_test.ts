/** Reading back from log files: over rotation and compression, without loss or doubles where memory begins. */

import assert from "node:assert/strict";
import zlib from "node:zlib";
import { systemClock } from "../../src/platform/clock.ts";
import { systemAppendFiles } from "../../src/platform/append_file.ts";
import { systemFiles } from "../../src/platform/local_files.ts";
import { openLogFiles, RING_LIMIT_LINES } from "../../src/supervisor/mod.ts";
import type { LogSpec } from "../../src/supervisor/mod.ts";
import type { ProcessLogs, ProcessLogsOptions } from "../../src/supervisor/process_logs.ts";
import { batchOf, logSpecOf, quietLogs } from "../support/process_logs.ts";
import { randomOf } from "../support/seeded_random.ts";
import { until } from "../support/supervised.ts";
import { testApp } from "../support/test_app.ts";

const clock = systemClock();
const LINE_BYTES = 100;

/** Numbered, so that what is missing or doubled shows. */
const lineOf = (n: number) => `${n} `.padEnd(LINE_BYTES - 1, "x") + "\n";
const numberIn = (text: string) => Number.parseInt(text);

function textOf(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return ""; // not there yet, or renamed just now
  }
}

interface Scene extends AsyncDisposable {
  readonly path: string;
  readonly timesFolder: string;
  readonly logs: ProcessLogs;
  readonly spec: LogSpec;
  /** Resolves when what was said is in the file. */
  settled(): Promise<void>;
  /** Numbers of the lines that `query` brings. */
  ask(query: string): Promise<number[]>;
  /** Lines [from, to), as a pump brings them: some at once, and it waits where it is asked to. */
  say(from: number, to: number, atOnce?: number, wallMs?: number): Promise<void>;
}

async function scene(
  change: Partial<LogSpec> = {},
  options: Partial<ProcessLogsOptions> = {},
): Promise<Scene> {
  const folder = await Deno.makeTempDir({ prefix: "sm-history-" });
  const path = `${folder}/logs/web.log`;
  const logs = quietLogs({ clock, timesFolder: `${folder}/times`, ...options });
  const spec = logSpecOf({ path, maxFiles: 100, ...change });
  logs.configure("web", spec);
  const app = testApp({ logs });
  let said = 0;
  return {
    path,
    timesFolder: `${folder}/times/web`,
    logs,
    spec,
    async settled() {
      const text = lineOf(said - 1);
      await until(() => textOf(path).endsWith(text), "all written");
    },
    async ask(query) {
      const response = await app.ask(`/processes/web/logs?${query}`, { headers: { accept: "text/plain" } });
      assert.equal(response.status, 200);
      return (await response.text()).split("\n").filter((text) => text !== "").map(numberIn);
    },
    async say(from, to, atOnce = 1, wallMs = clock.wallMs()) {
      said = to;
      for (let n = from; n < to; n += atOnce) {
        const count = Math.min(atOnce, to - n);
        const text = Array.from({ length: count }, (_, i) => lineOf(n + i)).join("");
        await logs.take("web", batchOf(text, "stdout", wallMs));
      }
    },
    async [Symbol.asyncDispose]() {
      await logs.close(60_000);
      await Deno.remove(folder, { recursive: true });
    },
  };
}

/** Fails with a word where they are not all numbers from `from` to `to`; a comparison of arrays would take for ever. */
function assertRun(numbers: readonly number[], from: number, to: number, what = ""): void {
  const wrong = numbers.findIndex((n, i) => n !== from + i);
  assert.ok(wrong < 0, `${what}: at ${wrong} of ${numbers.length} is ${numbers[wrong]}, not ${from + wrong}`);
  assert.equal(numbers.length, to - from, what);
}

Deno.test("logs reads back from rotated and compressed files what memory has no more, each line once and in order", async () => {
  for (const compression of ["none", "zstd"] as const) {
    await using app = await scene({ compression });
    await app.say(0, 12_000, 7);
    const memory = app.logs.last("web").length;
    assert.equal(memory, RING_LIMIT_LINES);
    assertRun(await app.ask(""), 12_000 - memory, 12_000, "asked for nothing more than memory");
    for (const tail of [memory, memory + 1, 3_456, 11_999, 12_000, 20_000]) {
      assertRun(await app.ask(`tail=${tail}`), Math.max(0, 12_000 - tail), 12_000, `${tail} ${compression}`);
    }
    assertRun(await app.ask("since=1h"), 0, 12_000, "since");
    if (compression === "none") continue;
    const isCompressed = () =>
      [...Deno.readDirSync(app.path.slice(0, -"/web.log".length))].every(({ name }) =>
        name === "web.log" || /^web\.log\.\d+\.zst$/.test(name)
      );
    await until(isCompressed, "all compressed");
    assertRun(await app.ask("tail=all"), 0, 12_000, "compressed");
    assertRun(await app.ask("tail=5000"), 7_000, 12_000, "compressed");
  }
});

Deno.test("logs finds the seam of files and memory while a program speaks, whatever came in one read", async () => {
  const random = randomOf(7);
  await using app = await scene({ maxSizeBytes: 512 * 1024, compression: "zstd" });
  let said = 0;
  let over = false;
  const speak = async () => {
    while (!over) {
      const count = 1 + Math.floor(random.float() * 300);
      await app.say(said, said + count, count);
      said += count;
      if (random.float() < 0.25) await clock.sleep(1);
    }
  };
  const speaking = speak();
  for (let round = 0; round < 25; round++) {
    await until(() => said > 400 * (round + 8), "more");
    const least = said;
    const numbers = await app.ask("tail=2500");
    const [first = -1] = numbers;
    assertRun(numbers, first, first + 2500, `round ${round}`);
    assert.ok(first + 2500 >= least, "what was said before is there");
  }
  over = true;
  await speaking;
  assertRun(await app.ask("tail=all"), 0, said, "all");
});

Deno.test("logs says each line once where two streams and unfinished lines meet in one file", async () => {
  await using app = await scene();
  const { logs } = app;
  for (let n = 0; n < 3_000; n++) {
    logs.take("web", batchOf(`${n} begins`, n % 2 === 0 ? "stdout" : "stderr"));
    if (n % 3 === 0) logs.take("web", batchOf(`${100_000 + n}\n`, "stderr"));
  }
  const wanted: number[] = [];
  for (let n = 0; n < 3_000; n++) wanted.push(n, ...(n % 3 === 0 ? [100_000 + n] : []));
  const files = await openAfterClose(app);
  const wrong = wanted.findIndex((n, i) => files[i] !== n);
  assert.ok(wrong < 0, `line ${wrong} of ${files.length} is ${files[wrong]}, not ${wanted[wrong]}`);
  assert.equal(files.length, wanted.length);
});

async function openAfterClose(app: Scene): Promise<number[]> {
  await app.logs.close(60_000);
  using history = await openLogFiles(app.path, app.timesFolder, app.spec.maxFiles);
  const numbers: number[] = [];
  for await (const lines of history?.lines({ tail: Infinity, sinceMs: -Infinity, matches: null }) ?? []) {
    numbers.push(...lines.map(({ text }) => numberIn(text)));
  }
  return numbers;
}

Deno.test("logs since a time begins within a second of it, also in rotated, renamed and compressed files", async () => {
  await using app = await scene({ compression: "zstd", maxFiles: 5 });
  const startMs = clock.wallMs() - 3_600_000;
  // Five lines a second for forty minutes: four files, of which memory has three minutes.
  for (let second = 0; second < 2_400; second++) {
    await app.say(5 * second, 5 * second + 5, 5, startMs + 1000 * second);
    // No faster than the disk: what waits for it for minutes is told the time of its first line.
    if (second % 10 === 9) await app.settled();
  }
  const oldest = (await app.ask("tail=all"))[0] ?? -1;
  assert.ok(oldest > 0 && oldest < 11_000, "files go on further than memory");
  for (const second of [2_399, 2_300, 2_100, 1_900, Math.ceil(oldest / 5) + 10]) {
    const numbers = await app.ask(`since=${new Date(startMs + 1000 * second).toISOString()}`);
    const [first = -1] = numbers;
    assertRun(numbers, first, 12_000, `second ${second}`);
    assert.ok(first <= 5 * second && first >= 5 * (second - 2), `${first} for ${5 * second}`);
  }
  const times = [...Deno.readDirSync(app.timesFolder)].length;
  assert.ok(times <= 7, `${times} files of times, for five of lines`);
});

Deno.test("logs looks for a text in files and takes the last lines that have it", async () => {
  await using app = await scene();
  await app.say(0, 8_000, 50);
  const numbers = await app.ask("tail=300&text=7%20x");
  assert.equal(numbers.length, 300);
  assert.ok(numbers.every((n, i) => n === 7_997 - 10 * (299 - i)));
});

Deno.test("logs goes on from files to memory to what comes, when it follows", async () => {
  const logs = quietLogs({ clock });
  const folder = await Deno.makeTempDir({ prefix: "sm-history-" });
  logs.configure("web", logSpecOf({ path: `${folder}/web.log`, maxFiles: 9 }));
  const app = testApp({ logs });
  for (let n = 0; n < 3_000; n++) await logs.take("web", batchOf(lineOf(n)));
  const response = await app.ask("/processes/web/logs?follow=true&tail=2900", {
    headers: { accept: "text/plain" },
  });
  for (let n = 3_000; n < 3_500; n++) await logs.take("web", batchOf(lineOf(n)));
  const reader = (response.body ?? assert.fail("a body")).getReader();
  let text = "";
  while (!text.includes("\n3499 ")) text += new TextDecoder().decode((await reader.read()).value);
  assertRun(text.trimEnd().split("\n").map(numberIn), 100, 3_500);
  await reader.cancel();
  assert.equal(app.streams.size, 0);
  await logs.close(60_000);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("lines that a disk refused are in memory alone, and those after them are not said twice", async () => {
  let full = false;
  const files = {
    ...systemAppendFiles,
    async open(path: string, mode: number) {
      const file = await systemAppendFiles.open(path, mode);
      return {
        ...file,
        write(bytes: Uint8Array) {
          if (full) throw new Error("No space left on device (os error 28)");
          return file.write(bytes.subarray(0, 777)); // short writes, too
        },
      };
    },
  };
  let troubles = 0;
  await using app = await scene({}, { files, onTrouble: () => troubles++ });
  await app.say(0, 2_000, 13);
  const written = () => app.ask("tail=all").then((numbers) => numbers.length === 2_000);
  assert.ok(await written());
  await app.settled();
  full = true;
  await app.say(2_000, 2_100, 1);
  await until(() => troubles > 0, "the disk refused");
  full = false;
  await clock.sleep(1_100); // the disk is tried again
  await app.say(2_100, 2_600, 1);
  assertRun((await app.ask("tail=all")).filter((n) => !Number.isNaN(n)), 0, 2_600);
});

Deno.test("a file moved away by another is not mistaken: no line is said twice", async () => {
  await using app = await scene({ maxSizeBytes: Infinity });
  await app.say(0, 1_500);
  assertRun(await app.ask("tail=all"), 0, 1_500);
  await app.settled();
  await Deno.rename(app.path, `${app.path}.1`); // as logrotate does
  app.logs.reopen();
  await app.say(1_500, 1_600);
  assertRun(await app.ask("tail=all"), 0, 1_600, "moved to where we look");
  await app.settled();
  await Deno.rename(app.path, `${app.path}.elsewhere`);
  app.logs.reopen();
  await app.say(1_600, 1_700);
  const numbers = await app.ask("tail=all");
  assertRun(numbers, numbers[0] ?? -1, 1_700, "moved away");
});

Deno.test("a file whose facts cannot be had is closed again, and those that were opened before it", async () => {
  await using app = await scene({ maxFiles: 9 });
  await app.say(0, 1_000, 10);
  await app.logs.close(60_000);
  for (const failing of [1, 2]) {
    let opened = 0;
    let closed = 0;
    const files = {
      ...systemFiles,
      async open(path: string) {
        const file = await systemFiles.open(path);
        const number = ++opened;
        return {
          read: (target: Uint8Array, position: number) => file.read(target, position),
          facts: () => number === failing ? Promise.reject(new Error("fstat: EIO")) : file.facts(),
          [Symbol.dispose]() {
            closed++;
            file[Symbol.dispose]();
          },
        };
      },
    };
    await assert.rejects(openLogFiles(app.path, null, 9, files), /EIO/);
    assert.deepEqual([opened, closed], [failing, failing]);
  }
});

Deno.test("a file that cannot be read is named in its place, and the others are read", async () => {
  await using app = await scene({ maxFiles: 9 });
  await app.say(0, 3_000, 10);
  await app.logs.close(60_000);
  const wrong = new Uint8Array(zlib.zstdCompressSync(new Uint8Array(100)));
  wrong.fill(7, 0, 4);
  await Deno.remove(`${app.path}.2`);
  await Deno.writeFile(`${app.path}.2.zst`, wrong);
  using history = await openLogFiles(app.path, null, 9) ?? assert.fail("files");
  const texts: string[] = [];
  for await (const lines of history.lines({ tail: Infinity, sinceMs: -Infinity, matches: null })) {
    texts.push(...lines.map(({ text }) => text));
  }
  const notes = texts.filter((text) => text.startsWith("state-manager: "));
  assert.deepEqual(notes, [
    "state-manager: web.log.2.zst is left out: read a compressed file: no zstd frame begins there",
  ]);
  assert.equal(texts[0]?.startsWith("0 "), true);
  assert.equal(texts.at(-1)?.startsWith("2999 "), true);
});
