/** The thread in which a restore unpacks, verifies and writes. May be ended at any moment: only a stage is unfinished. */

import { keepHeapSmallWhereShort } from "../platform/heap.ts";
import { systemRandom } from "../platform/random.ts";
import { serveJobs } from "../platform/worker_pool.ts";
import { type Cipher, openCipher } from "./cipher.ts";
import { type Codec, loadCodec } from "./codec.ts";
import { CHUNK_LIMIT_BYTES } from "./pack.ts";
import { runStageJob, type StageJobResult } from "./stage_job.ts";
import type { StageMessage } from "./stage_runner.ts";
import { unpackJob } from "./stage_wire.ts";

/** A Worker serves one restore, so one repository. */
let cipher: Cipher | undefined;
let codec: Codec | undefined;
/** A chunk is written before the next one is unpacked. */
const scratch = new Uint8Array(CHUNK_LIMIT_BYTES);

keepHeapSmallWhereShort();

serveJobs<StageMessage, StageJobResult>(async ({ job, key }) => {
  cipher ??= openCipher(key, systemRandom());
  codec ??= await loadCodec();
  return { result: runStageJob(unpackJob(job), { codec, cipher, scratch }) };
});
