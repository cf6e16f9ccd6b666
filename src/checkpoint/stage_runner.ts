/**
 * Where stage jobs run: for what is large in Workers and, when they have enough to do, in this thread too, so that every
 * core unpacks and writes; in this thread alone for what is small, where starting Workers would take longer than the work.
 */

import type { Clock } from "../platform/clock.ts";
import { workerUrl } from "../platform/entry.ts";
import { usableCores } from "../platform/machine.ts";
import { Turns } from "../platform/turns.ts";
import { WorkerPool } from "../platform/worker_pool.ts";
import type { BlobReading } from "./chunk_reader.ts";
import type { WireCipher } from "./cipher.ts";
import { CHUNK_LIMIT_BYTES } from "./pack.ts";
import { type StageJob, type StageJobResult, StageThread } from "./stage_job.ts";
import { type PackedJob, packJob } from "./stage_wire.ts";

export interface StageRunner extends Disposable {
  /** The job's buffers are gone afterwards, but for memory that all threads see, which is used up. */
  run(job: StageJob): Promise<StageJobResult>;
}

/** This thread is one. Beyond these the store and the disk are what a restore waits for. */
const THREADS_MAX = 4;
/** Starting a Worker takes about as long as this much work. */
const WORKERS_FROM_BYTES = 16 * 1024 * 1024;
const WORKERS_FROM_ENTRIES = 1000;
/** Between two turns of the loop: Workers must not wait for their next job. */
const TURN_INTERVAL_MS = 4;

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
  const { bytes, entries, clock, signal } = options;
  if (bytes < WORKERS_FROM_BYTES && entries < WORKERS_FROM_ENTRIES) return inThisThread(options);
  const pool = new WorkerPool<StageMessage, StageJobResult>({
    action: "restore files",
    start: () => new Worker(workerUrl("src/checkpoint/stage_worker"), { type: "module" }),
    count: Math.max(1, Math.min(THREADS_MAX, usableCores()) - 1),
    clock,
    signal,
  });
  pool.start();
  return new SharedRunner(pool, options);
}

interface WaitingJob {
  readonly job: StageJob;
  readonly resolve: (result: StageJobResult | Promise<StageJobResult>) => void;
  readonly reject: (error: unknown) => void;
}

/** Workers come first. This thread has requests and plans to do beside: it begins one job between two turns of the loop. */
class SharedRunner implements StageRunner {
  readonly #pool: WorkerPool<StageMessage, StageJobResult>;
  readonly #key: WireCipher;
  readonly #own: StageThread;
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  readonly #waiting: WaitingJob[] = [];
  #isHelping = false;

  constructor(pool: WorkerPool<StageMessage, StageJobResult>, options: StageRunnerOptions) {
    const { codec, cipher, clock, signal } = options;
    const turns = new Turns(TURN_INTERVAL_MS);
    this.#pool = pool;
    this.#key = cipher.forWorker();
    const scratch = new Uint8Array(CHUNK_LIMIT_BYTES);
    this.#own = new StageThread({ codec, cipher, scratch, turn: () => turns.next() });
    this.#clock = clock;
    this.#signal = signal;
  }

  run(job: StageJob): Promise<StageJobResult> {
    if (this.#waiting.length === 0 && this.#pool.hasRoom) return this.#send(job);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ job, resolve, reject });
      void this.#help();
    });
  }

  async #send(job: StageJob): Promise<StageJobResult> {
    const { packed, transfer } = packJob(job);
    try {
      return await this.#pool.run({ job: packed, key: this.#key }, transfer);
    } finally {
      while (this.#pool.hasRoom) {
        const next = this.#waiting.shift();
        if (next === undefined) break;
        next.resolve(this.#send(next.job));
      }
    }
  }

  async #help(): Promise<void> {
    if (this.#isHelping) return;
    this.#isHelping = true;
    for (;;) {
      await this.#clock.sleep(0);
      const next = this.#waiting.shift();
      if (next === undefined) break;
      try {
        this.#signal.throwIfAborted();
        next.resolve((await this.#own.begin(next.job)).result);
      } catch (error) {
        next.reject(error);
      }
    }
    this.#isHelping = false;
  }

  [Symbol.dispose](): void {
    this.#pool[Symbol.dispose]();
  }
}

function inThisThread(reading: BlobReading): StageRunner {
  const thread = new StageThread(reading);
  return {
    run: async (job) => await (await thread.begin(job)).result,
    [Symbol.dispose]: () => {},
  };
}
