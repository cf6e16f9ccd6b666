/**
 * What of a files root is never read, and so never restored or removed: the operator's patterns (the simple form of
 * gitignore), the data dir and a folder store where they lie inside the root, and our own `.sm-…` folders.
 * Pure: paths and patterns in, yes or no out.
 */

import type { FilesRoot } from "./types.ts";

/** Names of folders and markers that a restore makes inside or beside a root. Users cannot check these in. */
export const OWN_NAME_PREFIXES: readonly string[] = [".sm-restore-", ".sm-stale", ".sm-swap-"];

/** True for a name that only this program makes. */
export function isOwnName(name: string): boolean {
  return OWN_NAME_PREFIXES.some((prefix) => name.startsWith(prefix));
}

/** Says whether a path, relative to the root and as text, is left out. Our own names are asked for by `isOwnName`. */
export type Excluder = (path: string, isDirectory: boolean) => boolean;

interface Rule {
  readonly matches: RegExp;
  readonly directoryOnly: boolean;
  /** A `!pattern` brings back what an earlier one left out. */
  readonly keep: boolean;
}

/** Body of a regular expression for one gitignore pattern without its leading and trailing slash. */
function globBody(glob: string): string {
  let body = "";
  for (let i = 0; i < glob.length; i++) {
    const character = glob[i] ?? "";
    if (glob.startsWith("**/", i) && (i === 0 || glob[i - 1] === "/")) {
      body += "(?:[^/]+/)*";
      i += 2;
    } else if (glob.startsWith("/**", i) && i + 3 === glob.length) {
      body += "/.+";
      i += 2;
    } else if (character === "*") {
      body += "[^/]*";
    } else if (character === "?") {
      body += "[^/]";
    } else if (character === "[" && glob.indexOf("]", i + 2) > 0) {
      const end = glob.indexOf("]", i + 2);
      const inside = glob.slice(i + 1, end).replace(/^!/, "^").replace(/[\\[\]]/g, "\\$&");
      body += `(?!/)[${inside}]`;
      i = end;
    } else {
      if (character === "\\" && i + 1 < glob.length) i++;
      body += (glob[i] ?? "").replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
    }
  }
  return body;
}

function parseRule(line: string): Rule | null {
  if (line.trim() === "" || line.startsWith("#")) return null;
  const keep = line.startsWith("!");
  let glob = keep ? line.slice(1) : line;
  const directoryOnly = glob.endsWith("/");
  if (directoryOnly) glob = glob.slice(0, -1);
  // A slash at the beginning or in the middle ties the pattern to the root; else it matches at every depth.
  const anchored = glob.includes("/");
  if (glob.startsWith("/")) glob = glob.slice(1);
  if (glob === "") return null;
  const matches = new RegExp(`^${anchored ? "" : "(?:.*/)?"}${globBody(glob)}$`, "su");
  return { matches, directoryOnly, keep };
}

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
  const rules = root.exclude.map(parseRule).filter((rule): rule is Rule => rule !== null);
  const fixed = new Set(keptPaths(root.path, root.excludePaths));
  return (path, isDirectory) => {
    if (fixed.has(path)) return true;
    let excluded = false;
    for (const rule of rules) {
      if (rule.directoryOnly && !isDirectory) continue;
      if (rule.keep === excluded && rule.matches.test(path)) excluded = !rule.keep;
    }
    return excluded;
  };
}
