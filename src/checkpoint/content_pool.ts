/**
 * Reads files for a checkpoint, in this thread or in several. Whoever reads, the parts of a file are the same, and each
 * new chunk is stored once. Memory is bounded by credits: a thread fills a pack only with a name from here, and gets a
 * new one when the store has acknowledged an earlier pack of it. A thread that fails, dies or falls silent fails the
 * operation.
 */

import type { Clock } from "../platform/clock.ts";
import { workerUrl } from "../platform/entry.ts";
import { StateManagerError } from "../platform/errors.ts";
import { type MemoryBlock, returnMemory, takeMemory } from "../platform/shared_memory.ts";
import { errorFromWire } from "../platform/wire_error.ts";
import type { ClaimTable } from "./claim_table.ts";
import type { Cipher } from "./cipher.ts";
import type { Compression } from "./compression.ts";
import { ContentReader, type DatabaseCopy, type FileOutcome, type ReadJob } from "./content_job.ts";
import type { FromWorker, ToWorker } from "./content_worker_protocol.ts";
import { decodeOutcomes } from "./outcome_wire.ts";
import type { PackCredit } from "./pack_filler.ts";
import type { PackSender } from "./pack_sender.ts";
import type { Pacer } from "./pacer.ts";
import { PACKS_PER_WORKER } from "./reading_plan.ts";
import { finishCopy } from "./sqlite_snapshot.ts";

export interface JobAnswer {
  /** One for each path; decoded at each call, since many answers may wait for their turn. */
  readonly outcomes: () => readonly FileOutcome[];
  readonly bytesRead: number;
}

export interface ContentPool {
  /** Jobs are begun in the order of the calls. A promise nobody awaits is no unhandled one. */
  read(job: ReadJob): Promise<JobAnswer>;
  /** Checks the copy of a database, in turn with the jobs; rejects with what is wrong with it. */
  check(copy: DatabaseCopy): Promise<void>;
  /** Few jobs follow: what the last ones read is sent at once, so that the store has little to do in the end. */
  allAsked(): void;
  /** After all jobs: hands what is left to the sender. */
  finish(): Promise<void>;
  /** Ends everything at once; what was read is garbage. */
  close(): void;
}

/** Reads one job after the other, here. */
export class LocalPool implements ContentPool {
  readonly #reader: ContentReader;
  #last: Promise<unknown> = Promise.resolve();
  #bytes = 0;

  constructor(sender: PackSender, pacer: Pacer) {
    this.#reader = new ContentReader({
      store: (chunk) => sender.storeData(chunk),
      pace: (bytes) => {
        this.#bytes += bytes;
        pacer.count(0, bytes);
        return both(pacer.turn(), sender.room());
      },
    });
  }

  read(job: ReadJob): Promise<JobAnswer> {
    const answer = this.#last.then(async () => {
      this.#bytes = 0;
      const outcomes = await this.#reader.read(job);
      return { outcomes: () => outcomes, bytesRead: this.#bytes };
    });
    this.#last = answer.catch(() => {}); // also: a promise nobody awaits is no unhandled one
    return answer;
  }

  check({ path, copy }: DatabaseCopy): Promise<void> {
    const checked = this.#last.then(() => finishCopy(path, copy));
    this.#last = checked.catch(() => {});
    return checked;
  }

  allAsked(): void {}

  async finish(): Promise<void> {
    await this.#last;
    this.close();
  }

  close(): void {
    this.#reader.close();
  }
}

function both(first: Promise<void> | null, second: Promise<void> | null): Promise<void> | null {
  if (first === null) return second;
  return second === null ? first : first.then(() => second);
}

/** Jobs that a thread has at one time: the next one is there when it ends one. */
const JOBS_PER_WORKER = 2;
/** A thread at work tells its progress every few milliseconds; one that does not for so long hangs (a dead disk). */
const SILENCE_LIMIT_MS = 10 * 60 * 1000;
const SILENCE_CHECK_MS = 5000;

export interface WorkerPoolOptions {
  readonly workers: number;
  readonly packBytes: number;
  /** Packs of each thread that the store has not acknowledged; left out: the fewest. */
  readonly packsPerWorker?: number;
  readonly compression: Compression;
  /** Made anew in each thread: its key goes there by message. */
  readonly cipher: Cipher;
  readonly claims: ClaimTable;
  readonly sender: PackSender;
  readonly pacer: Pacer;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly silenceLimitMs?: number;
  /** For tests: another thread in the place of ours. */
  readonly startThread?: () => Worker;
}

interface Waiting {
  readonly message: Extract<ToWorker, { type: "job" | "check" }>;
  readonly resolve: (answer: JobAnswer) => void;
  readonly reject: (error: unknown) => void;
}

const NO_ANSWER: JobAnswer = { outcomes: () => [], bytesRead: 0 };

class Thread {
  readonly worker: Worker;
  readonly waiting: Waiting[] = [];
  flushed: (() => void) | null = null;
  heardMs: number;

  constructor(worker: Worker, nowMs: number) {
    this.worker = worker;
    this.heardMs = nowMs;
  }

  send(message: ToWorker, transfer: Transferable[] = []): void {
    this.worker.postMessage(message, transfer);
  }
}

export class WorkerPool implements ContentPool {
  readonly #options: WorkerPoolOptions;
  readonly #threads: Thread[] = [];
  readonly #queue: Waiting[] = [];
  /** What the threads may write to, by address. After a failure it is nobody's: one may still be writing. */
  readonly #granted = new Map<bigint, MemoryBlock>();
  readonly #closed = new AbortController();
  #rejectFinish: ((error: unknown) => void) | null = null;
  #failure: { readonly error: unknown } | null = null;
  #allAsked = false;

  constructor(options: WorkerPoolOptions) {
    this.#options = options;
    for (let n = 0; n < options.workers; n++) this.#start();
    options.signal.addEventListener("abort", this.#onAbort, { once: true });
    this.#watch().catch(() => {}); // ends with the pool
  }

  read(job: ReadJob): Promise<JobAnswer> {
    return this.#ask({ type: "job", job });
  }

  allAsked(): void {
    this.#allAsked = true;
  }

  async check(copy: DatabaseCopy): Promise<void> {
    await this.#ask({ type: "check", copy });
  }

  #ask(message: Waiting["message"]): Promise<JobAnswer> {
    const { promise, resolve, reject } = Promise.withResolvers<JobAnswer>();
    promise.catch(() => {});
    if (this.#failure !== null) reject(this.#failure.error);
    else {
      this.#queue.push({ message, resolve, reject });
      this.#deal();
    }
    return promise;
  }

  async finish(): Promise<void> {
    if (this.#failure !== null) throw this.#failure.error;
    const failed = new Promise<never>((_, reject) => this.#rejectFinish = reject);
    const flushed = this.#threads.map((thread) =>
      new Promise<void>((resolve) => {
        thread.flushed = resolve;
        thread.send({ type: "flush" });
      })
    );
    await Promise.race([Promise.all(flushed), failed]);
    for (const memory of this.#granted.values()) returnMemory(memory); // no thread fills it any more
    this.close();
  }

  close(): void {
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    this.#closed.abort();
    for (const { worker } of this.#threads) worker.terminate();
    this.#fail(new StateManagerError("cancelled", "read files: the reading was ended"));
  }

  readonly #onAbort = () => this.#fail(this.#options.signal.reason);

  #start(): void {
    const { claims, cipher, compression, packBytes, clock, startThread } = this.#options;
    const { packsPerWorker = PACKS_PER_WORKER } = this.#options;
    const worker = startThread?.() ??
      new Worker(workerUrl("src/checkpoint/content_worker"), { type: "module" });
    const thread = new Thread(worker, clock.monotonicMs());
    worker.onmessage = (event: MessageEvent<FromWorker>) => this.#take(thread, event.data);
    worker.onerror = (event) => {
      event.preventDefault(); // unhandled it would end the process without a word
      this.#fail(lost(event.message));
    };
    worker.onmessageerror = () => this.#fail(lost("its answer cannot be read"));
    thread.send({ type: "start", claims: claims.shared, cipher: cipher.forWorker(), compression, packBytes });
    for (let n = 0; n < packsPerWorker; n++) this.#grant(thread, takeMemory(packBytes));
    this.#threads.push(thread);
  }

  #grant(thread: Thread, memory: MemoryBlock): void {
    const credit: PackCredit = { name: this.#options.sender.newName(), memory };
    this.#granted.set(memory.address, memory);
    thread.send({ type: "credit", credit });
  }

  /** Gives the threads what they have room for, the least busy first. */
  #deal(): void {
    for (let depth = 1; depth <= JOBS_PER_WORKER; depth++) {
      for (const thread of this.#threads) {
        const next = thread.waiting.length < depth ? this.#queue.shift() : undefined;
        if (next === undefined) continue;
        thread.heardMs = this.#options.clock.monotonicMs();
        thread.waiting.push(next);
        thread.send(next.message);
        if (this.#allAsked && this.#queue.length < JOBS_PER_WORKER * this.#threads.length) {
          thread.send({ type: "send" });
        }
      }
    }
  }

  #take(thread: Thread, message: FromWorker): void {
    if (this.#failure !== null) return;
    const { pacer, clock } = this.#options;
    thread.heardMs = clock.monotonicMs();
    switch (message.type) {
      case "progress":
        pacer.count(0, message.bytes);
        pacer.tell();
        return;
      case "pack":
        this.#send(thread, message.pack);
        return;
      case "done": {
        const waiting = thread.waiting.shift();
        this.#deal();
        waiting?.resolve({ outcomes: () => decodeOutcomes(message.outcomes), bytesRead: message.bytes });
        return;
      }
      case "checked": {
        const waiting = thread.waiting.shift();
        this.#deal();
        if (message.problem === null) waiting?.resolve(NO_ANSWER);
        else waiting?.reject(errorFromWire(message.problem));
        return;
      }
      case "flushed":
        thread.flushed?.();
        return;
      case "failed":
        this.#fail(errorFromWire(message.error));
    }
  }

  #send(thread: Thread, pack: Extract<FromWorker, { type: "pack" }>["pack"]): void {
    this.#granted.delete(pack.memory.address);
    // A put that fails ends the operation by the sender; here it only means that no credit comes back.
    this.#options.sender.submit(pack).then(
      () => {
        if (this.#failure === null) this.#grant(thread, pack.memory);
        else returnMemory(pack.memory);
      },
      (error) => this.#fail(error),
    );
  }

  #fail(error: unknown): void {
    if (this.#failure !== null) return;
    this.#failure = { error };
    this.#closed.abort();
    for (const thread of this.#threads) {
      thread.worker.terminate();
      for (const { reject } of thread.waiting.splice(0)) reject(error);
    }
    for (const { reject } of this.#queue.splice(0)) reject(error);
    this.#rejectFinish?.(error);
  }

  async #watch(): Promise<void> {
    const { clock, silenceLimitMs = SILENCE_LIMIT_MS } = this.#options;
    for (;;) {
      await clock.sleep(Math.min(SILENCE_CHECK_MS, silenceLimitMs), { signal: this.#closed.signal });
      const now = clock.monotonicMs();
      // A thread that waits for a credit is silent by right: the store's own limits bound that.
      const stuck = this.#threads.find((thread) =>
        thread.waiting.length > 0 && now - thread.heardMs > silenceLimitMs
      );
      if (stuck !== undefined && this.#options.sender.isIdle) {
        this.#fail(
          new StateManagerError("timeout", `read files: a thread said nothing for ${silenceLimitMs} ms`, {
            hint: "a disk that does not answer is the usual cause",
          }),
        );
      }
    }
  }
}

function lost(what: string): StateManagerError {
  return new StateManagerError("internal", `read files: a thread was lost: ${what}`, {
    hint: "try again; if memory is short, raise the container's limit",
  });
}
