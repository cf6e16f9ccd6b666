/**
 * One session: from taking the lease to giving it up. Reads as the life of a run in docs/architecture.md:
 * open the store → take the lease → take over the head → decide and restore → run programs → stop, ship, release.
 * Nothing here blocks; heavy work is the archiver's. On doubt about the lease nothing is written any more.
 */

import type { Asker } from "../lease/types.ts";
import { assert } from "../platform/assert.ts";
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
import { crashReport } from "./crash_reports.ts";
import { endUnsaved, releaseLease, shipLastState, StopBudget } from "./last_state.ts";
import type { Opened } from "./opening.ts";
import { tellProcessEvent } from "./process_events.ts";
import type { Databases } from "./databases.ts";
import type { Pruner } from "./pruner.ts";
import type { Repairer } from "./repairer.ts";
import {
  beingStopped,
  notOpenYet,
  notReloadable,
  notRunning,
  notShipped,
  underWay,
} from "./session_errors.ts";
import { sessionStatus } from "./session_status.ts";
import type { Job, SessionEnd, SessionOptions, SessionStatus, Wakeup } from "./session_types.ts";
import { holdFor, type ProgramHold } from "./program_hold.ts";
import { Tenure } from "./tenure.ts";

export type { SessionEnd, SessionOptions } from "./session_types.ts";

const logger = log("session");

export class Session {
  readonly #options: SessionOptions;
  readonly #stop = new AbortController();
  readonly #tenure: Tenure;
  #wake: PromiseWithResolvers<Wakeup> = Promise.withResolvers();
  #job: Job | null = null;
  readonly #budget: StopBudget;
  #supervisor: Supervisor | null = null;
  #loop: CheckpointLoop | null = null;
  #state: ManagerState = "waiting";
  /** Who asked for the lease while something else was under way, or could not be given it yet. */
  #asker: Asker | null = null;
  readonly #closed = new AbortController();

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#budget = new StopBudget(options.clock, options.config.shutdown);
    this.#tenure = new Tenure({
      ...options,
      onState: (state, reason) => this.#setState(state, reason),
      onFenced: (error) => this.#onFenced(error),
      onSuspended: (error) => this.#onSuspended(error),
      onRenewed: (told) => this.#onRenewed(told),
      onAsked: (by) => this.#onAsked(by),
      hold: (databases, signal) => this.#hold(databases, signal),
    });
  }

  #hold(databases: Databases, signal: AbortSignal): ProgramHold | null {
    const supervisor = this.#supervisor;
    const { fenced } = this.#tenure;
    const leaseKnown = () => this.#leaseKnown().then(() => this.#tenure.doubt);
    const parts = { ...this.#options, supervisor, stopping: this.#stop.signal, fenced, leaseKnown };
    return holdFor(parts, databases, signal);
  }

  async run(): Promise<SessionEnd> {
    try {
      await this.#start();
      return await this.#runPrograms();
    } catch (error) {
      return await this.#endBadly(asStateManagerError(error));
    } finally {
      this.#job?.done.reject(beingStopped(this.#job.kind));
      this.#job = null;
      await this.#close();
    }
  }

  // ---- start

  async #start(): Promise<void> {
    const { checkpointer } = (await this.#tenure.open(this.#stop.signal)).opened;
    this.#loop = new CheckpointLoop({
      checkpointer,
      intervalMs: this.#options.config.checkpoint.intervalMs,
      schedule: this.#options.config.checkpoint.schedule,
      clock: this.#options.clock,
      log: logger,
      afterwards: () => void this.#tenure.opened?.pruner.turn(),
    });
  }

  /** Asked to stop, or the lease is lost. */
  get #ending(): AbortSignal {
    return AbortSignal.any([this.#stop.signal, this.#tenure.fenced]);
  }

  #setState(state: ManagerState, reason: string | null): void {
    this.#state = state;
    this.#options.onState(state, reason);
  }

  // ---- running

  async #runPrograms(): Promise<SessionEnd> {
    const opened = this.#need();
    let shipSoon = this.#tenure.restorer?.mustShip ?? false;
    while (true) {
      await this.#leaseKnown();
      // Sealed before any program can write: no earlier holder's commit can come between theirs.
      await opened.databases.follow(this.#ending);
      await this.#leaseKnown(); // it may have fallen into doubt meanwhile
      if (this.#stop.signal.aborted) {
        if (this.#supervisor === null) this.#stop.signal.throwIfAborted(); // nothing ran, nothing is to be shipped
        return await this.#finish(opened, await this.#stopPrograms());
      }
      this.#startPrograms();
      this.#loop?.start(shipSoon);
      const wakeup = await this.#nextWakeup();
      this.#loop?.stop();
      if (wakeup.kind === "fenced") throw wakeup.error;
      if (wakeup.kind === "job") {
        const { job } = wakeup;
        shipSoon = false;
        if (job.kind === "restore") {
          await this.#runRestore(job);
          continue;
        }
        const end = await this.#runRelease(job);
        if (end !== null) return end;
        continue;
      }
      if (wakeup.kind === "outcome") await this.#leaseKnown();
      const decided = wakeup.kind === "outcome" ? wakeup.outcome : null;
      const outcome = await this.#stopPrograms() ?? decided;
      return await this.#finish(opened, decided ?? outcome);
    }
  }

  #startPrograms(): void {
    this.#setState("starting", null);
    const { clock, logs, crashes } = this.#options;
    this.#options.configureLogs();
    const supervisor = new Supervisor({
      specs: this.#options.specs(),
      heldDown: this.#options.heldDown,
      notifyFolder: this.#options.dir.notify,
      clock,
      random: this.#options.random,
      output: logs.take,
      runId: this.#options.guard.runId,
      units: this.#options.guard.units,
      // After the step that caused it: what is to run again does so before its end is put down.
      onEvent: (event) =>
        queueMicrotask(() => {
          tellProcessEvent(event, this.#options.record);
          const lastOf = (name: string, limit: number) => logs.last(name, limit);
          const report = crashReport(event, this.#options.specs, clock.wallMs(), lastOf);
          if (report !== null) crashes.add(report);
        }),
    });
    this.#supervisor = supervisor;
    // The end of those that a restore stopped is not the end of these. Stops, jobs and fences are kept elsewhere too.
    this.#wake = Promise.withResolvers();
    // Looked at once more, by the clock itself: nothing starts without the lease.
    this.#need().lease.assertHeld();
    supervisor.start();
    this.#need().verifier.start();
    supervisor.outcome.then((outcome) => this.#wake.resolve({ kind: "outcome", outcome }));
    this.#setState("running", null);
    this.#options.onProgramsStarted();
  }

  async #nextWakeup(): Promise<Wakeup> {
    // What was asked for while nobody listened comes first; a fence beats all.
    if (this.#tenure.fenced.aborted) {
      return {
        kind: "fenced",
        error: asStateManagerError(this.#tenure.fenced.reason),
      };
    }
    if (this.#stop.signal.aborted) return { kind: "stop" };
    if (this.#job === null && this.#asker !== null) this.#prepareHandOver(this.#asker);
    if (this.#job !== null) return { kind: "job", job: this.#job };
    const wakeup = await this.#wake.promise;
    this.#wake = Promise.withResolvers();
    if (wakeup.kind !== "fenced" && this.#tenure.fenced.aborted) {
      return {
        kind: "fenced",
        error: asStateManagerError(this.#tenure.fenced.reason),
      };
    }
    return wakeup;
  }

  /**
   * The lease is suspended, and no program runs: they ended, stand still or did not start yet. What may be done is known
   * when it is proven ours again. Rejects when it is not. A stop ends the wait.
   */
  async #leaseKnown(): Promise<void> {
    const { clock } = this.#options;
    const isOpen = () => this.#tenure.lease?.state === "suspended" || this.#state === "frozen";
    while (isOpen() && !this.#stop.signal.aborted) {
      await clock.sleep(DEADLINE_CHECK_MS, { signal: this.#tenure.fenced });
    }
    this.#tenure.fenced.throwIfAborted();
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
    try {
      await supervisor.stop({ deadlineMonotonicMs: this.#budget.programsByMs });
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
    const failure = await shipLastState(opened, this.#options.config.checkpoint.onStop, this.#budget);
    // Where its loss ended the shipping, what is missing in the bucket is not ours to bring any more.
    const fenced = this.#tenure.fenced.aborted;
    const lost = await releaseLease(opened, this.#budget);
    if (lost !== null && fenced) throw lost;
    if (failure !== null) return endUnsaved(failure);
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

  // ---- jobs

  async #runRestore(job: Job & { kind: "restore" }): Promise<void> {
    try {
      const { restorer } = this.#tenure;
      assert(restorer !== null, "a running session has a restorer");
      const signal = AbortSignal.any([
        this.#stop.signal,
        this.#tenure.fenced,
        ...(job.work.signal ? [job.work.signal] : []),
      ]);
      this.#need().checkpointer.endPrune("a restore was asked for");
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
        this.#tenure.fenced.aborted
      ) throw error;
      logger.error("restore failed: programs start again on what is there", {
        error: asStateManagerError(error).message,
      });
      await this.#tenure.restorer?.recover(this.#ending);
    }
  }

  /**
   * Stop, ship, release: asked for by an operator, or by one that waits. Returns null when the last state could not be
   * shipped: the lease is kept, the programs go on and nothing is lost.
   */
  async #runRelease(job: Job & { kind: "release" | "hand-over" }): Promise<SessionEnd | null> {
    const opened = this.#need();
    await this.#stopPrograms();
    const failure = await shipLastState(opened, this.#options.config.checkpoint.onStop, this.#budget);
    if (failure !== null) {
      this.#job = null;
      job.done.reject(notShipped(job.kind, failure));
      if (!this.#stop.signal.aborted) return null;
      const fenced = this.#tenure.fenced.aborted;
      const lost = await releaseLease(opened, this.#budget);
      if (lost !== null && fenced) throw lost;
      return endUnsaved(failure);
    }
    // Before the release: if we die in between, the next start neither takes it nor asks for it back.
    if (job.kind === "release") await this.#options.persistReleased(true);
    else await this.#options.persistYielded(true);
    await releaseLease(opened, this.#budget, job.kind === "hand-over" ? job.to.holder : undefined);
    job.done.resolve();
    return { kind: job.kind === "release" ? "released" : "yielded" };
  }

  /** Somebody waits for this term and `lease.hand_over` allows it: as soon as nothing else is under way. */
  #onAsked(asker: Asker): void {
    if (this.#closed.signal.aborted) return;
    logger.info("another manager asks for the lease", { holder: asker.holder, ...asker.info });
    this.#asker = asker;
    if (this.#state !== "running" || this.#job !== null) return; // looked at again when it is
    this.#wake.resolve({ kind: "job", job: this.#prepareHandOver(asker) });
  }

  #prepareHandOver(to: Asker): Job {
    const done = Promise.withResolvers<void>();
    const job: Job = { kind: "hand-over", to, done };
    this.#asker = null;
    this.#job = job;
    const { clock } = this.#options;
    done.promise.catch(async (error) => {
      logger.error("hand-over failed, it is tried again", {
        error: asStateManagerError(error).message,
        pause_ms: HAND_OVER_RETRY_MS,
      });
      await clock.sleep(HAND_OVER_RETRY_MS, { signal: this.#closed.signal });
      this.#onAsked(to);
    }).catch(() => {}); // the session ended first
    return job;
  }

  #enqueue(job: Job): void {
    if (this.#stop.signal.aborted || this.#closed.signal.aborted) throw beingStopped(job.kind);
    if (this.#job !== null) throw underWay(job.kind, this.#job.kind);
    this.#job = job;
    this.#wake.resolve({ kind: "job", job });
  }

  // ---- ends

  async #endBadly(error: StateManagerError): Promise<SessionEnd> {
    const job = this.#job;
    this.#job = null;
    if (job?.kind !== "release") job?.done.reject(error);
    try {
      return await this.#endFor(error, job);
    } finally {
      if (job?.kind === "release") job.done.reject(error); // unless it was done
    }
  }

  async #endFor(error: StateManagerError, job: Job | null): Promise<SessionEnd> {
    if (this.#tenure.fenced.aborted || error.code === "lease-lost") {
      this.#setState("fenced", error.message);
      this.#tenure.opened?.checkpointer.abort("the lease is lost");
      await this.#supervisor?.kill();
      return { kind: "ended", exitCode: new StateManagerError("lease-lost", "").meaning.exit, error };
    }
    await this.#supervisor?.kill();
    const opened = this.#tenure.opened;
    if (opened !== null) await releaseLease(opened, this.#budget);
    // That told whose the lease is: what failed may have failed for this.
    const { fenced } = this.#tenure;
    if (fenced.aborted) return await this.#endFor(asStateManagerError(fenced.reason), job);
    if (this.#stop.signal.aborted) {
      if (job?.kind === "release") {
        job.done.resolve();
        return { kind: "released" };
      }
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
    this.#closed.abort();
    this.#loop?.stop();
    await this.#tenure.close();
  }

  // ---- from outside

  /** SIGTERM: stop in order within the budget. */
  requestStop(): void {
    this.#budget.begin();
    this.#stop.abort(new StateManagerError("cancelled", "stop requested"));
    this.#tenure.opened?.verifier.stop();
    this.#wake.resolve({ kind: "stop" });
    this.#supervisor?.shortenStop(this.#budget.programsByMs);
  }

  hurry(): void {
    this.#supervisor?.hurry();
  }

  /** False where no program wants it. */
  forward(signal: Deno.Signal): boolean {
    return this.#supervisor?.forward(signal) ?? false;
  }

  async checkpoint(
    request: CheckpointRequest,
    work: LongWork,
  ): Promise<CheckpointResult> {
    this.#needRunning("make checkpoint");
    return await this.#need().checkpointer.create("request", request, {
      ...work,
      always: true,
    });
  }

  /** `wrong-state` until it is open. */
  get opened(): Opened {
    return this.#need();
  }

  #needRunning(action: string): void {
    if (this.#state !== "running") throw notRunning(action, this.#state);
  }

  /** The programs while they run. `action` is what is asked of them. */
  programs(action: string): Supervisor {
    this.#needRunning(action);
    assert(this.#supervisor !== null, "a running session has a supervisor");
    return this.#supervisor;
  }

  /** The store's credentials have changed. */
  renewCredentials(): void {
    this.#tenure.opened?.databases.renewCredentials();
  }

  /** The programs that run; null: none do, the next start asks for the specs. `busy`: they are on their way. */
  get programsIfAny(): Supervisor | null {
    if (this.#state === "running") return this.#supervisor;
    if (this.#state === "waiting" || this.#state === "restoring") return null;
    throw notReloadable(this.#state, this.#stop.signal.aborted);
  }

  /** `action` is what is asked of it. `wrong-state` while a restore or a stop has the repository to itself. */
  pruner(action: string): Pruner {
    this.#needRunning(action);
    return this.#need().pruner;
  }

  /** As `pruner`. */
  repairer(action: string): Repairer {
    this.#needRunning(action);
    return this.#need().repairer;
  }

  async restore(
    request: RestoreRequest,
    work: LongWork,
  ): Promise<RestoreResult> {
    const { restorer } = this.#tenure;
    this.#needRunning("restore");
    assert(restorer !== null, "a running session has a restorer");
    if (request.dryRun) return await restorer.plan(request, work);
    await restorer.check(request);
    this.#needRunning("restore"); // still
    const done = Promise.withResolvers<RestoreResult>();
    this.#enqueue({ kind: "restore", request, work, done });
    return await done.promise;
  }

  /** Resolves when the lease is given back; rejects with why it is kept. One that is under way is joined. */
  async release(): Promise<void> {
    if (this.releasing !== null) return await this.releasing;
    const done = Promise.withResolvers<void>();
    done.promise.catch(() => {}); // awaited below, and by who joins
    if (this.#supervisor === null && (this.#state === "waiting" || this.#state === "restoring")) {
      if (this.#stop.signal.aborted) throw beingStopped("release");
      this.#job = { kind: "release", done };
      try {
        await this.#options.persistReleased(true);
      } catch (error) {
        if (this.#job?.done === done) this.#job = null;
        throw error;
      }
      // Nothing ran yet. Where programs have begun meanwhile, it is done like any other.
      const asked = new StateManagerError("cancelled", "release requested");
      if (this.#supervisor === null) this.#stop.abort(asked);
    } else this.#enqueue({ kind: "release", done });
    await done.promise;
  }

  /** The release that is under way; null: none is. */
  get releasing(): Promise<void> | null {
    return this.#job?.kind === "release" ? this.#job.done.promise : null;
  }

  readiness(): HealthCheck[] {
    return (this.#supervisor?.status() ?? []).map((process) => ({
      name: `process ${process.name}`,
      ok: process.ready || process.state === "completed",
      detail: process.probeFailure === null ? process.state : `${process.state}; ${process.probeFailure}`,
    }));
  }

  status(): SessionStatus {
    return sessionStatus({
      config: this.#options.config,
      store: this.#tenure.store,
      opened: this.#tenure.opened,
      restorer: this.#tenure.restorer,
      supervisor: this.#supervisor,
      lease: this.#tenure.lease,
      nextCheckpointMs: this.#loop?.nextWallMs ?? null,
    });
  }

  #need(): Opened {
    if (this.#tenure.opened === null) throw notOpenYet();
    return this.#tenure.opened;
  }

  // ---- events

  /** The deadline passed with no renewal: from here on nothing may be written by anybody of ours. */
  #onSuspended(error: string): void {
    this.#loop?.stop();
    // No program runs and every write asks for the lease: it may come back.
    if (this.#state === "restoring") return;
    const running = this.#state === "running" &&
      this.#options.config.lease.onUnreachable === "freeze";
    if (!running) return this.#tenure.fence(error);
    this.#setState("frozen", `lease could not be renewed: ${error}`);
    this.#supervisor?.freeze("lease");
    // What stands still may stay: it is either thawed when the lease is proven ours, or killed when it is lost, and the
    // guard still kills it should we die.
    this.#tenure.excuse();
    void this.#keepFrozen();
  }

  /** A program that was forked while its group was being stopped, or that somebody else woke, is stopped again. */
  async #keepFrozen(): Promise<void> {
    const { clock } = this.#options;
    while (this.#state === "frozen" && !this.#closed.signal.aborted) {
      await clock.sleep(FREEZE_AGAIN_MS, { signal: this.#closed.signal }).catch(() => {});
      if (this.#state === "frozen") this.#supervisor?.freeze("lease");
    }
  }

  /** The lease is proven ours. The guard knows until when before anything that was frozen goes on. */
  #onRenewed(told: Promise<void>): void {
    if (this.#state === "frozen") told.then(() => this.#thaw(), () => this.#thaw());
  }

  #thaw(): void {
    const { lease } = this.#need();
    if (this.#state !== "frozen" || lease.status.state !== "held") return; // gone again meanwhile: the next renewal
    this.#setState("running", null);
    this.#supervisor?.thaw("lease");
    this.#loop?.start(true);
  }

  /** Programs first: they are what may still write. Not awaited, #endBadly waits for the last of them. */
  #onFenced(error: StateManagerError): void {
    this.#supervisor?.kill().catch(() => {});
    this.#wake.resolve({ kind: "fenced", error });
  }
}

const DEADLINE_CHECK_MS = 50;
/** A look at all processes, while nothing else is to be done. */
const FREEZE_AGAIN_MS = 500;
/** After a hand-over that failed since the store did not take the last state. */
const HAND_OVER_RETRY_MS = 30_000;
