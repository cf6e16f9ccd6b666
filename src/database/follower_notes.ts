/**
 * What is noted of a followed database's file in `position.json`, beside the position in its log: how the file was when
 * all that we had read was in it, so that the next start can tell whether anybody touched it since.
 */

import type { LogPosition } from "./follow_rules.ts";
import type { FollowerConnection } from "./follower_connection.ts";
import type { FollowerContext } from "./follower_context.ts";
import { markOf, type PositionEntry, sameMark } from "./follower_position.ts";

/** The kernel's times of a file are this coarse at most: a later write has another time. */
export const TIME_GRAIN_MS = 20;

/** What is known while we follow. */
export interface Reading {
  position: LogPosition;
  pageSize: number;
  /** Pages of the database at the newest local file. */
  commit: number;
  /** A reader has been in the database without a gap since a sync that reached the end of the log. */
  proven: boolean;
  /** The last sync stopped at its bound. */
  more: boolean;
  /** When it last reached the end; null: look in any case. */
  dataVersion: number | null;
  /** Frames before this are known to be in the database file. */
  inDatabase: number;
}

export class FileNotes {
  readonly #context: FollowerContext;
  readonly #connection: FollowerConnection;

  constructor(context: FollowerContext, connection: FollowerConnection) {
    this.#context = context;
    this.#connection = connection;
  }

  /** What was noted at the newest local file; null: nothing. */
  current(): PositionEntry | null {
    const { note, txid } = this.#context;
    return txid === null ? null : note.entry(txid);
  }

  /**
   * A restored database that we come to for the first time: what the file is now is noted before anybody may write to
   * it. If we die before the first file, the next start does not take the baseline's word for what came since.
   */
  async baseline(reading: Reading): Promise<void> {
    const { note, baseline } = this.#context;
    if (baseline === null) return;
    if (!this.isOld(this.#connection.stat().mtimeNs)) await this.#context.pause(TIME_GRAIN_MS);
    const { opened } = this.#connection;
    await note.put({
      txid: baseline,
      dev: String(opened.dev),
      ino: String(opened.ino),
      pageSize: reading.pageSize,
      position: null,
      left: markOf(this.#connection.stat()),
    });
  }

  /**
   * When all that we have read is in the database's file, which is so after a checkpoint, the note says how that file
   * is. If it is still so when we come back, nothing was taken into it since: whatever was committed since is in the
   * log, from its first frame on if it is another log. Right because our reader is in the database: nothing that we
   * have not read can be in the file now. Not noted where a later write could have the same time.
   */
  async file(reading: Reading): Promise<void> {
    const { note } = this.#context;
    const { position } = reading;
    if (reading.more || !reading.proven) return;
    if (position !== null && reading.inDatabase < position.offset) return;
    const entry = this.current();
    if (entry === null) return;
    const stat = this.#connection.stat();
    const left = markOf(stat);
    if (entry.left !== null && sameMark(entry.left, left)) return;
    if (!this.isOld(stat.mtimeNs)) return;
    await note.put({ ...entry, left });
  }

  /** A write from now on has another time. */
  isOld(timeNs: bigint): boolean {
    return this.#context.clock.wallMs() - Number(timeNs / 1_000_000n) >= TIME_GRAIN_MS;
  }
}
