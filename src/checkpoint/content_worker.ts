/**
 * A reading thread of the archiver: takes jobs, cuts and compresses what is new, and gives out full packs. All its file
 * calls are synchronous, which is what makes it fast. It holds nothing that counts before the store has it, and may be
 * terminated at any moment.
 */

import { keepHeapSmallWhereShort } from "../platform/heap.ts";
import { systemRandom } from "../platform/random.ts";
import { errorToWire } from "../platform/wire_error.ts";
import { ClaimTable } from "./claim_table.ts";
import { openCipher } from "./cipher.ts";
import { loadCodec } from "./codec.ts";
import { ContentReader, type DatabaseCopy, type ReadJob } from "./content_job.ts";
import type { FromWorker, ToWorker } from "./content_worker_protocol.ts";
import { encodeOutcomes } from "./outcome_wire.ts";
import { PackFiller } from "./pack_filler.ts";
import { finishCopy } from "./sqlite_snapshot.ts";

/** The part of a Worker's global that we use; the DOM's types describe a window. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: FromWorker, transfer?: ArrayBuffer[]): void;
}

/** Bytes between two signs of life: some milliseconds of work. */
const PROGRESS_BYTES = 4 * 1024 * 1024;

keepHeapSmallWhereShort();

const scope = globalThis as unknown as WorkerScope;

class ReadingThread {
  readonly #filler: PackFiller;
  readonly #reader: ContentReader;
  #jobBytes = 0;
  #untoldBytes = 0;

  private constructor(filler: PackFiller) {
    this.#filler = filler;
    this.#reader = new ContentReader({
      store: (chunk) => filler.store(chunk),
      pace: (bytes) => this.#pace(bytes),
    });
  }

  static async start(options: Extract<ToWorker, { type: "start" }>): Promise<ReadingThread> {
    const filler = new PackFiller({
      codec: await loadCodec(),
      cipher: openCipher(options.cipher, systemRandom()),
      claims: new ClaimTable(options.claims),
      compression: options.compression,
      targetBytes: options.packBytes,
      onPack: (pack) => scope.postMessage({ type: "pack", pack }, [pack.entries]),
    });
    return new ReadingThread(filler);
  }

  get filler(): PackFiller {
    return this.#filler;
  }

  async read(job: ReadJob): Promise<void> {
    this.#jobBytes = 0;
    const outcomes = encodeOutcomes(await this.#reader.read(job));
    this.#tell();
    scope.postMessage({ type: "done", outcomes, bytes: this.#jobBytes }, [outcomes]);
  }

  /** What is wrong with the copy is an answer. */
  async check({ path, copy }: DatabaseCopy): Promise<void> {
    const problem = await finishCopy(path, copy).then(() => null, errorToWire);
    scope.postMessage({ type: "checked", problem });
  }

  flush(): void {
    this.#reader.close();
    this.#filler.flush();
    scope.postMessage({ type: "flushed" });
  }

  #pace(bytes: number): Promise<void> | null {
    this.#jobBytes += bytes;
    this.#untoldBytes += bytes;
    if (this.#untoldBytes >= PROGRESS_BYTES) this.#tell();
    return this.#filler.room();
  }

  #tell(): void {
    scope.postMessage({ type: "progress", bytes: this.#untoldBytes });
    this.#untoldBytes = 0;
  }
}

let thread: ReadingThread | undefined;
let last: Promise<void> = Promise.resolve();

async function handle(message: Exclude<ToWorker, { type: "credit" }>): Promise<void> {
  if (message.type === "start") thread = await ReadingThread.start(message);
  else if (message.type === "job") await thread?.read(message.job);
  else if (message.type === "check") await thread?.check(message.copy);
  else if (message.type === "send") thread?.filler.flushEarly();
  else thread?.flush();
}

/** Credits are taken at once: a job may be waiting for one. Those before the start wait for it. */
scope.onmessage = ({ data }) => {
  if (data.type === "credit" && thread !== undefined) return thread.filler.grant(data.credit);
  const step = data.type === "credit"
    ? () => Promise.resolve(thread?.filler.grant(data.credit))
    : () => handle(data);
  last = last.then(step).catch((error) => scope.postMessage({ type: "failed", error: errorToWire(error) }));
};
