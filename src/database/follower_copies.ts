/** Follows a database that is not in WAL mode (or by choice): copies it after changes and writes what differs. */

import { isError } from "../platform/errors.ts";
import type { FollowerConnection } from "./follower_connection.ts";
import { type FollowerContext, isLogMoved } from "./follower_context.ts";
import type { SyncResult } from "./follower_types.ts";
import { type DatabaseCopy, SnapshotSource } from "./snapshot_source.ts";

/**
 * A change is taken when nothing has followed it for so long, or so long after the first: a copy's lock makes commits
 * wait, and a program that makes its database and then asks for WAL mode would be refused.
 */
const SETTLE_MS = 500;
const SETTLE_MAX_MS = 5_000;
const READ_TRIES = 5;
/** A program that commits often is met in a commit now and then: so many looks in a row, about two seconds, are no error. */
const BUSY_LOOKS = 20;
/**
 * Where somebody waits for the copy: a commit in rollback mode keeps readers out for as long as the disk takes to write it, so
 * that one look on a slow disk meets nothing but locks; some two seconds of looks find the moment between two commits.
 */
const AWAITED_LOOKS = 60;
const AWAITED_PAUSE_MS = 20;

interface Seen {
  readonly key: string;
  readonly atMs: number;
  readonly firstAtMs: number;
}

export class CopyFollower {
  readonly #context: FollowerContext;
  readonly #connection: FollowerConnection;
  readonly #source: SnapshotSource;
  #copy: DatabaseCopy | null = null;
  /** State of the database that `#copy` has. */
  #takenKey: string | null = null;
  #seen: Seen | null = null;
  #eager: boolean;
  #busyLooks = 0;

  /** `eager`: the database was there when we came, so nobody is at making it: the first copy needs no settling. */
  constructor(context: FollowerContext, connection: FollowerConnection, eager: boolean) {
    this.#context = context;
    this.#connection = connection;
    this.#source = new SnapshotSource(context.folder, context.files, connection);
    this.#eager = eager;
  }

  get pageSize(): number | null {
    return this.#copy?.pageSize ?? null;
  }

  get databasePages(): number | null {
    return this.#copy?.commit ?? null;
  }

  /** `now`: without settling. */
  async sync(now = false): Promise<SyncResult> {
    const context = this.#context;
    context.throwIfAborted();
    const key = this.#source.stateKey();
    const due = this.#settled(key) || now || this.#eager || context.wanted !== null;
    if (key === this.#takenKey && context.wanted === null) return context.unchanged;
    const later: SyncResult = { changed: false, txid: context.txid, unsettled: true };
    if (!due) return later;
    this.#connection.connect();
    if (this.#copy === null) await this.#resume();
    const former = context.wanted === null ? this.#copy : null;
    const txid = context.nextTxid;
    let copy: DatabaseCopy;
    try {
      copy = await (now ? this.#takeAwaited(txid) : this.#take(txid));
    } catch (error) {
      if (now || !isError(error, "busy") || ++this.#busyLooks > BUSY_LOOKS) throw error;
      return later;
    }
    this.#busyLooks = 0;
    context.step("copied");
    const result = await this.#write(former, copy);
    this.#takenKey = key;
    this.#seen = null; // what comes from now on settles anew
    this.#eager = false;
    await this.#source.sweep(this.#copy?.txid ?? null);
    return result;
  }

  #settled(key: string): boolean {
    const nowMs = this.#context.clock.monotonicMs();
    if (key === this.#takenKey) {
      this.#seen = null;
      return false;
    }
    if (this.#seen === null) this.#seen = { key, atMs: nowMs, firstAtMs: nowMs };
    else if (this.#seen.key !== key) this.#seen = { ...this.#seen, key, atMs: nowMs };
    return nowMs - this.#seen.atMs >= SETTLE_MS || nowMs - this.#seen.firstAtMs >= SETTLE_MAX_MS;
  }

  /** The copy of the newest local file, if it is left from before. */
  async #resume(): Promise<void> {
    const { newest, damagedTxid } = this.#context.local;
    if (newest === null || damagedTxid !== null) return;
    const { maxTxid, pageSize, commit } = newest.header;
    this.#copy = await this.#source.find(maxTxid, pageSize, commit);
  }

  async #takeAwaited(txid: number): Promise<DatabaseCopy> {
    for (let look = 1;; look++) {
      try {
        return await this.#take(txid);
      } catch (error) {
        if (!isError(error, "busy") || look === AWAITED_LOOKS) throw error;
      }
      // Not at a pace that a program's own could be in step with.
      await this.#context.pause(AWAITED_PAUSE_MS + look % 7);
    }
  }

  async #take(txid: number): Promise<DatabaseCopy> {
    for (let attempt = 1;; attempt++) {
      try {
        return await this.#source.take(txid);
      } catch (error) {
        if (!isLogMoved(error) || attempt === READ_TRIES) throw error;
      }
    }
  }

  /**
   * If we die before the file has its name, the copy before is still there and the new one is swept; after it, the
   * new one is the one that the newest file goes with.
   */
  async #write(former: DatabaseCopy | null, copy: DatabaseCopy): Promise<SyncResult> {
    const { pageSize, commit } = copy;
    const base = former !== null && former.pageSize === pageSize ? former : null;
    const reason = base !== null ? null : this.#reason();
    if (base !== null && commit === base.commit && await isEmpty(this.#source.changes(base, copy))) {
      return this.#context.unchanged; // nothing happened while we were away; the new copy is swept
    }
    return await this.#context.write(
      this.#connection,
      { pageSize, commit, log: null, reason, commits: 0, more: false, position: null },
      this.#source.changes(base, copy),
      () => this.#copy = copy,
    );
  }

  #reason() {
    const { wanted, local, baseline } = this.#context;
    if (wanted !== null) return wanted;
    if (local.damagedTxid !== null) return "local-damaged";
    if (this.#copy !== null) return "page-size-changed";
    return local.newest === null && baseline === null ? "first-contact" : "position-unknown";
  }

  /** A commit of ours that changes nothing, and its file. */
  async touch(): Promise<SyncResult> {
    this.#connection.connect();
    this.#connection.touch();
    this.#takenKey = null; // a commit of our own connection does not change what that one is told
    return await this.sync(true);
  }
}

async function isEmpty(pages: AsyncGenerator<unknown>): Promise<boolean> {
  const { done } = await pages.next();
  await pages.return(undefined); // closes the files
  return done === true;
}
