/** Where a follower begins to read, and what it makes of the log as it finds it. */

import type { FollowerConnection, OpenLog } from "./follower_connection.ts";
import type { FollowerContext } from "./follower_context.ts";
import type { FileNotes, Reading } from "./follower_notes.ts";
import { markOf, sameMark } from "./follower_position.ts";
import { decideAtStart, decideLive, type Decision, NO_EVIDENCE } from "./follow_rules.ts";
import { evidenceOf, viewOfLog, WAL_HEADER_BYTES } from "./wal_reader.ts";

/** Before the first sync: what the newest local file and the note say, unproven. */
export function firstReading(
  context: FollowerContext,
  connection: FollowerConnection,
  notes: FileNotes,
): Reading {
  const newest = context.local.newest?.header;
  const header = connection.header();
  return {
    position: notes.current()?.position ?? null,
    pageSize: newest?.pageSize ?? header?.pageSize ?? 0,
    commit: newest?.commit ?? header?.pages ?? 0,
    proven: false,
    more: false,
    dataVersion: null,
    inDatabase: WAL_HEADER_BYTES,
  };
}

/** While we follow. */
export function decideWithLog(reading: Reading, log: OpenLog | null): Decision {
  return decideLive(reading.position, viewOf(log), reading);
}

/** By what was noted before we came, for a reading that nothing has proven yet. */
export function decideFirst(
  context: FollowerContext,
  connection: FollowerConnection,
  notes: FileNotes,
  reading: Reading,
  log: OpenLog | null,
): Decision {
  const { local, baseline } = context;
  const entry = notes.current();
  const { opened } = connection;
  const { position } = reading;
  return decideAtStart({
    txid: local.newest?.header.maxTxid ?? null,
    baseline,
    damaged: local.damagedTxid !== null,
    noted: entry === null ? null : {
      position: entry.position,
      pageSize: entry.pageSize,
      sameFile: entry.dev === String(opened.dev) && entry.ino === String(opened.ino),
      untouched: entry.left !== null && sameMark(entry.left, markOf(opened)),
    },
    log: viewOf(log),
    evidence: log === null || position === null || typeof log.header === "string"
      ? NO_EVIDENCE
      : evidenceOf(log.fd, log.header, position),
  });
}

function viewOf(log: OpenLog | null) {
  return log === null ? { kind: "empty" } as const : viewOfLog(log.header, log.sizeBytes);
}
