/** The thread in which a restore unpacks, verifies and writes. May be ended at any moment: only a stage is unfinished. */

import { serveJobs } from "../platform/worker_pool.ts";
import { loadCodec } from "./codec.ts";
import { runStageJob, type StageJob, type StageJobResult } from "./stage_job.ts";

serveJobs<StageJob, StageJobResult>(async (job) => ({ result: runStageJob(job, await loadCodec()) }));
