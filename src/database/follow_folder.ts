/** Which files of a folder are databases to follow. Names and first bytes only: nothing here opens a file by SQLite. */

import { matchesPattern } from "../platform/name_pattern.ts";
import type { FollowedDatabase, FollowedFolder } from "./follow_protocol.ts";

/** As one segment of a key in every store, and none that means a level there. */
const FILE_NAME = /^(?!ltx$|[0-9a-f]{4}$)[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
/** Files of SQLite and of others that belong to a database beside them, or pass. */
const COMPANION = /(-wal|-shm|-journal|-litestream|\.tmp)$/;

export interface FolderScan {
  readonly databases: readonly FollowedDatabase[];
  /** File names that match and cannot be followed, for a warning. */
  readonly refused: readonly string[];
}

/** `names` of regular files in the folder, in any order. */
export function databasesIn(folder: FollowedFolder, names: readonly string[]): FolderScan {
  const matching = names.filter((name) => matchesPattern(folder.pattern, name) && !COMPANION.test(name))
    .sort();
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
