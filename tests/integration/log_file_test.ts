/** Log files of processes: what is written arrives whole, rotated by name, and a disk that refuses stops nobody. */

import assert from "node:assert/strict";
import zlib from "node:zlib";
import { type AppendFiles, systemAppendFiles } from "../../src/platform/append_file.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { logCompressor } from "../../src/supervisor/log_compressor.ts";
import { LogFile, type LogFileOptions } from "../../src/supervisor/log_file.ts";
import { rotateAway } from "../../src/supervisor/log_rotation.ts";
import { batchOf } from "../support/process_logs.ts";
import { until } from "../support/supervised.ts";

/** Opened once: it holds libc open for good. */
const clock = systemClock();
/** On a disk that is slow; what is left after it would be written while the folder is removed. */
const CLOSE_LIMIT_MS = 60_000;

interface Scene extends AsyncDisposable {
  readonly path: string;
  readonly troubles: (string | null)[];
  readonly file: LogFile;
  text(suffix?: string): Promise<string>;
}

async function scene(change: Partial<LogFileOptions> = {}): Promise<Scene> {
  const folder = await Deno.makeTempDir({ prefix: "sm-log-" });
  const path = `${folder}/sub/app.log`;
  const troubles: (string | null)[] = [];
  const file = new LogFile({
    path,
    maxSizeBytes: Infinity,
    maxFiles: 3,
    policy: "block",
    compression: "none",
    files: systemAppendFiles,
    compress: logCompressor(clock),
    clock,
    times: null,
    firstPosition: 0,
    onTrouble: (error) => troubles.push(error === null ? null : error.message),
    ...change,
  });
  return {
    path,
    troubles,
    file,
    text: (suffix = "") => Deno.readTextFile(path + suffix),
    async [Symbol.asyncDispose]() {
      await file.close(CLOSE_LIMIT_MS);
      await Deno.remove(folder, { recursive: true });
    },
  };
}

/** Pushes as a pump does: waits where it is asked to. */
async function pushAll(file: LogFile, lines: Iterable<string>): Promise<void> {
  for (const line of lines) await file.push(batchOf(line));
}

Deno.test("a log file gets every byte as it came, after what was there, and only its group may read it", async () => {
  await using app = await scene();
  await Deno.mkdir(app.path.slice(0, app.path.lastIndexOf("/")));
  await Deno.writeTextFile(app.path, "before\n", { mode: 0o640 });
  await pushAll(app.file, ["one\r\ntwo\n", "thr", "four\n"]);
  await app.file.close(CLOSE_LIMIT_MS);
  // "four" is the first piece of its line: it does not go on with "thr".
  assert.equal(await app.text(), "before\none\r\ntwo\nthr\nfour\n");
  assert.equal(((await Deno.stat(app.path)).mode ?? 0) & 0o007, 0);
});

Deno.test("a log file keeps lines of two streams apart when one of them is not finished", async () => {
  await using app = await scene();
  app.file.push(batchOf("Password: ", "stdout"));
  app.file.push(batchOf("warning\n", "stderr"));
  await app.file.close(CLOSE_LIMIT_MS);
  assert.equal(await app.text(), "Password: \nwarning\n");
});

Deno.test("a log file is rotated between lines, by size and number, and none of the kept lines is cut or doubled", async () => {
  await using app = await scene({ maxSizeBytes: 1000 });
  const lines = Array.from({ length: 500 }, (_, i) => `line ${String(i).padStart(5, "0")}\n`);
  await pushAll(app.file, lines);
  await app.file.close(CLOSE_LIMIT_MS);
  const names = [...Deno.readDirSync(app.path.slice(0, -"/app.log".length))].map(({ name }) => name).sort();
  assert.deepEqual(names, ["app.log", "app.log.1", "app.log.2"]);
  const texts = [await app.text(".2"), await app.text(".1"), await app.text()];
  for (const text of texts) assert.ok(text.length <= 1000 && text.endsWith("\n"), `${text.length}`);
  assert.ok(lines.join("").endsWith(texts.join("")));
  assert.ok(texts.join("").length > 2000);
});

Deno.test("a log file obeys new limits without being opened anew", async () => {
  await using app = await scene();
  await pushAll(app.file, ["x".repeat(999) + "\n"]);
  await until(() => sizeOf(app.path) === 1000, "the first line");
  app.file.adjust({ maxSizeBytes: 1000, maxFiles: 2, policy: "block", compression: "none" });
  await pushAll(app.file, ["second\n"]);
  await app.file.close(CLOSE_LIMIT_MS);
  assert.deepEqual([(await app.text(".1")).length, await app.text()], [1000, "second\n"]);
});

Deno.test("a line without end does not grow a log file without limit", async () => {
  await using app = await scene({ maxSizeBytes: 64 * 1024, maxFiles: 2 });
  for (let i = 0; i < 64; i++) await app.file.push({ ...batchOf("x".repeat(16_000)), firstPart: i });
  await app.file.close(CLOSE_LIMIT_MS);
  for (const suffix of ["", ".1"]) assert.ok((await app.text(suffix)).length <= 2 * 64 * 1024);
});

Deno.test("rotation that died between two renames loses no file the next time", async () => {
  for (let hole = 1; hole <= 3; hole++) {
    const folder = await Deno.makeTempDir({ prefix: "sm-rotate-" });
    const path = `${folder}/a.log`;
    try {
      for (const number of [1, 2, 3]) {
        if (number !== hole) await Deno.writeTextFile(`${path}.${number}`, `old ${number}`);
      }
      await Deno.writeTextFile(path, "new");
      await rotateAway(path, { maxFiles: 4 }, systemAppendFiles);
      const kept = await Promise.all([1, 2, 3].map((number) => Deno.readTextFile(`${path}.${number}`)));
      assert.deepEqual(kept, [
        "new",
        ...[1, 2, 3].filter((number) => number !== hole).map((n) => `old ${n}`),
      ]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  }
});

Deno.test("a log file that somebody moved away is opened anew when it is told so", async () => {
  await using app = await scene();
  await pushAll(app.file, ["one\n"]);
  await until(() => sizeOf(app.path) === 4, "the first line");
  await Deno.rename(app.path, `${app.path}.moved`);
  app.file.reopen();
  await pushAll(app.file, ["two\n"]);
  await app.file.close(CLOSE_LIMIT_MS);
  assert.deepEqual([await app.text(".moved"), await app.text()], ["one\n", "two\n"]);
});

/** The machine's files, whose writes fail while `full` is set, with `halves` after half of the bytes. */
function failingFiles(halves: boolean) {
  const state = { full: false, refused: 0 };
  const files: AppendFiles = {
    ...systemAppendFiles,
    async open(path, mode) {
      const file = await systemAppendFiles.open(path, mode);
      let short = false;
      return {
        inode: file.inode,
        sizeBytes: file.sizeBytes,
        write(bytes) {
          if (!state.full) return file.write(bytes);
          short = !short;
          if (halves && short && bytes.length > 1) return file.write(bytes.subarray(0, bytes.length >> 1));
          state.refused++;
          return Promise.reject(new Error("No space left on device (os error 28)"));
        },
        [Symbol.dispose]: () => file[Symbol.dispose](),
      };
    },
  };
  return { state, files };
}

Deno.test("a full disk never makes the program wait; the file then says how many lines are missing", async () => {
  for (const halves of [true, false]) await fullDisk(halves);
});

async function fullDisk(halves: boolean): Promise<void> {
  const { state, files } = failingFiles(halves);
  let nowMs = 0;
  const time = { ...clock, monotonicMs: () => nowMs };
  await using app = await scene({ files, clock: time });
  await pushAll(app.file, ["first\n"]);
  await until(() => sizeOf(app.path) === 6, "the first line");
  state.full = true;
  await pushAll(app.file, ["cut in the middle\nnever\n"]);
  await until(() => app.troubles.length === 1, "the failure");
  for (let i = 0; i < 1000; i++) assert.equal(app.file.push(batchOf("dropped\n")), null);
  nowMs += 1_000; // tried again, in vain
  app.file.push(batchOf("also dropped\n"));
  await until(() => state.refused === 2, "the second failure");
  assert.equal(app.file.push(batchOf("and this\n")), null);
  const given = 1004;
  state.full = false;
  nowMs += 1_000;
  await until(() => (app.file.push(batchOf("again\n")), app.troubles.length === 2), "the recovery");
  await app.file.close(CLOSE_LIMIT_MS);
  const text = await app.text();
  assert.equal(app.troubles[1], null);
  const told = [...text.matchAll(/^state-manager: (\d+) lines dropped: No space left on device$/gm)];
  const dropped = told.reduce((sum, [, count]) => sum + Number(count), 0);
  const again = text.match(/^again$/gm)?.length ?? 0;
  assert.ok(again > 0 && dropped === given, text);
  for (const line of text.trimEnd().split("\n")) {
    assert.match(line, /^(first|cut in the m.*|state-manager: .*|again|)$/, text);
  }
}

Deno.test("who looks at log files meets none that is half opened, and finds the one that is written", async () => {
  let opening = 0;
  const files: AppendFiles = {
    ...systemAppendFiles,
    async open(path, mode) {
      opening++;
      await clock.sleep(2);
      const file = await systemAppendFiles.open(path, mode);
      await clock.sleep(2);
      opening--;
      return file;
    },
  };
  await using app = await scene({ maxSizeBytes: 1_000, files });
  let over = false;
  const speak = async () => {
    while (!over) {
      await app.file.push(batchOf(`${"x".repeat(600)}\n`));
      await clock.sleep(1);
    }
  };
  const speaking = speak();
  let inode: number | null = null;
  let others = 0;
  // However slow the disk: until it was another file often enough.
  for (let round = 0; round < 60 || others <= 5; round++) {
    assert.ok(round < 5_000, `${others} other files`);
    const at = await app.file.at(0, async () => {
      assert.equal(opening, 0, `round ${round}`);
      const there = (await Deno.stat(app.path).catch(() => null))?.ino ?? null;
      assert.equal(opening, 0, `round ${round}`);
      return { there, [Symbol.dispose]() {} };
    });
    assert.equal(at?.place.inode, at?.found.there, `round ${round}`);
    if (at?.place.inode !== inode) others++;
    inode = at?.place.inode ?? null;
    await clock.sleep(round % 5);
  }
  over = true;
  await speaking;
});

Deno.test("a slow disk makes the program wait with block, and costs counted lines with drop", async () => {
  for (const policy of ["block", "drop"] as const) {
    const gate = Promise.withResolvers<void>();
    const files: AppendFiles = {
      ...systemAppendFiles,
      async open(path, mode) {
        await gate.promise;
        return await systemAppendFiles.open(path, mode);
      },
    };
    await using app = await scene({ files, policy });
    const line = "x".repeat(999) + "\n";
    let asked = 0;
    for (let i = 0; i < 4000; i++) if (app.file.push(batchOf(line)) !== null) asked++;
    assert.equal(asked > 0, policy === "block");
    gate.resolve();
    await app.file.close(CLOSE_LIMIT_MS);
    const text = await app.text();
    const kept = text.match(/^x+$/gm)?.length ?? 0;
    const dropped = Number(/(\d+) lines dropped: the disk is slow/.exec(text)?.[1]);
    assert.ok(kept >= 1000 && kept + dropped === 4000, `${kept} + ${dropped}`);
  }
});

Deno.test("a pipe as a log file is written, never rotated, and waits for no reader", async () => {
  const folder = await Deno.makeTempDir({ prefix: "sm-fifo-" });
  try {
    const path = `${folder}/pipe`;
    await new Deno.Command("mkfifo", { args: [path] }).output();
    await using app = await scene({ path, maxSizeBytes: 10 });
    await pushAll(app.file, ["more than ten bytes\n", "and again\n"]);
    const reader = await Deno.open(path, { read: true });
    try {
      const bytes = new Uint8Array(100);
      const count = await reader.read(bytes);
      assert.equal(
        new TextDecoder().decode(bytes.subarray(0, count ?? 0)).slice(0, 20),
        "more than ten bytes\n",
      );
    } finally {
      reader.close();
    }
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["pipe"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch {
    return -1;
  }
}

/** What all files of a log hold, oldest first, and how many of them are compressed. */
async function allOf(path: string): Promise<{ text: string; compressed: number }> {
  let text = "";
  let compressed = 0;
  for (let number = 9; number >= 1; number--) {
    const packed = await Deno.readFile(`${path}.${number}.zst`).catch(() => null);
    if (packed === null) text += await Deno.readTextFile(`${path}.${number}`).catch(() => "");
    else {
      text += new TextDecoder().decode(zlib.zstdDecompressSync(packed));
      compressed++;
    }
  }
  return { text: text + await Deno.readTextFile(path), compressed };
}

Deno.test("rotated files are compressed, whatever is rotated meanwhile, and none is lost, doubled or taken for another", async () => {
  await using app = await scene({ maxSizeBytes: 64 * 1024, maxFiles: 6, compression: "zstd" });
  const line = (n: number) => `${n} ${"x".repeat(1000)}\n`;
  const count = 1500;
  for (let n = 0; n < count; n++) await pushAll(app.file, [line(n)]);
  await until(
    () => [1, 2, 3, 4, 5].every((n) => sizeOf(`${app.path}.${n}.zst`) > 0),
    "all compressed",
  );
  await until(() => sizeOf(`${app.path}.part.zst`) <= 0, "no part of one");
  const { text, compressed } = await allOf(app.path);
  assert.equal(compressed, 5);
  const lines = text.trimEnd().split("\n").map((each) => Number(each.split(" ")[0]));
  assert.ok(lines.length > 300 && lines.at(-1) === count - 1);
  assert.ok(lines.every((n, i) => n === count - lines.length + i), "in order, none missing");
  assert.ok(sizeOf(`${app.path}.1`) <= 0);
});

Deno.test("compression of another file than the one that has the name by now is thrown away", async () => {
  const gate = Promise.withResolvers<void>();
  const real = logCompressor(clock);
  let asked = 0;
  await using app = await scene({
    maxSizeBytes: 1000,
    maxFiles: 4,
    compression: "zstd",
    compress: async (job) => {
      if (asked++ === 0) await gate.promise; // the name means another file when it goes on
      return await real(job);
    },
  });
  const line = (n: number) => `${n} ${"x".repeat(700)}\n`;
  for (let n = 1; n <= 2; n++) await pushAll(app.file, [line(n)]);
  await until(() => asked === 1, "the first job");
  await pushAll(app.file, [line(3)]);
  await until(() => sizeOf(`${app.path}.2`) > 0, "the second rotation");
  gate.resolve();
  await until(() => [1, 2].every((n) => sizeOf(`${app.path}.${n}.zst`) > 0), "both compressed");
  assert.equal((await allOf(app.path)).text, line(1) + line(2) + line(3));
});

Deno.test("rotation keeps the forms of a number together, and removes what a crash left in two", async () => {
  await using app = await scene();
  await Deno.mkdir(app.path.slice(0, app.path.lastIndexOf("/")));
  const write = (suffix: string) => Deno.writeTextFile(app.path + suffix, suffix);
  for (const suffix of ["", ".1", ".1.zst", ".2.zst", ".3"]) await write(suffix);
  await rotateAway(app.path, { maxFiles: 4 }, systemAppendFiles);
  const names = [...Deno.readDirSync(app.path.slice(0, app.path.lastIndexOf("/")))].map(({ name }) => name);
  assert.deepEqual(names.sort(), ["app.log.1", "app.log.2", "app.log.2.zst", "app.log.3.zst"]);
  assert.equal(await app.text(".3.zst"), ".2.zst");
  assert.equal(await app.text(".1"), "");
});
