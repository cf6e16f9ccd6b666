/** Which files of a folder are databases to follow. Names and first bytes only: nothing here opens a file by SQLite. */

import type { FollowedDatabase, FollowedFolder } from "./follow_protocol.ts";

/** As one segment of a key in every store; beside it `databases/<folder's name>/` must fit. */
const FILE_NAME = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$/;
/** Files of SQLite and of others that belong to a database beside them, or pass. */
const COMPANION = /(-wal|-shm|-journal|-litestream|\.tmp)$/;

export interface FolderScan {
  readonly databases: readonly FollowedDatabase[];
  /** File names that match and cannot be followed, for a warning. */
  readonly refused: readonly string[];
}

/** `names` of regular files in the folder, in any order. */
export function databasesIn(folder: FollowedFolder, names: readonly string[]): FolderScan {
  const pattern = patternToRegExp(folder.pattern);
  const matching = names.filter((name) => pattern.test(name) && !COMPANION.test(name)).sort();
  const { journal, syncIntervalMs, snapshotIntervalMs, retentionMs } = folder;
  return {
    databases: matching.filter((name) => FILE_NAME.test(name)).map((name) => ({
      name: `${folder.name}/${name}`,
      path: `${folder.folder}/${name}`,
      journal,
      syncIntervalMs,
      snapshotIntervalMs,
      retentionMs,
      baseline: null,
      pins: folder.pins[name] ?? [],
    })),
    refused: matching.filter((name) => !FILE_NAME.test(name)),
  };
}

/** `*`: any characters, none included; `?`: one; all else is itself. A leading dot must be given. */
export function patternToRegExp(pattern: string): RegExp {
  const text = pattern.replaceAll(/[\\^$.|+()[\]{}]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
  return new RegExp(pattern.startsWith(".") ? `^${text}$` : `^(?!\\.)${text}$`, "s");
}
