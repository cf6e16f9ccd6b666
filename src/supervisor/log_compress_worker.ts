/** The thread that compresses a rotated log file, behind all other work. May be ended at any moment. */

import { compressFile } from "../platform/compress_file.ts";
import { yieldToOthers } from "../platform/libc_priority.ts";
import { serveJobs } from "../platform/worker_pool.ts";
import type { CompressJob } from "./log_compressor.ts";

yieldToOthers();

serveJobs<CompressJob, number | null>(({ from, to, mode }) => ({ result: compressFile(from, to, mode) }));
