/**
 * The real parts of each followed database in this process: its follower, and its replica in the store with slot writer
 * and compactor. All requests go through the one window that the lease's deadline opens and closes.
 */

import type { Clock } from "../platform/clock.ts";
import { fileStamp } from "../platform/file_stamp.ts";
import { equalBytes } from "../platform/equal_bytes.ts";
import { removeIfPresent, syncFolder } from "../platform/files.ts";
import { type LocalFiles, systemFiles } from "../platform/local_files.ts";
import type { Random } from "../platform/random.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { Compactor } from "./compactor.ts";
import type { Places } from "./follow_places.ts";
import type { Captor, Replica, UnitParts } from "./follow_ports.ts";
import type { FollowedDatabase, FollowEvent } from "./follow_protocol.ts";
import { Follower } from "./follower.ts";
import { localFirst, openCommitFile } from "./follow_local.ts";
import { dropFilesAfter } from "./local_ltx.ts";
import { LTX_HEADER_BYTES, LTX_TRAILER_BYTES, readHeader } from "./ltx/mod.ts";
import { COMMIT_LEVEL, type ReplicaLayout } from "./replica_layout.ts";
import { HolderListing, type ReplicaFile } from "./replica_listing.ts";
import type { SendWindow } from "./replica_window.ts";
import { withTimes } from "./restore_fetch.ts";
import type { SlotBase, SlotEnd } from "./slot_rules.ts";
import { type LocalCommitFile, SlotWriter } from "./slot_writer.ts";

/** How often a file that is not there yet is looked for. */
const LOOK_INTERVAL_MS = 250;
/** Local files that wait for a compaction, for each database; beyond that they are read from the store. */
const KEPT_FILES = 128;

export interface FollowPartsOptions {
  /** With retries: for listings and compaction. */
  readonly store: ObjectStore;
  /** Without: every outcome is the slot writer's to judge. */
  readonly plainStore: ObjectStore;
  readonly layout: ReplicaLayout;
  readonly token: number;
  readonly window: SendWindow;
  readonly clock: Clock;
  readonly random: Random;
  /** The manager's, absolute. */
  readonly dataFolder: string;
  /** Compactions of all databases take turns. */
  readonly compactions: Places;
  readonly onEvent: (event: FollowEvent) => void;
  readonly files?: LocalFiles;
}

export class FollowParts implements UnitParts {
  readonly #options: FollowPartsOptions;
  readonly #files: LocalFiles;
  /** Made while the captor was opened, for the replica that is opened next. */
  readonly #listings = new Map<string, HolderListing>();

  constructor(options: FollowPartsOptions) {
    this.#options = options;
    this.#files = options.files ?? systemFiles;
  }

  async openCaptor(database: FollowedDatabase, signal: AbortSignal): Promise<Captor> {
    const { clock, token } = this.#options;
    const { path, journal, baseline, afterMs = 0 } = database;
    const follower = new Follower({
      path,
      folder: this.#folderOf(database),
      clock,
      baseline,
      afterMs,
      token,
      journal,
      files: this.#files,
      signal,
    });
    try {
      await follower.start();
      if (follower.status.txid !== null) return follower;
      // Nobody says which state it is in. What the store has under its name must stay before what is captured now.
      while (fileStamp(path) === null) await clock.sleep(LOOK_INTERVAL_MS, { signal });
      const listing = await this.#list(database, signal);
      this.#listings.set(database.name, listing);
      const newest = newestOf(listing);
      if (newest !== null) follower.requestSnapshot(newest.maxTxid, await this.#timeOf(newest, signal));
      return follower;
    } catch (error) {
      await follower[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * The note of the position goes first: without it the file that is the newest then proves nothing, and a snapshot
   * follows it. If we die in between, the next start takes that snapshot too, after a longer chain.
   */
  async dropAfter(database: FollowedDatabase, txid: number): Promise<void> {
    const folder = this.#folderOf(database);
    await removeIfPresent(`${folder}/position.json`, this.#files);
    await syncFolder(folder, this.#files);
    await dropFilesAfter(`${folder}/ltx/0`, txid, this.#files);
  }

  async openReplica(
    database: FollowedDatabase,
    captor: Captor,
    pins: () => readonly number[],
    signal: AbortSignal,
  ): Promise<Replica | { readonly end: SlotEnd }> {
    const { store, plainStore, token, window, clock, random, compactions } = this.#options;
    // What a former holder adds after it, the slots find.
    const listing = this.#listings.get(database.name) ?? await this.#list(database, signal);
    this.#listings.delete(database.name);
    const start = await this.#startOf(listing, captor, signal);
    if ("kind" in start) return { end: start };
    const baseTxid = start.base.txid;
    const firstTxid = start.isBehind ? baseTxid + 1 : 0;
    const shared = { place: listing.place, token, window, clock, listing };
    const slots = new SlotWriter({
      ...shared,
      store: plainStore,
      base: start.base,
      random,
      openLocal: (txid) => openCommitFile(captor, txid, this.#files),
    });
    slots.start();
    const scratchPath = `${this.#folderOf(database)}/merge.tmp`;
    await removeIfPresent(scratchPath, this.#files);
    const compactor = new Compactor({
      ...shared,
      store: localFirst(store, listing.place, captor, this.#files, firstTxid),
      files: this.#files,
      scratchPath,
      snapshotIntervalMs: database.snapshotIntervalMs,
      retentionMs: database.retentionMs,
      pins,
    });
    const stop = new AbortController();
    const running = compactor.run(stop.signal, async (work) => {
      using _place = await compactions.take(stop.signal);
      return await work();
    }).catch(() => {}); // stopped while it waited for its turn
    return {
      slots,
      compactor,
      baseTxid,
      firstTxid,
      unneededUpTo: (durableTxid) =>
        Math.max(
          Math.min(durableTxid, listing.newest(COMMIT_LEVEL + 1)?.maxTxid ?? 0),
          durableTxid - KEPT_FILES,
        ),
      async [Symbol.asyncDispose]() {
        stop.abort();
        await slots[Symbol.asyncDispose]();
        await running;
      },
    };
  }

  #folderOf({ name }: FollowedDatabase): string {
    return `${this.#options.dataFolder}/databases/${name}`;
  }

  /** Once the lease allows it. */
  async #list(database: FollowedDatabase, signal: AbortSignal): Promise<HolderListing> {
    const { store, layout, window, onEvent } = this.#options;
    await this.#whenOpen(signal);
    const place = { layout, name: database.name };
    const { listing, defects } = await window.within(
      signal,
      (ended) => HolderListing.load(store, place, { signal: ended }),
    );
    for (const { kind, key, detail } of defects.slice(0, DEFECTS_TOLD)) {
      const message = `${database.name}: ${kind} in the store at ${key}: ${detail}`;
      onEvent({ level: "warn", kind: "warning", name: database.name, message, hint: null });
    }
    return listing;
  }

  async #whenOpen(signal: AbortSignal): Promise<void> {
    const { window } = this.#options;
    const aborted = Promise.withResolvers<never>();
    aborted.promise.catch(() => {});
    const onAbort = () => aborted.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!window.isOpen) {
        signal.throwIfAborted();
        await Promise.race([window.whenRenewed(), aborted.promise]);
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /**
   * What both the store and this machine have, which uploads go on from. A store that is ahead, or has another commit
   * where we have one, is another holder's: it counts, and the database must be restored to it.
   */
  async #startOf(
    listing: HolderListing,
    captor: Captor,
    signal: AbortSignal,
  ): Promise<Start | SlotEnd> {
    const newest = newestOf(listing);
    if (newest === null) return { base: { txid: 0, token: 0 }, isBehind: false };
    const { maxTxid: storedTxid, sizeBytes } = newest;
    const local = captor.localFiles().find(({ txid }) => txid === storedTxid);
    const stored = await this.#readEnds(newest, signal);
    const { nodeId: token, timestampMs } = readHeader(stored.subarray(0, LTX_HEADER_BYTES), newest.key);
    if (token > this.#options.token) return { kind: "fenced", txid: storedTxid, reason: "larger-token" };
    const localTxid = captor.status.txid ?? 0;
    const base = { txid: storedTxid, token };
    const goOn = (): Start | SlotEnd => {
      if (token !== this.#options.token || localTxid > storedTxid) {
        return { kind: "absorbed", txid: storedTxid, token, sizeBytes };
      }
      // An earlier child of this term wrote it, and its file was lost here: what the programs have made since is in the
      // database alone, so all of that comes after it.
      captor.requestSnapshot(storedTxid, timestampMs);
      return { base, isBehind: true };
    };
    if (storedTxid > localTxid) return goOn();
    // Without a file of that TXID: it was restored to, or the next file holds all pages because of it.
    if (local === undefined || newest.level !== COMMIT_LEVEL) return { base, isBehind: false };
    await using file = await openCommitFile(captor, storedTxid, this.#files);
    const isOurs = local.sizeBytes === sizeBytes && equalBytes(stored, await readEnds(file, sizeBytes));
    return isOurs ? { base, isBehind: false } : goOn();
  }

  /** 0: it is gone by now, and with it the time. */
  async #timeOf(file: ReplicaFile, signal: AbortSignal): Promise<number> {
    const { store, window } = this.#options;
    const [timed] = await window.within(signal, (ended) => withTimes([file], { store, signal: ended }));
    return timed?.timestampMs ?? 0;
  }

  async #readEnds({ key, sizeBytes }: ReplicaFile, signal: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    const { store, window } = this.#options;
    const get = (start: number, end: number) =>
      window.within(signal, (ended) => store.get(key, { range: { start, end }, signal: ended }));
    const { body } = await get(0, SMALL_BYTES);
    if (sizeBytes <= SMALL_BYTES) return endsOf(body);
    const last = await get(sizeBytes - LTX_TRAILER_BYTES, sizeBytes);
    return Uint8Array.of(...body.subarray(0, LTX_HEADER_BYTES), ...last.body);
  }
}

/** What uploads go on from. */
interface Start {
  readonly base: SlotBase;
  /** What the captor has up to there is not what the store has: the next file holds all pages. */
  readonly isBehind: boolean;
}

/** Most commits are smaller, and need one request. */
const SMALL_BYTES = 64 * 1024;

/** Header and trailer, which has the checksum of all: who has the same has the same file. */
function endsOf(file: Uint8Array): Uint8Array<ArrayBuffer> {
  return Uint8Array.of(...file.subarray(0, LTX_HEADER_BYTES), ...file.subarray(-LTX_TRAILER_BYTES));
}

async function readEnds(file: LocalCommitFile, sizeBytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const header = await file.read(0, LTX_HEADER_BYTES);
  return Uint8Array.of(...header, ...await file.read(sizeBytes - LTX_TRAILER_BYTES, sizeBytes));
}

/** Of the defects of one listing; a healthy one has none. */
const DEFECTS_TOLD = 10;

/** The newest commit says who wrote last; files of higher levels keep the token only where we made them. */
function newestOf(listing: HolderListing): ReplicaFile | null {
  const commit = listing.newest(COMMIT_LEVEL);
  if (commit !== null && commit.maxTxid === listing.maxTxid) return commit;
  return listing.files.reduce<ReplicaFile | null>(
    (best, file) => best === null || file.maxTxid > best.maxTxid ? file : best,
    null,
  );
}
