/**
 * What a sync reads of the log before it holds writers off: then only what was committed since is left to read. Frames
 * up to a commit stay as they are until the log begins anew, which the sync looks for before its file gets its name.
 */

import { closeFd } from "../platform/libc_files.ts";
import type { LogPoint } from "./follow_rules.ts";
import type { FollowerConnection } from "./follower_connection.ts";
import type { FollowerContext } from "./follower_context.ts";
import type { Reading } from "./follower_notes.ts";
import { joinScans, scanWal, type WalHeader, type WalScan } from "./wal_reader.ts";

export class LogAhead {
  readonly #context: FollowerContext;
  readonly #connection: FollowerConnection;
  #read: { readonly from: LogPoint; readonly scan: WalScan } | null = null;

  constructor(context: FollowerContext, connection: FollowerConnection) {
    this.#context = context;
    this.#connection = connection;
  }

  /** The log from where the newest file ends; null: nothing is new, or the sync must look at more than that. */
  read(reading: Reading): WalScan | null {
    const { position, proven, more, dataVersion } = reading;
    if (this.#context.wanted !== null || position === null || !proven || more) return null;
    if (this.#connection.dataVersion() === dataVersion) return null;
    const log = this.#connection.openLog();
    if (log === null) return null;
    try {
      const { header } = log;
      if (typeof header === "string" || header.pageSize !== reading.pageSize) return null;
      if (!isSameLog(header, position)) return null;
      const scan = scanWal(log.fd, header, position, this.#context.limits.syncBytes);
      if (scan === null || scan.more) return null;
      this.#read = { from: position, scan };
      return scan;
    } finally {
      closeFd(log.fd);
    }
  }

  /** As `scanWal`: what was read already is not read again. */
  scan(fd: number, header: WalHeader, from: LogPoint): WalScan | null {
    const most = this.#context.limits.syncBytes;
    const read = this.#read;
    if (read === null || read.from.offset !== from.offset || !isSameLog(header, read.from)) {
      return scanWal(fd, header, from, most);
    }
    return joinScans(read.scan, scanWal(fd, header, read.scan.end, most));
  }

  forget(): void {
    this.#read = null;
  }
}

function isSameLog({ salt1, salt2 }: WalHeader, position: LogPoint): boolean {
  return salt1 === position.salt1 && salt2 === position.salt2;
}
