/**
 * One followed database, from when it is told of until it is let go: one loop captures what is committed into local
 * files (follow_capture.ts), another sends them (follow_ship.ts). Each has its own errors and pauses; neither ever
 * gives up, and none of it touches another database. If the process dies anywhere in here, local files and the store
 * say where to go on.
 *
 * Where too much waits for the store, both loops are ended as a crash would, the files of which no part was sent are
 * given up, and both begin anew: with a snapshot, since nothing proves the position any more.
 */

import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { fileStamp } from "../platform/file_stamp.ts";
import { errorToWire } from "../platform/wire_error.ts";
import { CaptureLoop } from "./follow_capture.ts";
import { LagAccount } from "./follow_lag.ts";
import { BACKLOG_MOST_BYTES, isBacklogOver, LOOK_INTERVAL_MS } from "./follow_pace.ts";
import type { Places } from "./follow_places.ts";
import { Pins } from "./follow_pins.ts";
import type { UnitParts } from "./follow_ports.ts";
import {
  addCounts,
  type DatabaseCounts,
  type DatabaseState,
  type DatabaseStatus,
  type FollowedDatabase,
  type FollowEvent,
  NO_COUNTS,
} from "./follow_protocol.ts";
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
  /** From here on a backlog is given up for a snapshot. */
  readonly backlogMostBytes?: number;
  readonly onChange: () => void;
  /** More of it is in the store, which the next look may be late to tell. */
  readonly onDurable: () => void;
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

/** A backlog that could not be given up (the disk fails) is left alone for so long. */
const GIVE_UP_INTERVAL_MS = 60_000;

export class FollowUnit {
  readonly database: FollowedDatabase;
  readonly #pins: Pins;
  readonly #environment: UnitEnvironment;
  #stop = new AbortController();
  #lag: LagAccount;
  #capture: CaptureLoop;
  #ship: ShipLoop;
  #life: Promise<void> = Promise.resolve();
  /** Loops that ended for new ones, and what they have counted. */
  #formerLives = 0;
  #formerCounts = NO_COUNTS;
  #formerDurable: { readonly txid: number; readonly atMs: number | null } = { txid: 0, atMs: null };
  #givingUp: Promise<void> | null = null;
  #gaveUpMs = -Infinity;
  #isStopped = false;
  #isFinishing = false;
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
    this.#lag = new LagAccount(behindSinceMs ?? environment.clock.monotonicMs());
    this.#capture = this.#newCapture();
    this.#ship = this.#newShip();
  }

  #newCapture(): CaptureLoop {
    const { clock, parts, backlogBytes, onChange } = this.#environment;
    return new CaptureLoop({
      path: this.database.path,
      syncIntervalMs: this.database.syncIntervalMs,
      clock,
      lag: this.#lag,
      backlogBytes,
      open: (signal) => parts.openCaptor(this.database, signal),
      onSeen: onChange,
      onFile: () => {
        this.#syncs++;
        this.#ship.wake();
      },
      onCaptured: (result) => this.#captured(result),
      onFailures: (failures, error) => this.#failures("capture", failures, error),
    });
  }

  #newShip(): ShipLoop {
    const { clock, parts, places, onDurable } = this.#environment;
    return new ShipLoop({
      name: this.database.name,
      clock,
      lag: this.#lag,
      places,
      open: (captor, signal) => parts.openReplica(this.database, captor, () => this.#pins.all(), signal),
      onDurable,
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

  want(txids: readonly number[]): void {
    this.#pins.want(txids);
  }

  pin(pins: readonly number[]): void {
    this.#pins.keep(pins);
  }

  /** A cheap look. Gives how long the next one may take to come. */
  tick(nowMs: number): number {
    if (this.#givingUp !== null) return LOOK_INTERVAL_MS;
    const pauseMs = this.#capture.tick(nowMs);
    this.#ship.tick();
    this.#lookAtCompactor();
    if (this.#isBacklogOver(nowMs)) this.#givingUp = this.#giveUpBacklog(nowMs);
    return pauseMs;
  }

  /** Nothing after it was sent: the slot after the durable one may be under way, and is, with its file, left alone. */
  get #keptTxid(): number {
    const { captor, keptTxid } = this.#capture;
    const slots = this.#ship.replica?.slots.status();
    const [first] = captor?.localFiles() ?? [];
    return slots === undefined ? Math.max(keptTxid, first?.txid ?? 0) : slots.durableTxid + 1;
  }

  #isBacklogOver(nowMs: number): boolean {
    const { backlogBytes, backlogMostBytes = BACKLOG_MOST_BYTES } = this.#environment;
    const { captor } = this.#capture;
    if (backlogBytes() < backlogMostBytes || captor === null || this.#isFinishing) return false;
    if (nowMs - this.#gaveUpMs < GIVE_UP_INTERVAL_MS || this.#stop.signal.aborted) return false;
    const keptTxid = this.#keptTxid;
    const { databasePages, pageSize } = captor.status;
    return isBacklogOver({
      backlogBytes: backlogBytes(),
      mostBytes: backlogMostBytes,
      unsentBytes: captor.localFiles().reduce(
        (sum, { txid, sizeBytes }) => txid > keptTxid ? sum + sizeBytes : sum,
        0,
      ),
      databaseBytes: (databasePages ?? 0) * (pageSize ?? 0),
    });
  }

  /** Never rejects. */
  async #giveUpBacklog(nowMs: number): Promise<void> {
    const { parts } = this.#environment;
    const { name } = this.database;
    const waitingBytes = this.#lag.waitingBytes;
    this.#stop.abort(new StateManagerError("cancelled", `follow ${name}: it begins anew with a snapshot`));
    await this.#life;
    const keptTxid = this.#keptTxid; // as it is now that nothing is sent any more
    try {
      await parts.dropAfter(this.database, keptTxid);
      const message =
        `${name}: ${waitingBytes} bytes wait for the store: a snapshot takes their place, points between are gone`;
      this.#tell("warn", "warning", message, "give the store more bandwidth, or see why it refuses");
    } catch (error) {
      this.#gaveUpMs = nowMs;
      this.#failures("capture", 1, asStateManagerError(error));
    }
    this.#givingUp = null;
    if (!this.#isStopped && this.#end === null) this.#beginAnew();
  }

  #beginAnew(): void {
    this.#formerCounts = addCounts(this.#formerCounts, this.#countsOfLife());
    const atMs = this.#ship.replica?.slots.status().lastDurableMs ?? this.#formerDurable.atMs;
    this.#formerDurable = { txid: this.#durableTxid, atMs };
    this.#formerLives++;
    this.#compactorErrors = 0;
    this.#stop = new AbortController();
    this.#lag = new LagAccount(this.#lag.behindSinceMs ?? this.#environment.clock.monotonicMs());
    this.#capture = this.#newCapture();
    this.#ship = this.#newShip();
    this.start();
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
    return await this.#orEnd(async () => {
      const captured = await this.#capture.capture({ force: false });
      if (captured === null) return null;
      this.#pins.hold(captured); // before it can be merged with what comes after it
      const txid = await this.#ship.whenDurable(captured);
      this.#pins.hold(txid);
      return txid;
    });
  }

  /** Resolves with the durable TXID when all that was committed before the call is in the store; null: no file. */
  async barrier(): Promise<number | null> {
    return await this.#orEnd(async () => {
      const txid = await this.#capture.capture({ force: false });
      return txid === null ? null : await this.#ship.whenDurable(txid);
    });
  }

  /** Resolves when a slot of the store holds a file of our own term. */
  async seal(): Promise<SealOutcome> {
    try {
      return await this.#orEnd<SealOutcome>(async () => {
        let txid = await this.#capture.capture({ force: false });
        if (txid === null || this.#capture.captor?.status.state === "absent") return { kind: "absent" };
        // Files of earlier terms may still be under way; one of ours is enough, however often it is asked for.
        if (this.#syncs === 0) txid = await this.#capture.capture({ force: true }) ?? txid;
        return { kind: "sealed", txid: await this.#ship.whenDurable(txid) };
      });
    } catch (error) {
      if (this.#end?.kind !== "absorbed") throw error;
      return { kind: "absorbed", txid: this.#end.txid };
    }
  }

  /** The programs are stopped: the last capture, sent, and the database let go. The durable TXID; null: no file. */
  async finish(): Promise<number | null> {
    if (this.#isFinished) return this.#durableTxid;
    await this.barrier(); // errors are tried again here: a close is made once
    this.#isFinishing = true;
    const txid = await this.#orEnd(async () => {
      const captured = await this.#capture.close();
      return captured === null ? null : await this.#ship.whenDurable(captured);
    });
    await this.stop();
    this.#isFinished = true;
    this.#environment.onChange();
    return txid;
  }

  /** Lets go at once. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#stop.abort(new StateManagerError("cancelled", `follow ${this.database.name}: stopped`));
    await this.#givingUp;
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
      lastDurableMs: slots?.lastDurableMs ?? this.#formerDurable.atMs,
      lastError: this.#lastError,
      lastSnapshot: compactor?.lastSnapshot ?? null,
      counts: {
        ...addCounts(this.#formerCounts, this.#countsOfLife()),
        syncs: this.#syncs,
        errors: this.#errors,
      },
    };
  }

  /** Of what the present loops have done; the rest is counted here. */
  #countsOfLife(): DatabaseCounts {
    const captor = this.#capture.captor?.status;
    const slots = this.#ship.replica?.slots.status();
    const compactor = this.#ship.replica?.compactor.status();
    return {
      ...NO_COUNTS,
      snapshots: captor?.snapshots ?? 0,
      checkpoints: captor?.checkpoints ?? 0,
      compactions: (compactor?.merges ?? 0) + (compactor?.snapshots ?? 0),
      requests: (slots?.requests ?? 0) + (compactor?.requests ?? 0),
      sentBytes: (slots?.sentBytes ?? 0) + (compactor?.sentBytes ?? 0),
    };
  }

  get #durableTxid(): number {
    return this.#ship.replica?.slots.status().durableTxid ?? this.#formerDurable.txid;
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

  /**
   * Both loops are stopped at the end, which is then what whoever waits for them is told. Where they are stopped to begin
   * anew, the new ones are asked.
   */
  async #orEnd<T>(ask: () => Promise<T>): Promise<T> {
    for (;;) {
      const lives = this.#formerLives;
      try {
        return await ask();
      } catch (error) {
        if (this.#end !== null) throw endError(this.database.name, this.#end);
        await this.#givingUp;
        if (lives === this.#formerLives) throw error;
      }
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
