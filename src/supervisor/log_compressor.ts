/** Rotated log files are compressed in a Worker that lives for one of them; all programs share it, one file at a time. */

import type { Clock } from "../platform/clock.ts";
import { workerUrl } from "../platform/entry.ts";
import { WorkerPool } from "../platform/worker_pool.ts";

export interface CompressJob {
  readonly from: string;
  readonly to: string;
  readonly mode: number;
}

/** Resolves when `to` is whole and on the disk, with the inode of what was read; null: it cannot be told. */
export type Compress = (job: CompressJob) => Promise<number | null>;

export function logCompressor(clock: Clock): Compress {
  let last: Promise<unknown> = Promise.resolve();
  const run = async (job: CompressJob) => {
    const over = new AbortController();
    using pool = new WorkerPool<CompressJob, number | null>({
      action: "compress a log file",
      start: () => new Worker(workerUrl("src/supervisor/log_compress_worker"), { type: "module" }),
      count: 1,
      clock,
      signal: over.signal,
    });
    pool.start();
    return await pool.run(job);
  };
  return (job) => {
    const done = last.then(() => run(job));
    last = done.catch(() => {});
    return done;
  };
}
