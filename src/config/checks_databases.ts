/** Rules over the paths of databases: each file is replicated once, and never what is the manager's own. */

import { matchesPattern, patternsMeet } from "../platform/name_pattern.ts";
import type { CheckContext } from "./checks.ts";
import { isWithin } from "./schema_values.ts";
import type { Config, DatabaseConfig } from "./types.ts";

function split(path: string): { folder: string; file: string } {
  const cut = path.lastIndexOf("/");
  return { folder: path.slice(0, cut) || "/", file: path.slice(cut + 1) };
}

/** True when some file is meant by both. */
function isSameFile(one: DatabaseConfig, other: DatabaseConfig): boolean {
  if (one.pattern === null && other.pattern === null) return one.path === other.path;
  if (one.pattern !== null && other.pattern !== null) {
    return one.path === other.path && patternsMeet(one.pattern, other.pattern);
  }
  const [folder, single] = one.pattern === null ? [other, one] : [one, other];
  const { folder: parent, file } = split(single.path);
  return parent === folder.path && matchesPattern(folder.pattern ?? "", file);
}

/** What is wrong with the path by itself; null when nothing is. */
function pathFault(database: DatabaseConfig, config: Config, context: CheckContext): string | null {
  const { path, pattern } = database;
  const store = context.configured && config.storage.kind === "directory" ? config.storage.directory : null;
  const what = pattern === null ? "a file" : "a folder";
  if (path === "/" && pattern === null) return 'got "/", wanted a file';
  if (["/proc", "/sys", "/dev"].some((system) => isWithin(path, system))) {
    return `got ${what} of the kernel's, wanted one on a disk`;
  }
  if (isWithin(path, context.dataDir)) return `got ${what} inside the data folder, wanted one outside`;
  if (store !== null && isWithin(path, store)) return `got ${what} inside the store, wanted one outside`;
  if (pattern !== null) return null;
  if (path === config.catalog.path) return "got the catalog's file, wanted another one";
  if (/-(?:wal|shm|journal)$/.test(path)) {
    return "got a file that SQLite keeps beside a database, wanted the database";
  }
  const root = Object.entries(config.files).find(([, files]) => isWithin(files.path, path));
  return root === undefined ? null : `got a folder of files.${root[0]}, wanted a file`;
}

export function checkDatabases(config: Config, context: CheckContext): void {
  const databases = Object.entries(config.databases);
  for (const [index, [name, database]] of databases.entries()) {
    const at = ["databases", name, "path"];
    const fault = pathFault(database, config, context);
    if (fault !== null) context.problems.push({ at, detail: fault });
    const same = databases.slice(0, index).find(([, other]) => isSameFile(database, other));
    if (same === undefined) continue;
    const files = database.pattern === null ? "a file" : "files";
    context.problems.push({
      at,
      detail: `got ${files} that databases.${same[0]} means too, wanted each in one of them`,
    });
  }
}
