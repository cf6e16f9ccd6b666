/** Which databases there are: by name in the configuration, by pattern in its folders, and by what the bucket holds. */

import type { Config } from "../config/types.ts";
import { databasesIn, realDatabasePath } from "../database/mod.ts";
import { realPathOf } from "../platform/files.ts";
import { isErrno } from "../platform/libc_files.ts";
import { isMissing, systemFiles } from "../platform/local_files.ts";
import type { ObjectStore, RequestOptions } from "../storage/object_store.ts";

const PREFIX = "databases/";
/** More than a bucket of one repository can sensibly hold; a listing that goes on and on ends with an error elsewhere. */
const MOST_NAMES = 100_000;

/**
 * Names of all databases that the bucket holds, a request each: a listing of all their files could be thousands of pages.
 * After a key of `databases/app/` the next name is what follows "databases/app0": "0" comes right after "/".
 */
export async function listDatabaseNames(store: ObjectStore, options: RequestOptions = {}): Promise<string[]> {
  const names: string[] = [];
  let startAfter: string | undefined;
  while (names.length < MOST_NAMES) {
    const page = await store.list({
      prefix: PREFIX,
      limit: 1,
      ...(startAfter === undefined ? {} : { startAfter }),
      ...options,
    });
    const key = page.objects[0]?.key;
    if (key === undefined) break;
    const name = nameInKey(key);
    if (name !== null) names.push(name);
    startAfter = `${PREFIX}${name ?? key.slice(PREFIX.length).split("/")[0]}0`;
  }
  return names;
}

/** `databases/<name>/0000/…`, `databases/<name>/ltx/0/…`, and the same with `<folder>/<file>` as the name. */
function nameInKey(key: string): string | null {
  const parts = key.slice(PREFIX.length).split("/");
  const isLevel = (at: number) =>
    /^000[0-9]$/.test(parts[at] ?? "") || (parts[at] === "ltx" && /^[0-9]$/.test(parts[at + 1] ?? ""));
  const [first = "", second = ""] = parts;
  return isLevel(1) ? first : isLevel(2) ? `${first}/${second}` : null;
}

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
