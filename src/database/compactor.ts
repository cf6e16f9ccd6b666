/**
 * Merges the files of one database into higher levels and snapshots, and deletes what is not needed any more, under the
 * lease: compaction_rules.ts and retention_rules.ts decide, this executes over the holder's own listing. An idle database
 * costs no requests. A merge never takes the application's database: it is made of files that are in the store.
 *
 * Every output is read back from where it waits, whole, before it is put, and put only where nothing is; one that is
 * there already has the same TXIDs of the same chain, so it counts as done. If we die here, then at most a file is there
 * that the listing of the next holder shows, or one is left that it does not need.
 */

import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import type { LocalFiles } from "../platform/local_files.ts";
import { Turns } from "../platform/turns.ts";
import { settleAll } from "../platform/settle.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { earlierNowMs, storeNowMs } from "../storage/store_time.ts";
import type { Send } from "./compaction_source.ts";
import {
  COMPACTION_LEVELS,
  dueLevels,
  type Merge,
  nextDueMs,
  planMerge,
  planSnapshot,
} from "./compaction_rules.ts";
import type { CompactionLevel, CompactionTimes } from "./compaction_rules.ts";
import { mergeFiles, type MergeOutput } from "./compaction_merge.ts";
import { LTX_HEADER_BYTES, readHeader } from "./ltx/mod.ts";
import {
  COMMIT_LEVEL,
  replicaKey,
  type ReplicaPlace,
  SNAPSHOT_LEVEL,
  timestampMetadata,
} from "./replica_layout.ts";
import { chainDefects, type HolderListing, type ListingDefect, type ReplicaFile } from "./replica_listing.ts";
import type { SendWindow } from "./replica_window.ts";
import { deletableCommits, planRetention } from "./retention_rules.ts";
import { WHOLE_PUT_LIMIT_BYTES } from "./slot_writer.ts";

/** Requests for deletion at a time: enough that a day's worth goes in seconds, too few to crowd out the commits. */
const DELETES_AT_ONCE = 4;
/** Between two listings of one term: damage that stays must not cost requests all the time. */
const RELOAD_INTERVAL_MS = 60_000;

/**
 * A merge runs in the process of the followers: half of the 10 ms that one may be held up for, the rest is for the page
 * that is worked on then.
 */
const TURN_INTERVAL_MS = 5;

export interface CompactorOptions {
  readonly store: ObjectStore;
  readonly place: ReplicaPlace;
  /** Fencing token of the term, for the header of what is made here. */
  readonly token: number;
  readonly window: SendWindow;
  readonly listing: HolderListing;
  readonly clock: Clock;
  readonly files: LocalFiles;
  /** Path of a file of this database's own, for outputs too large for memory. */
  readonly scratchPath: string;
  readonly snapshotIntervalMs: number;
  readonly retentionMs: number;
  /** TXIDs of all kept checkpoints, and of those that are being made, from the moment that their TXID is known. */
  readonly pins: () => readonly number[];
  readonly levels?: readonly CompactionLevel[];
}

export interface CompactorStatus {
  /** Files made, in this life. */
  readonly merges: number;
  readonly snapshots: number;
  readonly deletedFiles: number;
  readonly readBytes: number;
  readonly sentBytes: number;
  readonly requests: number;
  readonly errors: number;
  readonly lastError: { readonly error: StateManagerError; readonly atMs: number } | null;
  readonly lastSnapshot: { readonly txid: number; readonly atMs: number } | null;
  /** What the levels show that a healthy replica does not have; merges stop before a gap. */
  readonly defects: readonly ListingDefect[];
  /** Kept checkpoints whose TXID cannot be restored. */
  readonly unreachablePins: readonly number[];
}

export class Compactor {
  readonly #options: CompactorOptions;
  readonly #levels: readonly CompactionLevel[];
  #times: CompactionTimes;
  /** Deletes whose outcome is not known; no plan counts on these objects any more. */
  readonly #doubtfulDeletes = new Set<string>();
  #counts = { merges: 0, snapshots: 0, deletedFiles: 0, readBytes: 0, sentBytes: 0, requests: 0, errors: 0 };
  /** The listing and the store disagree. */
  #listAgain = false;
  #listedMs: number;
  #lastError: CompactorStatus["lastError"] = null;
  #lastSnapshot: CompactorStatus["lastSnapshot"] = null;
  #defects: readonly ListingDefect[] = [];
  #unreachablePins: readonly number[] = [];

  constructor(options: CompactorOptions) {
    this.#options = options;
    this.#levels = options.levels ?? COMPACTION_LEVELS;
    this.#listedMs = options.clock.monotonicMs();
    // A restart is no reason for a snapshot of the whole database, nor to carry its seal through all levels at once.
    this.#times = Object.fromEntries(
      [...this.#levels.map(({ level }) => level), SNAPSHOT_LEVEL].flatMap((level) => {
        const newest = options.listing.newest(level);
        return newest === null ? [] : [[level, newest.modifiedMs]];
      }),
    );
    const newest = options.listing.newest(SNAPSHOT_LEVEL);
    if (newest !== null) this.#lastSnapshot = { txid: newest.maxTxid, atMs: newest.modifiedMs };
  }

  status(): CompactorStatus {
    return {
      ...this.#counts,
      lastError: this.#lastError,
      lastSnapshot: this.#lastSnapshot,
      defects: this.#defects,
      unreachablePins: this.#unreachablePins,
    };
  }

  /** Turns at the moments that the levels say, until the signal; never rejects. `gate` bounds the turns of many databases. */
  async run(
    signal: AbortSignal,
    gate: <T>(work: () => Promise<T>) => Promise<T> = (work) => work(),
  ): Promise<void> {
    const { clock, snapshotIntervalMs } = this.#options;
    while (!signal.aborted) {
      await gate(() => this.turn(signal));
      const nowMs = clock.wallMs();
      await clock.sleep(nextDueMs(snapshotIntervalMs, nowMs, this.#levels) - nowMs, { signal }).catch(
        () => {},
      );
    }
  }

  /** All that is due now. Errors are in the status; what failed is due again at the next turn. */
  async turn(signal: AbortSignal): Promise<void> {
    if (!this.#options.window.isOpen || this.#options.listing.files.length === 0) return;
    try {
      if (this.#listAgain) await this.#list(signal);
      for (const level of this.#due()) {
        const startMs = this.#options.clock.wallMs();
        if (level === SNAPSHOT_LEVEL) await this.#snapshot(signal);
        else await this.#compact(level, signal);
        // Only after everything worked: nothing is deleted in a turn in which anything could not be read or written.
        if (level === COMMIT_LEVEL + 1) await this.#deleteCommits(signal);
        if (level === SNAPSHOT_LEVEL) await this.#deleteOld(signal);
        this.#times = { ...this.#times, [level]: startMs };
      }
    } catch (error) {
      if (signal.aborted || isError(error, "lease-not-held")) return;
      this.#listAgain ||= isError(error, "object-not-found", "data-damaged");
      this.#counts.errors++;
      this.#lastError = { error: asStateManagerError(error, "internal"), atMs: this.#options.clock.wallMs() };
    }
  }

  /** Somebody deleted what we counted on, or a former holder's late request landed: look again, but not all the time. */
  async #list(signal: AbortSignal): Promise<void> {
    const { listing, store, clock } = this.#options;
    if (clock.monotonicMs() - this.#listedMs < RELOAD_INTERVAL_MS) return;
    this.#listedMs = clock.monotonicMs();
    await this.#sender(signal)((ended) => listing.reload(store, { signal: ended }));
    this.#listAgain = false;
  }

  /** A replica without a snapshot gets it first: the levels then begin after it instead of holding the database too. */
  #due(): readonly number[] {
    const { snapshotIntervalMs, clock, listing } = this.#options;
    const due = dueLevels(this.#times, snapshotIntervalMs, clock.wallMs(), this.#levels);
    const isFirst = due.includes(SNAPSHOT_LEVEL) && listing.newest(SNAPSHOT_LEVEL) === null;
    return isFirst ? [SNAPSHOT_LEVEL, ...due.filter((level) => level !== SNAPSHOT_LEVEL)] : due;
  }

  async #compact(level: number, signal: AbortSignal): Promise<void> {
    const { listing, pins } = this.#options;
    for (;;) {
      const { merge, gap } = planMerge(listing.files, level, new Set(pins()), this.#levels);
      this.#defects = chainDefects(listing.files);
      if (merge !== null) {
        await this.#make(merge, signal);
        this.#counts.merges++;
      } else if (gap !== null) {
        throw new StateManagerError(
          "data-damaged",
          `merge into level ${level}: no file holds TXID ${
            gap.afterTxid + 1
          }, the next one is ${gap.nextTxid}`,
          {
            hint:
              "something else deleted objects of this prefix; newer points than the gap cannot be restored",
          },
        );
      } else return;
    }
  }

  async #snapshot(signal: AbortSignal): Promise<void> {
    const { listing, clock } = this.#options;
    const merge = planSnapshot(listing.files);
    if (merge === null) return;
    await this.#make(merge, signal);
    this.#counts.snapshots++;
    this.#lastSnapshot = { txid: merge.maxTxid, atMs: clock.wallMs() };
  }

  async #make(merge: Merge, signal: AbortSignal): Promise<void> {
    const { store, token, files, scratchPath, place, listing, clock } = this.#options;
    const send = this.#sender(signal);
    await using output = await mergeFiles(merge, {
      store,
      send,
      token,
      files,
      scratchPath,
      pace: new Turns(TURN_INTERVAL_MS),
      signal,
    });
    this.#counts.readBytes += output.readBytes;
    const { minTxid, maxTxid, timestampMs } = output.header;
    const key = replicaKey(place, { level: merge.level, minTxid, maxTxid });
    let { sizeBytes } = output;
    try {
      await this.#put(key, output, send);
      this.#counts.sentBytes += sizeBytes;
    } catch (error) {
      if (!isError(error, "precondition-failed", "outcome-unknown")) throw error;
      sizeBytes = await this.#sizeOfSame(key, output, send, error);
    }
    listing.added({
      level: merge.level,
      minTxid,
      maxTxid,
      sizeBytes,
      timestampMs,
      modifiedMs: storeNowMs(store, clock),
    });
  }

  async #put(key: string, output: MergeOutput, send: Send): Promise<void> {
    const { store, place } = this.#options;
    const options = {
      condition: { absent: true },
      ...(place.layout === "bucket" ? { metadata: timestampMetadata(output.header.timestampMs) } : {}),
    } as const;
    const { sizeBytes } = output;
    if (sizeBytes <= WHOLE_PUT_LIMIT_BYTES) {
      const body = await output.whole();
      await send((signal) => store.put(key, body, { ...options, signal }));
    } else await send((signal) => store.putLarge(key, output.pieces(), { ...options, signal, sizeBytes }));
  }

  /** Size of what is there under `key`, which another merge of the same files made; throws `cause` when it is not that. */
  async #sizeOfSame(
    key: string,
    output: MergeOutput,
    send: Send,
    cause: unknown,
  ): Promise<number> {
    const range = { start: 0, end: LTX_HEADER_BYTES };
    const object = await send((signal) => this.#options.store.get(key, { range, signal }));
    const { minTxid, maxTxid, pageSize, commit } = readHeader(object.body, key);
    const wanted = output.header;
    const isSame = minTxid === wanted.minTxid && maxTxid === wanted.maxTxid && pageSize === wanted.pageSize &&
      commit === wanted.commit;
    if (isSame) return object.sizeBytes;
    throw new StateManagerError("data-damaged", `merge into ${key}: another object is there`, { cause });
  }

  async #deleteCommits(signal: AbortSignal): Promise<void> {
    const { listing, pins, store, clock } = this.#options;
    const nowMs = earlierNowMs(store, clock);
    await this.#delete(deletableCommits(listing.files, { pins: pins(), nowMs }), signal);
  }

  async #deleteOld(signal: AbortSignal): Promise<void> {
    const { listing, pins, store, clock, retentionMs } = this.#options;
    const nowMs = earlierNowMs(store, clock);
    const plan = planRetention(listing.files, { pins: pins(), nowMs, retentionMs });
    this.#unreachablePins = plan.unreachablePins;
    await this.#delete(plan.deletable, signal);
  }

  async #delete(files: readonly ReplicaFile[], signal: AbortSignal): Promise<void> {
    const { store, listing } = this.#options;
    for (const { key } of files) {
      listing.removed(key);
      this.#doubtfulDeletes.add(key);
    }
    const keys = [...this.#doubtfulDeletes];
    const send = this.#sender(signal);
    const work = async () => {
      for (let key = keys.shift(); key !== undefined; key = keys.shift()) {
        const wanted = key;
        await send((ended) => store.delete(wanted, { signal: ended }));
        this.#doubtfulDeletes.delete(wanted);
        this.#counts.deletedFiles++;
      }
    };
    await settleAll(Array.from({ length: DELETES_AT_ONCE }, work));
  }

  #sender(signal: AbortSignal): Send {
    return <T>(send: (signal: AbortSignal) => Promise<T>): Promise<T> => {
      this.#counts.requests++;
      return this.#options.window.within(signal, send);
    };
  }
}
