/** What both ways to follow a database share: the local files, the note of positions, numbers and times. */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { LocalFiles } from "../platform/local_files.ts";
import type { FollowerConnection } from "./follower_connection.ts";
import { type PositionEntry, PositionNote } from "./follower_position.ts";
import type { FollowerLimits, FollowerOptions, FollowerStep, SyncResult } from "./follower_types.ts";
import type { SnapshotReason } from "./follow_rules.ts";
import { LocalLtx, type LtxPages } from "./local_ltx.ts";
import type { LtxHeaderInput } from "./ltx/mod.ts";
import { WAL_HEADER_BYTES } from "./wal_reader.ts";

/** What a new file says of itself besides its number, time and token. */
export interface NewFile {
  readonly pageSize: number;
  readonly commit: number;
  /** Where its pages came from; null: not from a log. */
  readonly log: {
    readonly offset: number;
    readonly size: number;
    readonly salt1: number;
    readonly salt2: number;
  } | null;
  readonly reason: SnapshotReason | null;
  readonly commits: number;
  readonly more: boolean;
  /** How far it goes. */
  readonly position: PositionEntry["position"];
  readonly beforeRename?: () => void;
}

export class FollowerContext {
  readonly path: string;
  readonly folder: string;
  readonly clock: Clock;
  readonly files: LocalFiles;
  readonly limits: FollowerLimits;
  readonly local: LocalLtx;
  readonly note: PositionNote;
  readonly signal: AbortSignal | undefined;
  readonly baseline: number | null;
  readonly #token: number;
  readonly #onStep: ((step: FollowerStep) => void) | undefined;
  #skipTo = 0;
  #afterMs: number;
  #snapshots = 0;
  lastSnapshot: { readonly txid: number; readonly reason: SnapshotReason } | null = null;
  /** All pages are wanted in the next file, whatever could be proven. */
  wanted: SnapshotReason | null = null;

  constructor(options: FollowerOptions, limits: FollowerLimits, files: LocalFiles) {
    this.path = options.path;
    this.folder = options.folder;
    this.clock = options.clock;
    this.files = files;
    this.limits = limits;
    this.local = new LocalLtx(`${options.folder}/ltx/0`, files);
    this.note = new PositionNote(`${options.folder}/position.json`, files);
    this.signal = options.signal;
    this.baseline = options.baseline;
    this.#afterMs = options.afterMs ?? 0;
    this.#token = options.token;
    this.#onStep = options.onStep;
  }

  step(step: FollowerStep): void {
    this.#onStep?.(step);
  }

  throwIfAborted(): void {
    if (this.signal?.aborted) throw new StateManagerError("cancelled", `follow ${this.path}: told to stop`);
  }

  async pause(ms: number): Promise<void> {
    try {
      await this.clock.sleep(ms, this.signal === undefined ? {} : { signal: this.signal });
    } catch {
      this.throwIfAborted();
    }
  }

  /** Newest local TXID, or the one that the database began with. */
  get txid(): number | null {
    return this.local.newest?.header.maxTxid ?? this.baseline;
  }

  /** Of the next file. */
  get nextTxid(): number {
    return Math.max(this.txid ?? 0, this.#skipTo) + 1;
  }

  get snapshots(): number {
    return this.#snapshots;
  }

  /** TXIDs up to `txid`, of `atMs`, are taken by others: the next file comes after it and holds all pages. */
  skipTo(txid: number, atMs: number): void {
    this.#skipTo = Math.max(this.#skipTo, txid);
    this.#afterMs = Math.max(this.#afterMs, atMs);
    this.wanted ??= "requested";
  }

  get unchanged(): SyncResult {
    return { changed: false, txid: this.txid };
  }

  #entry(connection: FollowerConnection, txid: number, file: NewFile): PositionEntry {
    const { dev, ino } = connection.opened;
    const { pageSize, position } = file;
    return { txid, dev: String(dev), ino: String(ino), pageSize, position, left: null };
  }

  /**
   * Writes the next local file; `adopt` is called when it has its name, also where making that durable then fails.
   * Its time is after that of the commit before, here or in the store, whatever the wall clock does.
   */
  async write(
    connection: FollowerConnection,
    file: NewFile,
    pages: LtxPages,
    adopt: () => void,
  ): Promise<SyncResult> {
    const txid = this.nextTxid;
    const { log, reason } = file;
    const former = Math.max(this.local.newest?.header.timestampMs ?? 0, this.#afterMs);
    const header: LtxHeaderInput = {
      pageSize: file.pageSize,
      commit: file.commit,
      minTxid: txid,
      maxTxid: txid,
      timestampMs: Math.max(Math.floor(this.clock.wallMs()), former + 1),
      walOffset: log?.offset ?? WAL_HEADER_BYTES, // a Litestream that takes over wants at least this
      walSize: log?.size ?? 0,
      salt1: log?.salt1 ?? 0,
      salt2: log?.salt2 ?? 0,
      nodeId: this.#token,
    };
    const onStep = (step: FollowerStep) => this.step(step);
    try {
      await this.local.write(header, pages, {
        signal: this.signal,
        onStep,
        beforeRename: async () => {
          file.beforeRename?.();
          // If we die after this, the note knows the file before and this one: whichever is there has its entry.
          await this.note.put(this.#entry(connection, txid, file));
          onStep("position-written");
        },
      });
    } finally {
      if (this.local.newest?.header.maxTxid === txid) {
        adopt();
        if (reason !== null) {
          this.#snapshots++;
          this.lastSnapshot = { txid, reason };
          this.wanted = null;
        }
      }
    }
    const sizeBytes = this.local.newest?.sizeBytes ?? 0;
    return { changed: true, txid, commits: file.commits, sizeBytes, snapshot: reason, more: file.more };
  }
}

class LogMovedError extends StateManagerError {
  constructor() {
    super("busy", "read log: it began anew meanwhile", { hint: "nothing to do: it is read again" });
  }
}

/** The log began anew while its pages were read: what was read is of no use. */
export function logMoved(): StateManagerError {
  return new LogMovedError();
}

export function isLogMoved(error: unknown): boolean {
  return error instanceof LogMovedError;
}

/** SQLite's index counts commits whose sums do not hold, and they cannot be taken in another way now. */
export function logUnreadable(why: string): StateManagerError {
  return new StateManagerError("busy", `read log: the sums of its last commits do not hold, and ${why}`, {
    hint: "an old SQLite wrote them: use a newer one in the program; they are taken when the log is taken in",
  });
}
