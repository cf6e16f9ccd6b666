/** The thread in which a restore unpacks, verifies and writes. May be ended at any moment: only a stage is unfinished. */

import { systemRandom } from "../platform/random.ts";
import { serveJobs } from "../platform/worker_pool.ts";
import { type Cipher, openCipher } from "./cipher.ts";
import { loadCodec } from "./codec.ts";
import { runStageJob, type StageJobResult } from "./stage_job.ts";
import type { StageMessage } from "./stage_runner.ts";

/** A Worker serves one restore, so one repository. */
let cipher: Cipher | undefined;

serveJobs<StageMessage, StageJobResult>(async ({ job, key }) => {
  cipher ??= openCipher(key, systemRandom());
  return { result: runStageJob(job, { codec: await loadCodec(), cipher }) };
});
