/**
 * The loop that captures one database into local files: woken by cheap looks at its files, by whoever needs a capture,
 * and now and then for upkeep. An error is tried again with longer and longer pauses, for ever, on the same follower:
 * its reader in the database is what saves a snapshot.
 */

import type { Clock } from "../platform/clock.ts";
import type { StateManagerError } from "../platform/errors.ts";
import { type FileStamp, fileStamp, sameStamp } from "../platform/file_stamp.ts";
import { Bell } from "./follow_bell.ts";
import type { LagAccount } from "./follow_lag.ts";
import { isCaptureDue, LOOK_INTERVAL_MS, lookAfterMs, nextLookMs, type PaceFacts } from "./follow_pace.ts";
import type { Captor } from "./follow_ports.ts";
import { Persistence } from "./follow_persistence.ts";
import type { SyncResult } from "./follower_types.ts";

/** Times of files have whole milliseconds at best, and a kernel's tick of ten: a younger change is looked at again. */
const STAMP_DOUBT_MS = 50;
/** A log that nobody writes to is checkpointed when it is old; whether it is, is asked this often. */
const UPKEEP_INTERVAL_MS = 10_000;
/** Failures in a row after which whoever waits for a capture is told, instead of waiting on. */
const PATIENCE_FAILURES = 3;

export interface CaptureOptions {
  readonly path: string;
  readonly syncIntervalMs: number;
  readonly clock: Clock;
  readonly lag: LagAccount;
  /** Captured files of all databases that are not in the store. */
  readonly backlogBytes: () => number;
  readonly open: (signal: AbortSignal) => Promise<Captor>;
  /** It was seen to change. */
  readonly onSeen: () => void;
  /** There is a new local file. */
  readonly onFile: () => void;
  /** A capture has ended, with a new file or not. */
  readonly onCaptured: (result: SyncResult) => void;
  /** `failures` in a row; 0: it works again. */
  readonly onFailures: (failures: number, error: StateManagerError | null) => void;
}

interface Asking {
  /** Served by a capture that began after this many were asked. */
  readonly turn: number;
  readonly resolve: (txid: number | null) => void;
  readonly reject: (error: unknown) => void;
}

export class CaptureLoop {
  readonly #options: CaptureOptions;
  readonly #bell = new Bell();
  readonly #opened = Promise.withResolvers<Captor>();
  #captor: Captor | null = null;
  #asking: Asking[] = [];
  #turns = 0;
  #isForced = false;
  #isBusy = true;
  #hasProven = false;
  readonly #persistence: Persistence;
  /** When the capture began that made the newest file: what was committed since waits for the next. */
  #lastCaptureMs = -Infinity;
  #captureBeganMs = -Infinity;
  #lastUpkeepMs: number;
  #lastLookMs: number;
  /** The next look comes when the capture after the one that begins is due. */
  #isLookPutOff = false;
  #logStamp: FileStamp | null = null;
  #fileStamp: FileStamp | null = null;
  #capturedLogBytes = 0;
  /** Newest local file that was told of. */
  #countedTxid = 0;
  #keptTxid = 0;
  /** Changes of a copied database wait to settle: until they are taken it is looked at. */
  #isUnsettled = false;
  /** Wall clock, as the times of files; null: the last look left no doubt. */
  #doubtOverMs: number | null = null;
  #stop: AbortSignal | null = null;
  #closing: PromiseWithResolvers<number | null> | null = null;

  constructor(options: CaptureOptions) {
    this.#options = options;
    this.#persistence = new Persistence({
      clock: options.clock,
      onFailures: (failures, error) => {
        options.onFailures(failures, error);
        if (error !== null && failures >= PATIENCE_FAILURES) this.#rejectAll(error);
      },
    });
    this.#lastUpkeepMs = this.#lastLookMs = options.clock.monotonicMs();
    this.#opened.promise.catch(() => {}); // whoever needs it waits for it
  }

  get captor(): Captor | null {
    return this.#captor;
  }

  /** Resolves with the captor when its first capture has proven the position. */
  get opened(): Promise<Captor> {
    return this.#opened.promise;
  }

  /** Files up to here an earlier life may have sent. */
  get keptTxid(): number {
    return this.#keptTxid;
  }

  get hasProven(): boolean {
    return this.#hasProven;
  }

  get failures(): number {
    return this.#persistence.failures;
  }

  /** Until the signal aborts; then the database is let go. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    this.#stop = signal;
    try {
      const captor = this.#captor = await this.#persistence.run(signal, () => this.#options.open(signal));
      for (const file of captor.localFiles()) {
        this.#options.lag.found(file);
        this.#keptTxid = this.#countedTxid = file.txid;
      }
      await this.#persistence.run(signal, () => this.#capture(captor));
      this.#hasProven = true;
      this.#opened.resolve(captor);
      while (this.#closing === null) {
        this.#isBusy = false;
        await this.#bell.wait(signal);
        this.#isBusy = true;
        await this.#persistence.run(signal, () => this.#capture(captor));
      }
      await this.#close(captor, this.#closing);
    } catch (error) {
      this.#opened.reject(error);
      this.#closing?.reject(signal.reason ?? error);
      this.#rejectAll(signal.reason ?? error);
    }
    await this.#captor?.[Symbol.asyncDispose](); // as a crash would leave it: the next start proves the position
  }

  /** A cheap look. Gives how long the next one may take to come. */
  tick(nowMs: number): number {
    if (this.#isBusy) return LOOK_INTERVAL_MS;
    const { lag, onSeen } = this.#options;
    const wasBehind = lag.behindSinceMs !== null;
    lag.looked();
    const isChanged = this.#looksChanged();
    if (isChanged) lag.changed(this.#lastLookMs);
    if (isChanged || wasBehind !== (lag.behindSinceMs !== null)) onSeen();
    this.#lastLookMs = nowMs;
    const facts = this.#facts(nowMs);
    const isDue = (lag.hasUncaptured || this.#isDoubtOver()) && isCaptureDue(facts);
    const isUpkeepDue = nowMs - this.#lastUpkeepMs >= UPKEEP_INTERVAL_MS && this.#logBytes > 0;
    const isWanted = this.#asking.length > 0 || this.#isUnsettled;
    const isNeeded = isWanted || isDue || isUpkeepDue;
    if (isNeeded) this.#bell.ring();
    if (!lag.hasUncaptured) return LOOK_INTERVAL_MS;
    if (!isNeeded) return nextLookMs(facts);
    const pauseMs = isDue && !isWanted ? lookAfterMs(facts) : LOOK_INTERVAL_MS;
    this.#isLookPutOff = pauseMs > LOOK_INTERVAL_MS;
    return pauseMs;
  }

  /**
   * Resolves with the newest TXID when all that was committed before the call is in local files; null: there is no
   * database. With `force` a new file is made in any case. Rejects when it fails again and again.
   */
  async capture(options: { readonly force: boolean }): Promise<number | null> {
    this.#stop?.throwIfAborted();
    if (this.#captor === null && fileStamp(this.#options.path) === null) return null;
    if (this.#closing !== null) return await this.#closing.promise;
    this.#isForced ||= options.force;
    const { promise, resolve, reject } = Promise.withResolvers<number | null>();
    this.#asking.push({ turn: ++this.#turns, resolve, reject });
    this.#bell.ring();
    return await promise;
  }

  /** Nobody uses the database any more: after a last capture it is let go in order. Resolves as `capture`. */
  async close(): Promise<number | null> {
    this.#stop?.throwIfAborted();
    if (this.#captor === null && fileStamp(this.#options.path) === null) return null;
    this.#closing ??= Promise.withResolvers();
    this.#bell.ring();
    return await this.#closing.promise;
  }

  async #close(captor: Captor, closing: PromiseWithResolvers<number | null>): Promise<void> {
    try {
      const txid = await captor.close();
      this.#count(captor);
      for (const { resolve } of this.#asking) resolve(txid);
      closing.resolve(txid);
    } catch (error) {
      closing.reject(error);
      this.#rejectAll(error);
    }
  }

  /** One whole capture, in as many files as it takes, and what upkeep is due. */
  async #capture(captor: Captor): Promise<void> {
    const { clock, lag, onCaptured } = this.#options;
    const turn = this.#turns;
    const now = this.#asking.length > 0;
    const force = this.#isForced;
    this.#look();
    this.#captureBeganMs = clock.monotonicMs();
    lag.captureBegins();
    if (this.#isLookPutOff) lag.looksLater(this.#captureBeganMs);
    this.#isLookPutOff = false;
    try {
      for (let isFirst = true, more = true; more; isFirst = false) {
        this.#stop?.throwIfAborted();
        const result = force && isFirst ? await captor.touch() : await captor.sync({ now });
        more = result.changed && result.more;
        this.#isUnsettled = !result.changed && result.unsettled === true;
        this.#count(captor);
        onCaptured(result);
      }
      if (force) this.#isForced = false;
      if (!this.#isUnsettled) lag.captureEnds();
      this.#capturedLogBytes = captor.status.walFileBytes;
      this.#resolveUpTo(turn, captor.status.txid);
      await captor.checkpointIfNeeded(); // which may make a file of what came meanwhile
      this.#count(captor);
      this.#lastUpkeepMs = clock.monotonicMs();
    } catch (error) {
      this.#count(captor); // of those that were made before
      lag.captureFailed();
      throw error;
    }
  }

  /** Local files that were not there before. */
  #count(captor: Captor): void {
    const { lag, clock, onFile } = this.#options;
    const nowMs = clock.monotonicMs();
    for (const file of captor.localFiles()) {
      if (file.txid <= this.#countedTxid) continue;
      this.#countedTxid = file.txid;
      this.#lastCaptureMs = this.#captureBeganMs;
      lag.captured(file, nowMs);
      onFile();
    }
  }

  #resolveUpTo(turn: number, txid: number | null): void {
    const served = this.#asking.filter((each) => each.turn <= turn);
    this.#asking = this.#asking.filter((each) => each.turn > turn);
    for (const { resolve } of served) resolve(txid);
  }

  #rejectAll(error: unknown): void {
    const failed = this.#asking;
    this.#asking = [];
    for (const { reject } of failed) reject(error);
  }

  get #logBytes(): number {
    return this.#logStamp?.sizeBytes ?? 0;
  }

  #facts(nowMs: number): PaceFacts {
    const { lag, syncIntervalMs, backlogBytes } = this.#options;
    const grownBytes = this.#logBytes - this.#capturedLogBytes;
    return {
      sinceCaptureMs: nowMs - this.#lastCaptureMs,
      syncIntervalMs,
      waitingFiles: lag.waitingFiles,
      uncapturedBytes: grownBytes >= 0 ? grownBytes : this.#logBytes, // it began anew
      backlogBytes: backlogBytes(),
    };
  }

  /** Remembers how the files are now: what changes after this is not in the capture that begins. */
  #look(): void {
    const { path, clock } = this.#options;
    this.#logStamp = fileStamp(`${path}-wal`);
    this.#fileStamp = fileStamp(path);
    // A commit in the same tick as this look may leave size and times as they are.
    const newestMs = Math.max(this.#logStamp?.modifiedMs ?? 0, this.#fileStamp?.modifiedMs ?? 0);
    const overMs = newestMs + STAMP_DOUBT_MS;
    this.#doubtOverMs = clock.wallMs() < overMs ? overMs : null;
  }

  #looksChanged(): boolean {
    const { path } = this.#options;
    const [log, file] = [fileStamp(`${path}-wal`), fileStamp(path)];
    const isChanged = !sameStamp(log, this.#logStamp) || !sameStamp(file, this.#fileStamp);
    this.#logStamp = log;
    this.#fileStamp = file;
    return isChanged;
  }

  #isDoubtOver(): boolean {
    return this.#doubtOverMs !== null && this.#options.clock.wallMs() >= this.#doubtOverMs;
  }
}
