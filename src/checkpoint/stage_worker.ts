/** The thread in which a restore unpacks, verifies and writes. May be ended at any moment: only a stage is unfinished. */

import { keepHeapSmallWhereShort } from "../platform/heap.ts";
import { nativeCrypto } from "../platform/libcrypto.ts";
import { systemRandom } from "../platform/random.ts";
import { serveJobs } from "../platform/worker_pool.ts";
import { openCipher } from "./cipher.ts";
import { loadCodec } from "./codec.ts";
import { CHUNK_LIMIT_BYTES } from "./pack.ts";
import { type StageJobResult, StageThread } from "./stage_job.ts";
import type { StageMessage } from "./stage_runner.ts";
import { unpackJob } from "./stage_wire.ts";

/** A Worker serves one restore, so one repository. */
let thread: StageThread | undefined;

keepHeapSmallWhereShort();
// Before the first job comes, rather than when it has come. Not awaited: whoever listens late misses the first message.
const codec = loadCodec();
nativeCrypto();

serveJobs<StageMessage, StageJobResult>(async ({ job, key }) => {
  thread ??= new StageThread({
    codec: await codec,
    cipher: openCipher(key, systemRandom()),
    scratch: new Uint8Array(CHUNK_LIMIT_BYTES),
  });
  return await thread.begin(unpackJob(job));
});
