/** Which databases the configuration means: by name, and by pattern what is in its folders here and in the bucket. */

import type { Config } from "../config/types.ts";
import { databasesIn, realDatabasePath } from "../database/mod.ts";
import { realPathOf } from "../platform/files.ts";
import { isErrno } from "../platform/libc_files.ts";
import { isMissing, systemFiles } from "../platform/local_files.ts";

export interface NamedDatabase {
  readonly name: string;
  readonly entry: string;
  readonly path: string;
}

/** Every database of the configuration; a pattern's are those in its folder and those of its name in the bucket. */
export async function findDatabases(
  config: Config["databases"],
  inBucket: readonly string[],
): Promise<NamedDatabase[]> {
  const found: NamedDatabase[] = [];
  for (const [entry, { path, pattern, ...settings }] of Object.entries(config)) {
    if (pattern === null) {
      found.push({ name: entry, entry, path: await realFileOf(path) });
      continue;
    }
    const folder = await realPathOf(path);
    const here = databasesIn({ ...settings, name: entry, folder, pattern, pins: {} }, await filesIn(folder))
      .databases
      .map(({ name }) => name.slice(entry.length + 1));
    const there = inBucket.filter((name) => name.startsWith(`${entry}/`)).map((name) =>
      name.slice(entry.length + 1)
    );
    for (const file of new Set([...here, ...there])) {
      found.push({ name: `${entry}/${file}`, entry, path: `${folder}/${file}` });
    }
  }
  return found;
}

/** A folder that is not there yet has no symlink to follow either. */
async function realFileOf(path: string): Promise<string> {
  try {
    return realDatabasePath(path);
  } catch (error) {
    if (!isErrno(error, "ENOENT")) throw error;
    return await realPathOf(path);
  }
}

async function filesIn(folder: string): Promise<string[]> {
  try {
    return (await systemFiles.list(folder)).filter(({ kind }) => kind === "file").map(({ name }) => name);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}
