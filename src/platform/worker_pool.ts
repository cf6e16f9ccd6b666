/**
 * A few Workers of one module that take jobs: heavy synchronous work on every core. A job ends in its result or in an
 * error, never in silence: a Worker that throws outside of a job, dies, or holds a job beyond its limit ends the pool
 * with a clear error, and so does the signal. Jobs and results are structured clones; buffers may be transferred.
 *
 * The other side is `serveJobs`, called once by the Worker's module. Modules are found by `workerUrl`.
 */

import type { Clock } from "./clock.ts";
import { StateManagerError } from "./errors.ts";
import { errorFromWire, errorToWire, type WireError } from "./wire_error.ts";

/** The part of a Worker that a pool uses, so that tests can bring one that hangs or dies. */
export type PoolThread = Pick<
  Worker,
  "postMessage" | "terminate" | "onmessage" | "onmessageerror" | "onerror"
>;

export interface WorkerPoolOptions {
  /** For messages, e.g. "restore files". */
  readonly action: string;
  readonly start: () => PoolThread;
  /** Workers, at least 1. */
  readonly count: number;
  readonly clock: Clock;
  /** Ends the pool; jobs reject with its reason. */
  readonly signal: AbortSignal;
  /** Longest time for one job, its wait in the Worker's queue included. */
  readonly jobLimitMs?: number;
}

/**
 * One that runs, and more that wait for it or for the disk: no Worker idles, though whoever hands them out may be at work
 * itself for as long as a job or two take, and at the end none has much left while others idle.
 */
const JOBS_PER_WORKER = 5;
/** As long as the manager waits for a silent archiver: a disk that takes longer for a few megabytes is dead. */
const JOB_LIMIT_MS = 10 * 60 * 1000;

interface Job {
  readonly id: number;
  readonly job: unknown;
  readonly transfer: Transferable[];
  readonly resolve: (result: never) => void;
  readonly reject: (error: unknown) => void;
  startedMs: number;
}

interface Member {
  readonly thread: PoolThread;
  readonly running: Map<number, Job>;
}

type Answer =
  | { readonly id: number; readonly result: never }
  | { readonly id: number; readonly error: WireError };

export class WorkerPool<In, Out> implements Disposable {
  readonly #options: WorkerPoolOptions;
  readonly #members: Member[] = [];
  readonly #waiting: Job[] = [];
  readonly #watch = new AbortController();
  #jobs = 0;
  #ended: { readonly reason: unknown } | null = null;
  readonly #onAbort = () => this.#end(this.#options.signal.reason);

  constructor(options: WorkerPoolOptions) {
    this.#options = options;
  }

  /** Starts the Workers, which load their module while other work goes on. */
  start(): void {
    const { signal, count } = this.#options;
    signal.throwIfAborted();
    signal.addEventListener("abort", this.#onAbort, { once: true });
    for (let i = 0; i < count; i++) this.#members.push(this.#member());
    void this.#watchLimits();
  }

  #member(): Member {
    const { action, start } = this.#options;
    const thread = start();
    const member: Member = { thread, running: new Map() };
    const failed = (what: string) =>
      this.#end(
        new StateManagerError("internal", `${action}: a Worker failed: ${what}`, {
          hint: "try again; if it happens each time, the log of this run tells more about this machine",
        }),
      );
    thread.onmessage = (event: MessageEvent<Answer>) => this.#answered(member, event.data);
    thread.onmessageerror = () => failed("its answer cannot be read");
    thread.onerror = (event: ErrorEvent) => {
      event.preventDefault(); // unhandled it would end the process
      failed(event.message);
    };
    return member;
  }

  /** True where a Worker would get a job at once, to do it now or next. */
  get hasRoom(): boolean {
    return this.#waiting.length === 0 &&
      this.#members.some(({ running }) => running.size < JOBS_PER_WORKER);
  }

  /** Resolves with what the Worker's `handle` gives. What is in `transfer` is gone here afterwards. */
  run(job: In, transfer: Transferable[] = []): Promise<Out> {
    return new Promise<Out>((resolve, reject) => {
      if (this.#ended !== null) return reject(this.#ended.reason);
      this.#waiting.push({ id: ++this.#jobs, job, transfer, resolve, reject, startedMs: 0 });
      this.#dispatch();
    });
  }

  #dispatch(): void {
    while (this.#waiting.length > 0) {
      const member = this.#members.reduce((least, each) =>
        each.running.size < least.running.size ? each : least
      );
      if (member.running.size >= JOBS_PER_WORKER) return;
      const job = this.#waiting.shift();
      if (job === undefined) return;
      job.startedMs = this.#options.clock.monotonicMs();
      member.running.set(job.id, job);
      member.thread.postMessage({ id: job.id, job: job.job }, job.transfer);
    }
  }

  #answered(member: Member, answer: Answer): void {
    const job = member.running.get(answer.id);
    if (job === undefined) return;
    member.running.delete(answer.id);
    if ("error" in answer) job.reject(errorFromWire(answer.error));
    else job.resolve(answer.result);
    this.#dispatch();
  }

  async #watchLimits(): Promise<void> {
    const { clock, action, jobLimitMs = JOB_LIMIT_MS } = this.#options;
    const { signal } = this.#watch;
    while (!signal.aborted) {
      await clock.sleep(jobLimitMs / 10, { signal }).catch(() => {});
      const running = this.#members.flatMap((member) => [...member.running.values()]);
      const since = clock.monotonicMs() - jobLimitMs;
      if (signal.aborted || running.every((job) => job.startedMs > since)) continue;
      this.#end(
        new StateManagerError("local-io", `${action}: a Worker gave no answer within ${jobLimitMs} ms`, {
          hint: "look at the disk: a read or write on it may hang",
        }),
      );
    }
  }

  #end(reason: unknown): void {
    if (this.#ended !== null) return;
    this.#ended = { reason };
    this.#watch.abort();
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    for (const { thread, running } of this.#members) {
      thread.terminate();
      for (const job of running.values()) job.reject(reason);
      running.clear();
    }
    for (const job of this.#waiting.splice(0)) job.reject(reason);
  }

  /** Ends the Workers; what still runs is `cancelled`. */
  [Symbol.dispose](): void {
    this.#end(new StateManagerError("cancelled", `${this.#options.action}: the work has ended`));
  }
}

/** The part of a Worker's global that we use; the DOM's types describe a window. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<{ readonly id: number; readonly job: never }>) => void) | null;
  postMessage(answer: unknown, transfer: Transferable[]): void;
}

/** What a Worker gives back: buffers in `transfer` are moved, not copied. */
export interface Served<Out> {
  /** As a promise: the work on it is done but for waiting, and the next job may begin. */
  readonly result: Out | Promise<Out>;
  readonly transfer?: Transferable[];
}

/** The Worker's side: one job after the other is begun, in the order they came. Errors of `handle` reject the job at the caller. */
export function serveJobs<In, Out>(handle: (job: In) => Served<Out> | Promise<Served<Out>>): void {
  const scope = globalThis as unknown as WorkerScope;
  let last: Promise<void> = Promise.resolve();
  const refuse = (id: number, error: unknown) => scope.postMessage({ id, error: errorToWire(error) }, []);
  const answer = async (id: number, job: In) => {
    try {
      const { result, transfer = [] } = await handle(job);
      if (!(result instanceof Promise)) return scope.postMessage({ id, result }, transfer);
      result.then((out) => scope.postMessage({ id, result: out }, transfer))
        .catch((error) => refuse(id, error));
    } catch (error) {
      refuse(id, error);
    }
  };
  scope.onmessage = ({ data: { id, job } }) => {
    last = last.then(() => answer(id, job));
  };
}
