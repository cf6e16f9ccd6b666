/**
 * A session's hold on the prefix: opens the store, takes the lease, makes local state right as every start does, keeps
 * the guard and the databases told of the lease's deadline, and ends all writing when the lease is lost. What is done
 * with it, running programs (session.ts) or one restore (restore_once.ts), is its owner's.
 */

import type { Asker, LeaseEvent, LeaseStatus } from "../lease/types.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { CheckpointInProgress, CheckpointResult, ManagerState } from "./control.ts";
import type { Databases } from "./databases.ts";
import { type Opened, openSession } from "./opening.ts";
import type { ProgramHold } from "./program_hold.ts";
import { pruneEvent } from "./pruner.ts";
import { Restorer } from "./restorer.ts";
import type { SessionOptions } from "./session_types.ts";

export interface TenureOptions extends
  Pick<
    SessionOptions,
    | "config"
    | "dir"
    | "clock"
    | "random"
    | "credentials"
    | "holder"
    | "hostname"
    | "pid"
    | "guard"
    | "record"
    | "onWork"
    | "yielded"
    | "persistYielded"
    | "leaseMemory"
  > {
  /** `waiting`, and why, until the lease is ours; then `restoring`. */
  readonly onState: (state: ManagerState, reason: string | null) => void;
  /** Before anything else is ended: programs are what may still write. Called once. */
  readonly onFenced: (error: StateManagerError) => void;
  /** The deadline passed with no renewal: nothing may be written by anybody of ours until the lease is regained. */
  readonly onSuspended: (error: string) => void;
  /** The lease is proven ours; `told` settles when the guard knows until when. */
  readonly onRenewed: (told: Promise<void>) => void;
  readonly onAsked: (by: Asker) => void;
  /** Keeps the programs still for a checkpoint that is made while they run; null: none runs, or none need be. */
  readonly hold: (databases: Databases, signal: AbortSignal) => ProgramHold | null;
}

export class Tenure {
  readonly #options: TenureOptions;
  readonly #fenced = new AbortController();
  /** A new one when the lease is proven ours again. */
  #doubt = new AbortController();
  #opened: Opened | null = null;
  #restorer: Restorer | null = null;
  #store: string | null = null;
  #leaseStatus: () => LeaseStatus | null = () => null;
  /** Of the newest renewal. */
  #fenceAtMs: number | null = null;

  constructor(options: TenureOptions) {
    this.#options = options;
    options.guard.onKilled = () =>
      this.fence("the guard ended the programs, this manager was stopped too long");
  }

  /** Aborts with `lease-lost`. */
  get fenced(): AbortSignal {
    return this.#fenced.signal;
  }

  /** Aborts with `lease-not-held` when the lease falls into doubt; aborted as long as it is. */
  get doubt(): AbortSignal {
    return this.#doubt.signal;
  }

  /** Null until the lease is ours and the head is taken over. */
  get opened(): Opened | null {
    return this.#opened;
  }

  get restorer(): Restorer | null {
    return this.#restorer;
  }

  /** Description of the store as soon as it is asked. */
  get store(): string | null {
    return this.#store;
  }

  /** Null until the store has answered. */
  get lease(): LeaseStatus | null {
    return this.#leaseStatus();
  }

  /**
   * Resolves when all that a start has to make right is right; nothing runs and no database is followed yet. `stop` ends
   * the wait, and the restore of a start.
   */
  async open(stop: AbortSignal): Promise<{ readonly opened: Opened; readonly restorer: Restorer }> {
    const options = this.#options;
    options.onState("waiting", null);
    this.#tellGuard(null);
    const opened = await openSession({
      ...options,
      signal: stop,
      onLeaseEvent: (event) => this.#onLeaseEvent(event),
      onWaiting: (reason) => options.onState("waiting", reason),
      onStore: (description) => this.#store = description,
      onLease: (status) => this.#leaseStatus = status,
      fenceAtMs: () => this.#fenceAtMs,
      onDatabasesFenced: (error) => this.fence(error.message),
      onCaptured: (checkpoint) => this.#recordCaptured(checkpoint),
      onCheckpoint: (result) => this.#recordCheckpoint(result),
      onPruned: (result) => options.record(pruneEvent(result)),
    });
    this.#opened = opened;
    if (options.yielded()) await options.persistYielded(false);
    const over = AbortSignal.any([stop, this.fenced]);
    await options.guard.ready(over);
    options.onState("restoring", null);
    const restorer = new Restorer({ ...options, ...opened });
    this.#restorer = restorer;
    await restorer.prepareStart(over);
    return { opened, restorer };
  }

  /** The lease is lost, or we are not who we believe to be: nothing of ours is written from here on. */
  fence(reason: string): void {
    if (this.#fenced.signal.aborted) return;
    const error = new StateManagerError("lease-lost", `lease lost: ${reason}`, {
      hint:
        "another manager has taken over, or the store was out of reach for too long; start again to wait for the lease",
    });
    this.#options.onFenced(error);
    this.#opened?.databases.abandon();
    this.#opened?.checkpointer.abort("the lease is lost");
    this.#fenced.abort(error);
  }

  /** Frozen programs stand still: the guard need not end them at the deadline. */
  excuse(): void {
    this.#tellGuard(null);
  }

  async close(): Promise<void> {
    this.#options.guard.onKilled = null;
    this.#opened?.checkpointer.abort("the session ends");
    await this.#opened?.close();
    this.#tellGuard(null);
  }

  #tellGuard(killAtMs: number | null): void {
    void this.#options.guard.deadline(killAtMs);
  }

  #onLeaseEvent(event: LeaseEvent): void {
    const { onAsked, onRenewed, onState, onSuspended, guard, record } = this.#options;
    if (event.type === "renewed") { // each few seconds: no history
      if (this.#doubt.signal.aborted) this.#doubt = new AbortController();
      this.#fenceAtMs = event.fenceAtMs;
      this.#opened?.databases.deadline();
      return onRenewed(guard.deadline(event.killAtMs));
    }
    record({
      kind: "lease-term",
      subject: event.type === "acquired" ? String(event.term.token) : "",
      summary: `lease ${event.type}`,
      detail: { ...event },
    });
    switch (event.type) {
      case "waiting":
        return onState("waiting", event.heldBy === null ? null : `lease held by ${event.heldBy.holder}`);
      case "suspended":
        this.#doubt.abort(new StateManagerError("lease-not-held", `use lease: ${event.error}`));
        this.#opened?.checkpointer.abort("the lease could not be renewed");
        return onSuspended(event.error);
      case "asked":
        return onAsked(event.by);
      case "lost":
        return this.fence(event.error);
      default:
        return;
    }
  }

  #recordCaptured({ id, kind }: CheckpointInProgress): void {
    const summary = `checkpoint (${kind}) is captured; it counts when it is durable`;
    this.#options.record({ kind: "checkpoint", subject: id, summary, detail: { state: "local" } });
  }

  #recordCheckpoint({ checkpoint, totals, warnings }: CheckpointResult): void {
    this.#options.record({
      kind: "checkpoint",
      subject: checkpoint.id,
      summary: `checkpoint ${checkpoint.n} (${checkpoint.kind}) is durable`,
      detail: { ...totals, warnings: warnings.length, state: "durable" },
    });
  }
}
