/**
 * One followed database, from when it is told of until it is let go: one loop captures what is committed into local
 * files (follow_capture.ts), another sends them (follow_ship.ts). Each has its own errors and pauses; neither ever
 * gives up, and none of it touches another database. If the process dies anywhere in here, local files and the store
 * say where to go on.
 */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { fileStamp } from "../platform/file_stamp.ts";
import { errorToWire } from "../platform/wire_error.ts";
import { CaptureLoop } from "./follow_capture.ts";
import { LagAccount } from "./follow_lag.ts";
import type { Places } from "./follow_places.ts";
import { Pins } from "./follow_pins.ts";
import type { UnitParts } from "./follow_ports.ts";
import type { DatabaseState, DatabaseStatus, FollowedDatabase, FollowEvent } from "./follow_protocol.ts";
import type { SyncResult } from "./follower_types.ts";
import { ShipLoop } from "./follow_ship.ts";
import type { SlotEnd } from "./slot_rules.ts";

export interface UnitEnvironment {
  readonly parts: UnitParts;
  readonly clock: Clock;
  /** For files too large to be in memory for each database at once. */
  readonly places: Places;
  /** Captured and not durable, of all databases. */
  readonly backlogBytes: () => number;
  readonly onChange: () => void;
  readonly onEvent: (event: FollowEvent) => void;
  readonly onFenced: (error: StateManagerError) => void;
}

/** What a seal of one database came to. */
export type SealOutcome =
  | { readonly kind: "sealed"; readonly txid: number }
  /** A former holder's commit counts, or the store is ahead of this machine: restore to `txid` first. */
  | { readonly kind: "absorbed"; readonly txid: number }
  /** There is no file yet; its first commit will be in our term. */
  | { readonly kind: "absent" };

export class FollowUnit {
  readonly database: FollowedDatabase;
  readonly #pins: Pins;
  readonly #environment: UnitEnvironment;
  readonly #stop = new AbortController();
  readonly #lag: LagAccount;
  readonly #capture: CaptureLoop;
  readonly #ship: ShipLoop;
  #life: Promise<void> = Promise.resolve();
  #syncs = 0;
  #errors = 0;
  #end: SlotEnd | null = null;
  #isFinished = false;
  #lastError: DatabaseStatus["lastError"] = null;
  #warnings: readonly string[] = [];
  #compactorErrors = 0;
  #lostPins = "";

  constructor(database: FollowedDatabase, behindSinceMs: number | null, environment: UnitEnvironment) {
    this.database = database;
    this.#pins = new Pins(database.pins);
    this.#environment = environment;
    const { clock, parts, places, backlogBytes } = environment;
    const foundSinceMs = behindSinceMs ?? clock.monotonicMs();
    this.#lag = new LagAccount(foundSinceMs);
    this.#capture = new CaptureLoop({
      path: database.path,
      syncIntervalMs: database.syncIntervalMs,
      clock,
      lag: this.#lag,
      backlogBytes,
      open: (signal) => parts.openCaptor(database, signal),
      onSeen: environment.onChange,
      onFile: () => {
        this.#syncs++;
        this.#ship.wake();
      },
      onCaptured: (result) => this.#captured(result),
      onFailures: (failures, error) => this.#failures("capture", failures, error),
    });
    this.#ship = new ShipLoop({
      name: database.name,
      clock,
      lag: this.#lag,
      places,
      open: (captor, signal) => parts.openReplica(database, captor, () => this.#pins.all(), signal),
      onDurable: environment.onChange,
      onBehind: () => void this.#capture.capture({ force: false }).catch(() => {}), // the loop tries again
      onFailures: (failures, error) => this.#failures("send", failures, error),
      onEnd: (end) => this.#ends(end),
    });
  }

  get waitingBytes(): number {
    return this.#lag.waitingBytes;
  }

  start(): void {
    const { signal } = this.#stop;
    const shipping = this.#capture.opened.then(
      (captor) => this.#ship.run(captor, signal),
      (error) => this.#ship.abandon(error),
    );
    this.#life = Promise.all([this.#capture.run(signal), shipping]).then(() => {});
  }

  pin(pins: readonly number[]): void {
    this.#pins.keep(pins);
  }

  /** A cheap look, several times a second. */
  tick(nowMs: number): void {
    this.#capture.tick(nowMs);
    this.#ship.tick();
    this.#lookAtCompactor();
  }

  /** It tries again by itself and says nothing; what it cannot do yet makes nobody's commits late. */
  #lookAtCompactor(): void {
    const status = this.#ship.replica?.compactor.status();
    if (status === undefined) return;
    const { errors, lastError, unreachablePins } = status;
    if (errors > this.#compactorErrors && lastError !== null) {
      this.#failures("compact", errors - this.#compactorErrors, lastError.error);
    }
    this.#compactorErrors = errors;
    const lost = unreachablePins.join(", ");
    if (lost !== "" && lost !== this.#lostPins) {
      const { name } = this.database;
      this.#tell("error", "warning", `${name}: kept checkpoints at TXID ${lost} cannot be restored`);
    }
    this.#lostPins = lost;
  }

  /** A barrier for a checkpoint: what it gives stays restorable until a later checkpoint is kept. */
  async position(): Promise<number | null> {
    const captured = await this.#orEnd(this.#capture.capture({ force: false }));
    if (captured === null) return null;
    this.#pins.hold(captured); // before it can be merged with what comes after it
    const txid = await this.#orEnd(this.#ship.whenDurable(captured));
    this.#pins.hold(txid);
    return txid;
  }

  /** Resolves with the durable TXID when all that was committed before the call is in the store; null: no file. */
  async barrier(): Promise<number | null> {
    const txid = await this.#orEnd(this.#capture.capture({ force: false }));
    return txid === null ? null : await this.#orEnd(this.#ship.whenDurable(txid));
  }

  /** Resolves when a slot of the store holds a file of our own term. */
  async seal(): Promise<SealOutcome> {
    try {
      let txid = await this.#orEnd(this.#capture.capture({ force: false }));
      if (txid === null || this.#capture.captor?.status.state === "absent") return { kind: "absent" };
      // Files of earlier terms may still be under way; one of ours is enough, however often it is asked for.
      if (this.#syncs === 0) txid = await this.#orEnd(this.#capture.capture({ force: true })) ?? txid;
      return { kind: "sealed", txid: await this.#orEnd(this.#ship.whenDurable(txid)) };
    } catch (error) {
      if (this.#end?.kind !== "absorbed") throw error;
      return { kind: "absorbed", txid: this.#end.txid };
    }
  }

  /** The programs are stopped: the last capture, sent, and the database let go. The durable TXID; null: no file. */
  async finish(): Promise<number | null> {
    if (this.#isFinished) return this.#durableTxid;
    await this.barrier(); // errors are tried again here: a close is made once
    const captured = await this.#orEnd(this.#capture.close());
    const txid = captured === null ? null : await this.#orEnd(this.#ship.whenDurable(captured));
    await this.stop();
    this.#isFinished = true;
    this.#environment.onChange();
    return txid;
  }

  /** Lets go at once. */
  async stop(): Promise<void> {
    this.#stop.abort(new StateManagerError("cancelled", `follow ${this.database.name}: stopped`));
    await this.#life;
  }

  status(): DatabaseStatus {
    const { name, path } = this.database;
    const captor = this.#capture.captor?.status ?? null;
    const slots = this.#ship.replica?.slots.status() ?? null;
    const compactor = this.#ship.replica?.compactor.status() ?? null;
    const state = this.#state();
    return {
      name,
      path,
      state,
      journalMode: captor?.journal ?? null,
      txid: captor?.txid ?? 0,
      durableTxid: this.#durableTxid,
      behindSinceBootMs: state === "finished" || state === "waiting" ? null : this.#lag.behindSinceMs,
      walBytes: captor?.walBytes ?? 0,
      waitingFiles: this.#lag.waitingFiles,
      waitingBytes: this.#lag.waitingBytes,
      lastDurableMs: slots?.lastDurableMs ?? null,
      lastError: this.#lastError,
      lastSnapshot: compactor?.lastSnapshot ?? null,
      counts: {
        syncs: this.#syncs,
        snapshots: captor?.snapshots ?? 0,
        checkpoints: captor?.checkpoints ?? 0,
        compactions: (compactor?.merges ?? 0) + (compactor?.snapshots ?? 0),
        requests: (slots?.requests ?? 0) + (compactor?.requests ?? 0),
        sentBytes: (slots?.sentBytes ?? 0) + (compactor?.sentBytes ?? 0),
        errors: this.#errors,
      },
    };
  }

  get #durableTxid(): number {
    return this.#ship.replica?.slots.status().durableTxid ?? 0;
  }

  #state(): DatabaseState {
    if (this.#isFinished) return "finished";
    if (this.#end?.kind === "absorbed") return "absorbed";
    if (this.#capture.failures > 0 || this.#ship.isFailing) return "failing";
    const state = this.#capture.captor?.status.state;
    if (state === "absent" || (state === undefined && fileStamp(this.database.path) === null)) {
      return "waiting";
    }
    if (!this.#capture.hasProven) return "proving";
    return state === "copying" ? "copying" : "following";
  }

  #captured(result: SyncResult): void {
    const { name } = this.database;
    if (result.changed && result.snapshot !== null) {
      const { txid, snapshot: reason } = result;
      this.#tell("info", "snapshot", `${name}: all pages are sent (${reason}), as TXID ${txid}`);
    }
    const warnings = this.#capture.captor?.status.warnings ?? [];
    for (const warning of warnings) {
      if (!this.#warnings.includes(warning)) this.#tell("warn", "warning", `${name}: ${warning}`);
    }
    this.#warnings = warnings;
    this.#environment.onChange();
  }

  #failures(what: "capture" | "send" | "compact", failures: number, error: StateManagerError | null): void {
    const { name } = this.database;
    if (error === null) this.#tell("info", "recovered", `${name}: ${what} works again`);
    else {
      this.#errors++;
      const isNew = this.#lastError?.message !== error.message || failures === 1;
      this.#lastError = { ...errorToWire(error), atMs: this.#environment.clock.wallMs() };
      if (isNew) this.#tell("warn", "failed", `${name}: ${error.message}`, error.hint);
    }
    this.#environment.onChange();
  }

  #tell(level: FollowEvent["level"], kind: FollowEvent["kind"], message: string, hint?: string): void {
    this.#environment.onEvent({ level, kind, name: this.database.name, message, hint: hint ?? null });
  }

  /** Nothing is sent any more, so nothing is captured any more: the file is the manager's to replace. */
  #ends(end: SlotEnd): void {
    const { name } = this.database;
    this.#end = end;
    const error = endError(name, end);
    this.#stop.abort(error);
    if (end.kind === "fenced") this.#environment.onFenced(error);
    else this.#tell("warn", "warning", error.message, error.hint);
    this.#environment.onChange();
  }

  /** Both loops are stopped at the end, which is then what whoever waits for them is told. */
  async #orEnd<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      throw this.#end === null ? error : endError(this.database.name, this.#end);
    }
  }
}

function endError(name: string, end: SlotEnd): StateManagerError {
  if (end.kind === "fenced") {
    return new StateManagerError(
      "lease-lost",
      `follow ${name}: in the store TXID ${end.txid} is another holder's (${end.reason})`,
      { hint: "another manager has taken over: it goes on from what is in the store" },
    );
  }
  return new StateManagerError(
    "wrong-state",
    `follow ${name}: the store has TXID ${end.txid} of a former holder, which is not in this file`,
    { hint: "the database must be restored to it first" },
  );
}
