/** Crash files: what stands in them, how many stay, and what a disk that fails does. */

import assert from "node:assert/strict";
import { faultyFiles } from "../../src/platform/faulty_files.ts";
import type { StateManagerError } from "../../src/platform/errors.ts";
import { systemFiles } from "../../src/platform/local_files.ts";
import {
  CRASH_LINES,
  CRASHES_KEPT,
  CrashFiles,
  type CrashReport,
  crashText,
} from "../../src/supervisor/crash_files.ts";
import type { OutputLine } from "../../src/supervisor/mod.ts";

function lineOf(text: string, sequence = 1): OutputLine {
  return { sequence, wallMs: 0, stream: "stderr", text, partial: false, part: 0 };
}

function report(change: Partial<CrashReport> = {}): CrashReport {
  return {
    name: "web",
    wallMs: Date.UTC(2026, 0, 31, 12, 0, 0, 5),
    cause: { kind: "signal", signal: "SIGSEGV", number: 11 },
    uptimeMs: 1234.5,
    pid: 77,
    incarnation: 3,
    restartFor: null,
    program: "/usr/bin/web",
    cwd: "/srv",
    environment: ["PATH", "API_KEY"],
    limits: { nofile: 1024 },
    lines: [lineOf("panic: it fell")],
    ...change,
  };
}

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "sm-crash-" });
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("a crash file says what fell, how, and what it said, with the names of variables alone", () => {
  assert.equal(
    crashText(report()),
    [
      "process: web",
      "time: 2026-01-31T12:00:00.005Z",
      "cause: signal SIGSEGV",
      "uptime_seconds: 1.235",
      "pid: 77",
      "incarnation: 3",
      'program: "/usr/bin/web"',
      'cwd: "/srv"',
      'limits: {"nofile":1024}',
      "environment: API_KEY PATH",
      "last_lines: 1",
      "",
      "1970-01-01T00:00:00.000Z stderr panic: it fell",
      "",
    ].join("\n"),
  );
});

Deno.test("a crash file keeps the newest lines within its limits, whatever they are", () => {
  const many = Array.from({ length: 500 }, (_, index) => lineOf(`line ${index}`, index));
  const text = crashText(report({ lines: many }));
  assert.match(text, /last_lines: 200\n/);
  assert.ok(
    text.endsWith("line 499\n") && text.includes(`line ${500 - CRASH_LINES}\n`) &&
      !text.includes("line 299\n"),
  );
  const long = crashText(report({ lines: Array.from({ length: 200 }, () => lineOf("é".repeat(16_000))) }));
  assert.ok(new TextEncoder().encode(long).length < 140 * 1024);
});

Deno.test("of each process the newest crashes stay, readable by nobody else", async () => {
  await inFolder(async (folder) => {
    const crashes = new CrashFiles(folder, (error) => assert.fail(error.message));
    for (let second = 0; second < 15; second++) {
      crashes.add(report({ wallMs: second * 1000, cause: { kind: "exit", code: second + 1 } }));
    }
    crashes.add(report({ name: "other", cause: { kind: "spawn-error", error: "no such file", code: 127 } }));
    await crashes.idle();
    const kept = await crashes.list("web");
    assert.equal(kept.length, CRASHES_KEPT);
    assert.deepEqual(kept[0], {
      id: "19700101T000014000Z-exit-15",
      time: "1970-01-01T00:00:14.000Z",
      cause: "exit-15",
      bytes: (await crashes.read("web", "19700101T000014000Z-exit-15")).length,
    });
    assert.equal(kept.at(-1)?.cause, "exit-6");
    assert.equal((await crashes.list("other"))[0]?.cause, "spawn-error");
    assert.equal(((await Deno.stat(`${folder}/web/${kept[0]?.id}.log`)).mode ?? 0) & 0o777, 0o600);
    assert.equal(((await Deno.stat(`${folder}/web`)).mode ?? 0) & 0o777, 0o700);
  });
});

Deno.test("a crash loop waits for a slow disk with a bounded number of reports", async () => {
  await inFolder(async (folder) => {
    const crashes = new CrashFiles(folder, (error) => assert.fail(error.message));
    for (let i = 0; i < 1000; i++) crashes.add(report({ wallMs: i }));
    await crashes.idle();
    const ids = (await crashes.list("web")).map(({ id }) => id);
    assert.equal(ids[0], "19700101T000000031Z-SIGSEGV");
  });
});

Deno.test("a disk that takes no crash file is told of, and the next crash is kept again", async () => {
  await inFolder(async (folder) => {
    const troubles: StateManagerError[] = [];
    const files = faultyFiles(systemFiles, { rules: [{ operation: "write", errno: "ENOSPC" }] });
    const crashes = new CrashFiles(folder, (error) => troubles.push(error), files);
    crashes.add(report());
    crashes.add(report({ wallMs: 1000 }));
    await crashes.idle();
    assert.deepEqual(troubles.map(({ code }) => code), ["disk-full"]);
    assert.deepEqual((await crashes.list("web")).map(({ time }) => time), ["1970-01-01T00:00:01.000Z"]);
    const names = [...Deno.readDirSync(`${folder}/web`)].map(({ name }) => name);
    assert.deepEqual(names, ["19700101T000001000Z-SIGSEGV.log"]);
  });
});
