/**
 * Where stage jobs run: in Workers for what is large, so that every core unpacks and writes; in this thread for what is
 * small, where starting them would take longer than the work.
 */

import type { Clock } from "../platform/clock.ts";
import { workerUrl } from "../platform/entry.ts";
import { usableCores } from "../platform/machine.ts";
import { WorkerPool } from "../platform/worker_pool.ts";
import type { BlobReading } from "./chunk_reader.ts";
import type { WireCipher } from "./cipher.ts";
import { runStageJob, type StageJob, type StageJobResult } from "./stage_job.ts";
import { type PackedJob, packJob } from "./stage_wire.ts";

export interface StageRunner extends Disposable {
  /** The job's buffers are gone afterwards. */
  run(job: StageJob): Promise<StageJobResult>;
}

/** Beyond this the store and the disk are what a restore waits for. */
const WORKERS_MAX = 4;
/** Starting a Worker takes about as long as this much work. */
const WORKERS_FROM_BYTES = 16 * 1024 * 1024;
const WORKERS_FROM_ENTRIES = 1000;

/** What goes to a Worker: the key to the repository travels in messages only. */
export interface StageMessage {
  readonly job: PackedJob;
  readonly key: WireCipher;
}

export interface StageRunnerOptions extends BlobReading {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** What is ahead, at most. */
  readonly bytes: number;
  readonly entries: number;
}

export function openStageRunner(options: StageRunnerOptions): StageRunner {
  const { bytes, entries, cipher, clock, signal } = options;
  if (bytes < WORKERS_FROM_BYTES && entries < WORKERS_FROM_ENTRIES) return inThisThread(options);
  const pool = new WorkerPool<StageMessage, StageJobResult>({
    action: "restore files",
    start: () => new Worker(workerUrl("src/checkpoint/stage_worker"), { type: "module" }),
    count: Math.min(WORKERS_MAX, usableCores()),
    clock,
    signal,
  });
  pool.start();
  const key = cipher.forWorker();
  return {
    run: (job) => {
      const { packed, transfer } = packJob(job);
      return pool.run({ job: packed, key }, transfer);
    },
    [Symbol.dispose]: () => pool[Symbol.dispose](),
  };
}

function inThisThread(reading: BlobReading): StageRunner {
  return {
    run: (job) => Promise.try(() => runStageJob(job, reading)),
    [Symbol.dispose]: () => {},
  };
}
