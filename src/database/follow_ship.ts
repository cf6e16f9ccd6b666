/**
 * The loop that sends the local files of one database to the store, in order, by the slot fence (slot_writer.ts). It
 * opens the replica when there is something to send, with pauses for ever while the store is away, and frees local
 * files when they are durable.
 */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { Bell } from "./follow_bell.ts";
import type { LagAccount } from "./follow_lag.ts";
import type { Places } from "./follow_places.ts";
import type { Captor, Replica } from "./follow_ports.ts";
import { Persistence } from "./follow_persistence.ts";
import type { LocalFile } from "./follower_types.ts";
import type { SlotEnd } from "./slot_rules.ts";

/** A file up to this size may be in memory for each database at once; larger ones take turns. */
const FREE_BYTES = 256 * 1024;

export interface ShipOptions {
  readonly name: string;
  readonly clock: Clock;
  readonly lag: LagAccount;
  /** For large files. */
  readonly places: Places;
  readonly open: (captor: Captor, signal: AbortSignal) => Promise<Replica | { readonly end: SlotEnd }>;
  readonly onDurable: () => void;
  /** Another capture is needed before anything is sent. */
  readonly onBehind: () => void;
  readonly onFailures: (failures: number, error: StateManagerError | null) => void;
  /** Nothing is sent any more. */
  readonly onEnd: (end: SlotEnd) => void;
}

export class ShipLoop {
  readonly #options: ShipOptions;
  readonly #bell = new Bell();
  readonly #opened = Promise.withResolvers<Replica>();
  #replica: Replica | null = null;
  readonly #persistence: Persistence;
  #errorsSeen = 0;
  #isFailing = false;
  /** Somebody asks what the store has, with or without something to send. */
  #isAsked = false;

  constructor(options: ShipOptions) {
    this.#options = options;
    this.#persistence = new Persistence(options);
    this.#opened.promise.catch(() => {});
  }

  get replica(): Replica | null {
    return this.#replica;
  }

  get isFailing(): boolean {
    return this.#persistence.failures > 0 || this.#isFailing;
  }

  /** There may be a new file. */
  wake(): void {
    this.#bell.ring();
  }

  /** There will be nothing to send. */
  abandon(reason: unknown): void {
    this.#opened.reject(reason);
  }

  /** When it resolves, all that was captured up to `txid` is in the store: at the TXID given back. */
  async whenDurable(txid: number): Promise<number> {
    this.#isAsked = true;
    this.#bell.ring();
    const { slots, firstTxid } = await this.#opened.promise;
    const wantedTxid = Math.max(txid, firstTxid);
    await slots.whenDurable(wantedTxid);
    return wantedTxid;
  }

  /** Until the signal aborts. Never rejects. */
  async run(captor: Captor, signal: AbortSignal): Promise<void> {
    try {
      while (captor.localFiles().length === 0 && !this.#isAsked) await this.#bell.wait(signal);
      const replica = await this.#persistence.run(signal, () => this.#options.open(captor, signal));
      if ("end" in replica) {
        this.#options.onEnd(replica.end); // which aborts
        signal.throwIfAborted();
        return;
      }
      this.#replica = replica;
      this.#opened.resolve(replica);
      void replica.slots.whenEnded({ signal }).then(this.#options.onEnd, () => {});
      let toldTxid = replica.baseTxid;
      if (replica.firstTxid > 0) this.#options.onBehind();
      else this.#options.lag.durable(toldTxid); // files found that the store has
      this.#options.onDurable();
      while (true) {
        for (const file of captor.localFiles()) {
          if (file.txid > toldTxid) {
            await this.#persistence.run(
              signal,
              () => this.#send(replica, captor, file, toldTxid + 1, signal),
            );
            toldTxid = file.txid;
          }
        }
        await this.#bell.wait(signal);
      }
    } catch (error) {
      this.#opened.reject(signal.reason ?? error);
    }
    await this.#replica?.[Symbol.asyncDispose]();
  }

  /** A cheap look at whether the writer is in trouble: it tries again by itself and says nothing. */
  tick(): void {
    if (this.#replica === null) return;
    const { errors, lastError, waitingFiles } = this.#replica.slots.status();
    if (errors > this.#errorsSeen && lastError !== null) {
      this.#isFailing = true;
      this.#options.onFailures(errors - this.#errorsSeen, lastError.error);
    } else if (this.#isFailing && waitingFiles === 0) this.#works();
    this.#errorsSeen = errors;
  }

  #works(): void {
    this.#isFailing = false;
    this.#options.onFailures(0, null);
  }

  async #send(
    { slots }: Replica,
    captor: Captor,
    file: LocalFile,
    wantedTxid: number,
    signal: AbortSignal,
  ): Promise<void> {
    const { name, places } = this.#options;
    if (file.txid !== wantedTxid) {
      throw new StateManagerError(
        "data-damaged",
        `follow ${name}: the store has all up to TXID ${wantedTxid - 1}, the next local file is ${file.txid}`,
        {
          hint:
            "files between them are lost: restore the database from the store, or adopt it under a new name",
        },
      );
    }
    const { txid, sizeBytes } = file;
    const isLarge = sizeBytes > FREE_BYTES;
    using _place = isLarge ? await places.take(signal) : null;
    slots.committed({ txid, sizeBytes });
    // Where it rejects, uploads have ended or are stopped, which others are told of.
    const durable = slots.whenDurable(txid, { signal }).then(() => this.#durable(captor, txid), () => {});
    if (isLarge) await durable;
  }

  #durable(captor: Captor, txid: number): void {
    const { lag, onDurable } = this.#options;
    lag.durable(txid);
    if (this.#isFailing) this.#works();
    const unneededTxid = this.#replica?.unneededUpTo(txid) ?? 0;
    // A file that stays is removed with the next one; it costs disk, nothing else.
    if (unneededTxid > 0) captor.deleteUpTo(unneededTxid).catch(() => {});
    onDurable();
  }
}
