/** Output of processes without processes: batches from text, and a desk that passes nothing on. */

import assert from "node:assert/strict";
import type { Clock } from "../../src/platform/clock.ts";
import { LineSplitter, type OutputBatch, type OutputStream } from "../../src/supervisor/lines.ts";
import { ProcessLogs, type ProcessLogsOptions } from "../../src/supervisor/process_logs.ts";
import type { LogSpec } from "../../src/supervisor/mod.ts";
import { randomOf } from "./seeded_random.ts";

/** Time stands still at `wallMs`; nobody sleeps. */
function stillClock(wallMs: number): Clock {
  return { wallMs: () => wallMs, monotonicMs: () => 0, sleep: () => Promise.resolve() };
}

export function quietLogs(options: Partial<ProcessLogsOptions> = {}): ProcessLogs {
  return new ProcessLogs({
    clock: stillClock(0),
    random: randomOf(1),
    passOn: () => null,
    onTrouble: () => {},
    timesFolder: null,
    ...options,
  });
}

/** What one read of `text` gives; it must not be empty. */
export function batchOf(text: string, stream: OutputStream = "stdout", wallMs = 0): OutputBatch {
  const batches: OutputBatch[] = [];
  const splitter = new LineSplitter(stream, () => wallMs, (batch) => batches.push(batch));
  splitter.push(new TextEncoder().encode(text));
  splitter.flush();
  const [first, ...others] = batches;
  assert.ok(first !== undefined && others.length === 0, "one batch");
  return first;
}

export function logSpecOf(change: Partial<LogSpec> = {}): LogSpec {
  return {
    path: null,
    maxSizeBytes: 64 * 1024,
    maxFiles: 3,
    policy: "block",
    compression: "none",
    rateLimit: null,
    passThrough: false,
    format: "prefix",
    ...change,
  };
}
