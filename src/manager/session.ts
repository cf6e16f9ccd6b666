/**
 * One session: from taking the lease to giving it up. Reads as the life of a run in docs/architecture.md:
 * open the store → take the lease → take over the head → decide and restore → run programs → stop, ship, release.
 * Nothing here blocks; heavy work is the archiver's. On doubt about the lease nothing is written any more.
 */

import type { CheckpointRecord } from "../checkpoint/types.ts";
import type { LeaseEvent, LeaseStatus } from "../lease/types.ts";
import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import { log } from "../platform/log.ts";
import { Supervisor } from "../supervisor/mod.ts";
import type { SupervisorOutcome } from "../supervisor/types.ts";
import { CheckpointLoop } from "./checkpoint_loop.ts";
import type {
  CheckpointRequest,
  CheckpointResult,
  HealthCheck,
  LongWork,
  ManagerState,
  RestoreRequest,
  RestoreResult,
} from "./control.ts";
import { currentRecord } from "./lineage.ts";
import { type Opened, openSession } from "./opening.ts";
import { tellProcessEvent } from "./process_events.ts";
import { processSpecs } from "./process_specs.ts";
import { Restorer } from "./restorer.ts";
import type { Job, SessionEnd, SessionOptions, SessionStatus, Wakeup } from "./session_types.ts";

export type { SessionEnd, SessionOptions } from "./session_types.ts";

/** The part of the budget that is the release's alone. */
const RELEASE_RESERVE_MS = 1000;
/** Taken off the budget for what follows the release: the server, the catalog and our own output. */
const EXIT_RESERVE_MS = 500;
/** Shortest time a release gets even when the budget is spent: one request. */
const RELEASE_MINIMUM_MS = 500;

const logger = log("session");

export class Session {
  readonly #options: SessionOptions;
  readonly #stop = new AbortController();
  readonly #fenced = new AbortController();
  #wake: PromiseWithResolvers<Wakeup> = Promise.withResolvers();
  #job: Job | null = null;
  /** Monotonic deadline of the whole stop; infinite until somebody outside asks for it. */
  #deadlineMs = Infinity;
  #opened: Opened | null = null;
  #supervisor: Supervisor | null = null;
  #restorer: Restorer | null = null;
  #loop: CheckpointLoop | null = null;
  #state: ManagerState = "waiting";
  #leaseStatus: () => LeaseStatus | null = () => null;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  async run(): Promise<SessionEnd> {
    try {
      await this.#start();
      return await this.#runPrograms();
    } catch (error) {
      return await this.#endBadly(asStateManagerError(error));
    } finally {
      await this.#close();
    }
  }

  // ---- start

  async #start(): Promise<void> {
    const options = this.#options;
    this.#setState("waiting", null);
    options.guard.deadline(null);
    this.#opened = await openSession({
      ...options,
      signal: this.#stop.signal,
      onLeaseEvent: (event) => this.#onLeaseEvent(event),
      onWaiting: (reason) => this.#setState("waiting", reason),
      onLease: (status) => this.#leaseStatus = status,
      onCheckpoint: ({ checkpoint, totals, warnings }) => {
        const summary = `checkpoint ${checkpoint.n} (${checkpoint.kind}) is durable`;
        const detail = { ...totals, warnings: warnings.length };
        options.record({ kind: "checkpoint", subject: checkpoint.id, summary, detail });
      },
    });
    await options.guard.ready();
    this.#setState("restoring", null);
    this.#restorer = new Restorer({ ...options, ...this.#opened });
    const signal = AbortSignal.any([this.#stop.signal, this.#fenced.signal]);
    await this.#restorer.prepareStart(signal);
    this.#loop = new CheckpointLoop({
      checkpointer: this.#opened.checkpointer,
      intervalMs: this.#options.config.checkpoint.intervalMs,
      clock: this.#options.clock,
      log: logger,
    });
  }

  #setState(state: ManagerState, reason: string | null): void {
    this.#state = state;
    this.#options.onState(state, reason);
  }

  // ---- running

  async #runPrograms(): Promise<SessionEnd> {
    const opened = this.#need();
    let shipSoon = this.#restorer?.mustShip ?? false;
    while (true) {
      this.#startPrograms();
      this.#loop?.start(shipSoon);
      const wakeup = await this.#nextWakeup();
      this.#loop?.stop();
      if (wakeup.kind === "fenced") throw wakeup.error;
      if (wakeup.kind === "job") {
        const { job } = wakeup;
        shipSoon = false;
        if (job.kind === "restore") await this.#runRestore(job);
        else if (await this.#runRelease(job)) return { kind: "released" };
        continue;
      }
      const decided = wakeup.kind === "outcome" ? wakeup.outcome : null;
      const outcome = await this.#stopPrograms() ?? decided;
      return await this.#finish(opened, decided ?? outcome);
    }
  }

  #startPrograms(): void {
    this.#setState("starting", null);
    const specs = processSpecs(this.#options.config, this.#options.environment);
    const supervisor = new Supervisor({
      specs,
      clock: this.#options.clock,
      random: this.#options.random,
      output: this.#options.output,
      runId: this.#options.guard.runId,
      units: this.#options.guard.units,
      onEvent: (event) => tellProcessEvent(event, this.#options.record),
    });
    this.#supervisor = supervisor;
    // The end of those that a restore stopped is not the end of these. Stops, jobs and fences are kept elsewhere too.
    this.#wake = Promise.withResolvers();
    // The lease may have gone while the restore's last write ran: nothing starts without it.
    this.#need().lease.assertHeld();
    supervisor.start();
    if (specs.length > 0) {
      supervisor.outcome.then((outcome) => this.#wake.resolve({ kind: "outcome", outcome }));
    }
    this.#setState("running", null);
    this.#options.onProgramsStarted();
  }

  async #nextWakeup(): Promise<Wakeup> {
    // What was asked for while nobody listened comes first; a fence beats all.
    if (this.#fenced.signal.aborted) {
      return {
        kind: "fenced",
        error: asStateManagerError(this.#fenced.signal.reason),
      };
    }
    if (this.#stop.signal.aborted) return { kind: "stop" };
    if (this.#job !== null) return { kind: "job", job: this.#job };
    const wakeup = await this.#wake.promise;
    this.#wake = Promise.withResolvers();
    if (wakeup.kind !== "fenced" && this.#fenced.signal.aborted) {
      return {
        kind: "fenced",
        error: asStateManagerError(this.#fenced.signal.reason),
      };
    }
    return wakeup;
  }

  async #stopPrograms(): Promise<SupervisorOutcome | null> {
    const supervisor = this.#supervisor;
    if (supervisor === null) return null;
    if (this.#state === "frozen") {
      // The lease is in doubt: to stop them in order they would have to run again. What they wrote is on the disk.
      this.#setState("stopping", "frozen programs are killed");
      await supervisor.kill();
      return await supervisor.outcome;
    }
    this.#setState("stopping", null);
    const { clock, config } = this.#options;
    const grace = Math.min(this.#deadlineMs, clock.monotonicMs() + LONGEST_STOP_MS) -
      config.shutdown.flushReserveMs;
    try {
      await supervisor.stop({ deadlineMonotonicMs: grace });
    } catch (error) {
      // Something outlived SIGKILL. What is on the disk is shipped all the same, as a crash would leave it.
      logger.error("a program could not be ended", { error: asStateManagerError(error).message });
      return null;
    }
    return await supervisor.outcome;
  }

  /** Everything is stopped: the last checkpoint, then the release. */
  async #finish(
    opened: Opened,
    outcome: SupervisorOutcome | null,
  ): Promise<SessionEnd> {
    const failure = await this.#shipLast(opened);
    await this.#releaseLease(opened);
    if (failure !== null) {
      const error = new StateManagerError(
        "state-not-saved",
        `stop: the last state is NOT in the bucket: ${failure.message}`,
        {
          hint: `the data is still in the local folders; start again with the same data dir (${
            failure.hint ?? "see the log"
          })`,
          cause: failure,
        },
      );
      logger.error(error.message, { hint: error.hint });
      return { kind: "ended", exitCode: error.meaning.exit, error };
    }
    const requested = this.#stop.signal.aborted;
    if (this.#options.mode === "server" && requested) {
      return { kind: "ended", exitCode: 0, error: null };
    }
    return {
      kind: "ended",
      exitCode: outcome?.exitCode ?? 0,
      error: outcome?.error ?? null,
    };
  }

  /** The checkpoint at stop. Returns why it failed, null when the bucket has everything. */
  async #shipLast(opened: Opened): Promise<StateManagerError | null> {
    if (!this.#options.config.checkpoint.onStop || opened.roots.length === 0) {
      return null;
    }
    const giveUp = new AbortController();
    const timer = this.#watchDeadline(RELEASE_RESERVE_MS, () => {
      giveUp.abort(
        new StateManagerError(
          "timeout",
          "last checkpoint: the shutdown budget ended first",
          {
            hint: "raise shutdown.budget and shutdown.flush_reserve to what the platform grants",
          },
        ),
      );
      opened.checkpointer.abort("the shutdown budget ended first");
    });
    try {
      await opened.checkpointer.idle(); // one by interval may still run: what it sent is not sent again
      giveUp.signal.throwIfAborted();
      await opened.checkpointer.create("stop", { comment: "", labels: {} }, {
        signal: giveUp.signal,
      });
      return null;
    } catch (error) {
      return asStateManagerError(error, "state-not-saved");
    } finally {
      clearInterval(timer);
    }
  }

  /** Calls `action` once when less than `reserveMs` of the budget is left; the budget may begin later (a late SIGTERM). */
  #watchDeadline(reserveMs: number, action: () => void): ReturnType<typeof setInterval> {
    const check = () => {
      if (this.#options.clock.monotonicMs() < this.#deadlineMs - reserveMs) {
        return;
      }
      clearInterval(timer);
      action();
    };
    const timer = setInterval(check, DEADLINE_CHECK_MS);
    return timer;
  }

  async #releaseLease(opened: Opened): Promise<void> {
    const left = this.#deadlineMs - this.#options.clock.monotonicMs();
    const timeoutMs = Math.max(
      RELEASE_MINIMUM_MS,
      Math.min(left, LONGEST_RELEASE_MS),
    );
    try {
      await opened.lease.release({ timeoutMs });
    } catch (error) {
      // Not fatal: the lease runs out by itself, the next holder waits for its TTL.
      logger.warn(
        "lease not released: the next holder waits until it expires",
        { error: asStateManagerError(error).message },
      );
    }
  }

  // ---- jobs

  async #runRestore(job: Job & { kind: "restore" }): Promise<void> {
    try {
      const restorer = this.#restorer;
      if (restorer === null) {
        throw new StateManagerError(
          "internal",
          "restore: no restorer in a running session",
        );
      }
      const signal = AbortSignal.any([
        this.#stop.signal,
        this.#fenced.signal,
        ...(job.work.signal ? [job.work.signal] : []),
      ]);
      await this.#need().checkpointer.idle();
      await this.#stopPrograms();
      this.#setState("restoring", null);
      const result = await restorer.restore(job.request, {
        ...job.work,
        signal,
      });
      this.#job = null;
      job.done.resolve(result);
    } catch (error) {
      this.#job = null;
      job.done.reject(error);
      if (
        isError(error, "lease-lost", "lease-not-held") ||
        this.#fenced.signal.aborted
      ) throw error;
      logger.error("restore failed: programs start again on what is there", {
        error: asStateManagerError(error).message,
      });
      await this.#restorer?.recover();
    }
  }

  /** Returns false when the last state could not be shipped: the programs go on and nothing is lost. */
  async #runRelease(job: Job & { kind: "release" }): Promise<boolean> {
    const opened = this.#need();
    await this.#stopPrograms();
    const failure = await this.#shipLast(opened);
    if (failure !== null && !this.#stop.signal.aborted) {
      this.#job = null;
      job.done.reject(
        new StateManagerError(
          "state-not-saved",
          `release lease: the last state is not in the bucket: ${failure.message}`,
          {
            hint: "the lease is kept and the programs run again; try once more when the store answers",
            cause: failure,
          },
        ),
      );
      return false;
    }
    await this.#options.persistReleased(true);
    await this.#releaseLease(opened);
    this.#job = null;
    job.done.resolve();
    return true;
  }

  #enqueue(job: Job): void {
    if (this.#job !== null) {
      throw new StateManagerError(
        "busy",
        `${job.kind}: a ${this.#job.kind} is under way`,
        { hint: "wait until it is done" },
      );
    }
    this.#job = job;
    this.#wake.resolve({ kind: "job", job });
  }

  // ---- ends

  async #endBadly(error: StateManagerError): Promise<SessionEnd> {
    const job = this.#job;
    this.#job = null;
    job?.done.reject(error);
    if (this.#fenced.signal.aborted || error.code === "lease-lost") {
      this.#setState("fenced", error.message);
      this.#opened?.checkpointer.abort("the lease is lost");
      await this.#supervisor?.kill();
      return {
        kind: "ended",
        exitCode: new StateManagerError("lease-lost", "").meaning.exit,
        error,
      };
    }
    await this.#supervisor?.kill();
    const opened = this.#opened;
    if (opened !== null) await this.#releaseLease(opened);
    if (this.#stop.signal.aborted) {
      if (job?.kind === "release") return { kind: "released" };
      // Asked to stop while waiting or restoring: nothing ran, nothing is unsaved.
      return {
        kind: "ended",
        exitCode: this.#options.mode === "run" ? 143 : 0,
        error: null,
      };
    }
    this.#setState("failed", error.message);
    return { kind: "ended", exitCode: error.meaning.exit, error };
  }

  async #close(): Promise<void> {
    this.#loop?.stop();
    await this.#opened?.close();
  }

  // ---- from outside

  /** SIGTERM: stop in order within the budget. */
  requestStop(): void {
    if (this.#deadlineMs === Infinity) {
      const { budgetMs } = this.#options.config.shutdown;
      this.#deadlineMs = this.#options.clock.monotonicMs() + budgetMs -
        Math.min(EXIT_RESERVE_MS, budgetMs / 4);
    }
    this.#stop.abort(new StateManagerError("cancelled", "stop requested"));
    this.#wake.resolve({ kind: "stop" });
    const { flushReserveMs } = this.#options.config.shutdown;
    this.#supervisor?.shortenStop(this.#deadlineMs - flushReserveMs);
  }

  hurry(): void {
    this.#supervisor?.hurry();
  }

  forward(signal: Deno.Signal): void {
    this.#supervisor?.forward(signal);
  }

  async checkpoint(
    request: CheckpointRequest,
    work: LongWork,
  ): Promise<CheckpointResult> {
    if (this.#state !== "running") {
      throw new StateManagerError(
        "wrong-state",
        `make checkpoint: the state is ${this.#state}, wanted running`,
        {
          hint: "wait until it is running, then ask again",
        },
      );
    }
    return await this.#need().checkpointer.create("request", request, {
      ...work,
      always: true,
    });
  }

  checkpoints(): readonly CheckpointRecord[] {
    return this.#need().head.head.checkpoints;
  }

  async restore(
    request: RestoreRequest,
    work: LongWork,
  ): Promise<RestoreResult> {
    const restorer = this.#restorer;
    if (this.#state !== "running" || restorer === null) {
      throw new StateManagerError(
        "wrong-state",
        `restore: the state is ${this.#state}, wanted running`,
        {
          hint: "wait until it is running, then ask again",
        },
      );
    }
    restorer.check(request);
    if (request.dryRun) return await restorer.plan(request, work);
    const done = Promise.withResolvers<RestoreResult>();
    this.#enqueue({ kind: "restore", request, work, done });
    return await done.promise;
  }

  async release(): Promise<void> {
    if (this.#state === "waiting" || this.#state === "restoring") {
      await this.#options.persistReleased(true);
      this.#job = { kind: "release", done: Promise.withResolvers<void>() };
      this.#job.done.promise.catch(() => {});
      this.#stop.abort(new StateManagerError("cancelled", "release requested"));
      return;
    }
    const done = Promise.withResolvers<void>();
    this.#enqueue({ kind: "release", done });
    await done.promise;
  }

  readiness(): HealthCheck[] {
    return (this.#supervisor?.status() ?? []).map((process) => ({
      name: `process ${process.name}`,
      ok: process.state === "running" || process.state === "completed",
      detail: process.state,
    }));
  }

  status(): SessionStatus {
    const opened = this.#opened;
    const checkpointer = opened?.checkpointer;
    const iso = (wallMs: number | null | undefined) =>
      wallMs === null || wallMs === undefined ? null : new Date(wallMs).toISOString();
    return {
      repoId: opened?.repo.repo_id ?? null,
      storage: opened === null ? null : {
        description: opened.store.description,
        key_prefix: this.#options.config.storage.keyPrefix,
      },
      lease: this.#leaseStatus(),
      processes: this.#supervisor?.status() ?? [],
      files: this.#restorer?.files() ?? [],
      checkpoint: {
        current: opened === null ? null : currentRecord(opened.head.head),
        last_finished: iso(checkpointer?.lastFinishedMs),
        last_error: checkpointer?.lastError?.message ?? null,
        running: checkpointer?.running ?? false,
        next: iso(this.#loop?.nextWallMs),
      },
      warnings: opened?.warnings ?? [],
    };
  }

  #need(): Opened {
    if (this.#opened === null) {
      throw new StateManagerError(
        "wrong-state",
        "session: the store is not open yet",
        { hint: "wait until it is running" },
      );
    }
    return this.#opened;
  }

  // ---- events

  /** What the guard is told of the lease's time belongs here: this hears of every change of it, in order. */
  #onLeaseEvent(event: LeaseEvent): void {
    if (event.type === "renewed") return; // each few seconds: no history
    this.#options.record({
      kind: "lease-term",
      subject: event.type === "acquired" ? String(event.term.token) : "",
      summary: `lease ${event.type}`,
      detail: { ...event },
    });
    switch (event.type) {
      case "waiting":
        return this.#setState(
          "waiting",
          event.heldBy === null ? null : `lease held by ${event.heldBy.holder}`,
        );
      case "suspended":
        return this.#onSuspended(event.error);
      case "regained":
        if (this.#state !== "frozen") return;
        this.#supervisor?.thaw();
        this.#loop?.start(true);
        return this.#setState("running", null);
      case "lost":
        return this.#fence(event.error);
      default:
        return;
    }
  }

  /** The deadline passed with no renewal: from here on nothing may be written by anybody of ours. */
  #onSuspended(error: string): void {
    this.#loop?.stop();
    this.#opened?.checkpointer.abort("the lease could not be renewed");
    const running = this.#state === "running" &&
      this.#options.config.lease.onUnreachable === "freeze";
    if (!running) return this.#fence(error);
    this.#supervisor?.freeze();
    this.#setState("frozen", `lease could not be renewed: ${error}`);
  }

  #fence(reason: string): void {
    if (this.#fenced.signal.aborted) return;
    const error = new StateManagerError("lease-lost", `lease lost: ${reason}`, {
      hint:
        "another manager has taken over, or the store was out of reach for too long; start again to wait for the lease",
    });
    // Programs first: they are what may still write. Not awaited, #endBadly waits for the last of them.
    this.#supervisor?.kill().catch(() => {});
    this.#opened?.checkpointer.abort("the lease is lost");
    this.#fenced.abort(error);
    this.#wake.resolve({ kind: "fenced", error });
  }
}

/** Without a budget (programs ended by themselves, a job) a stop still ends: the longest `timeout_stop` rules. */
const LONGEST_STOP_MS = 24 * 3600 * 1000;
const LONGEST_RELEASE_MS = 10_000;
const DEADLINE_CHECK_MS = 50;
