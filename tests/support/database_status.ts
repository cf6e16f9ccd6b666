/** What a follower child tells of a database that is well. */

import { type DatabaseStatus, NO_COUNTS } from "../../src/database/follow_protocol.ts";

export function databaseStatus(name: string, more: Partial<DatabaseStatus> = {}): DatabaseStatus {
  return {
    name,
    path: `/nowhere/${name}.db`,
    state: "following",
    journalMode: "wal",
    txid: 5,
    durableTxid: 5,
    behindSinceBootMs: null,
    walBytes: 0,
    waitingFiles: 0,
    waitingBytes: 0,
    lastDurableMs: null,
    lastError: null,
    lastSnapshot: null,
    counts: { ...NO_COUNTS, syncs: 3 },
    ...more,
  };
}
