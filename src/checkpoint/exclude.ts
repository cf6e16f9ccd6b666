/**
 * What of a files root is never read, and so never restored or removed: the operator's patterns (gitignore's
 * form), the data dir and a folder store where they lie inside the root, and our own `.sm-…` folders.
 * Pure: paths and patterns in, yes or no out.
 */

import { parsePattern, type Pattern } from "./exclude_pattern.ts";
import type { FilesRoot } from "./types.ts";

/** Names of folders and markers that a restore makes inside or beside a root. Users cannot check these in. */
export const OWN_NAME_PREFIXES: readonly string[] = [".sm-restore-", ".sm-stale", ".sm-swap-"];

/** True for a name that only this program makes. */
export function isOwnName(name: string): boolean {
  return OWN_NAME_PREFIXES.some((prefix) => name.startsWith(prefix));
}

/** Says whether a path, relative to the root and as text, is left out. Our own names are asked for by `isOwnName`. */
export type Excluder = (path: string, isDirectory: boolean) => boolean;

/** Path of `path` relative to `root`; null when it is neither the root nor inside it. */
export function relativeTo(root: string, path: string): string | null {
  const folder = root.endsWith("/") ? root : root + "/";
  if (path === root || path + "/" === folder) return "";
  return path.startsWith(folder) ? path.slice(folder.length).replace(/\/+$/, "") : null;
}

/** What SQLite keeps beside a database. */
export const SQLITE_COMPANIONS: readonly string[] = ["-wal", "-shm", "-journal"];

/**
 * The paths of `absolute` that lie inside `root`, relative to it. Each with its companions, since a path may be that
 * of a database which is replicated instead: then its log must not be taken for a file of its own.
 */
export function keptPaths(root: string, absolute: readonly string[]): string[] {
  return absolute.map((path) => relativeTo(root, path)).filter((path) => path !== null && path !== "")
    .flatMap((path) => ["", ...SQLITE_COMPANIONS].map((suffix) => path + suffix));
}

/**
 * The rules of one root. A folder that is left out takes all below it along: the caller does not go in, so a
 * `!pattern` cannot bring back a file of a folder that is left out (as in gitignore).
 */
export function excluderOf(root: Pick<FilesRoot, "path" | "exclude" | "excludePaths">): Excluder {
  const rules = root.exclude.map(parsePattern).filter((rule): rule is Pattern => rule !== null);
  const fixed = new Set(keptPaths(root.path, root.excludePaths));
  return (path, isDirectory) => {
    if (fixed.has(path)) return true;
    let excluded = false;
    for (const rule of rules) {
      if (rule.directoryOnly && !isDirectory) continue;
      if (rule.keep === excluded && rule.matches(path)) excluded = !rule.keep;
    }
    return excluded;
  };
}
