/** What one followed database is made of, as far as follow_unit.ts uses it: follow_parts.ts makes the real ones. */

import type { Compactor } from "./compactor.ts";
import type { FollowedDatabase } from "./follow_protocol.ts";
import type { Follower } from "./follower.ts";
import type { SlotEnd } from "./slot_rules.ts";
import type { SlotWriter } from "./slot_writer.ts";

/** Takes what is committed into local files. */
export type Captor =
  & Pick<
    Follower,
    | "sync"
    | "touch"
    | "requestSnapshot"
    | "checkpointIfNeeded"
    | "localFiles"
    | "deleteUpTo"
    | "close"
    | "status"
  >
  & AsyncDisposable;

/** What is known of one database in the store, and the way into it. */
export interface Replica extends AsyncDisposable {
  readonly slots: Pick<SlotWriter, "committed" | "whenDurable" | "whenEnded" | "status">;
  readonly compactor: Pick<Compactor, "status">;
  /** Everything up to here is in the store, or is what the term begins with. */
  readonly baseTxid: number;
  /**
   * What was captured before under a lower TXID is not what the store has there: this one, with all pages, is to be
   * captured, and holds it too. 0: nothing of that kind.
   */
  readonly firstTxid: number;
  /** Local files up to this durable TXID are of no use to the compaction either. */
  unneededUpTo(durableTxid: number): number;
}

export interface UnitParts {
  /** Finds out where the database stands, in the store too where no local file says so. */
  openCaptor(database: FollowedDatabase, signal: AbortSignal): Promise<Captor>;
  /** Gives up the local files after `txid`, while nobody follows it: its captor then begins with all pages. */
  dropAfter(database: FollowedDatabase, txid: number): Promise<void>;
  /**
   * Lists the store; from then on it compacts too. `end`: what is there is another holder's. `captor` has what may have to be sent;
   * `pins` is asked for the TXIDs that must stay restorable.
   */
  openReplica(
    database: FollowedDatabase,
    captor: Captor,
    pins: () => readonly number[],
    signal: AbortSignal,
  ): Promise<Replica | { readonly end: SlotEnd }>;
}
