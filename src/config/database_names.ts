/**
 * Which files of a folder a `databases` entry with a `pattern` means, and what each of them is called: `<entry>/<file>`,
 * in the store's keys, in the data folder, in commands and answers. Pure; the manager lists the folder.
 */

/** A glob over names: `*` any characters, `?` one. */
export const PATTERN = /^[A-Za-z0-9._?*-]{1,100}$/;

/** A segment of a store's key (docs/storage_format.md), with room for what a folder store adds. */
const FILE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
/** SQLite's own files beside a database. */
const COMPANION = /-(?:wal|shm|journal)$/;
/** What stands below a single database's name in the store: its levels. */
const RESERVED = /^(?:ltx|[0-9a-f]{4})$/;

/** Why no database may have this file name; null when one may. */
export function databaseFileFault(name: string): string | null {
  if (COMPANION.test(name)) return "it is a file that SQLite keeps beside a database";
  if (RESERVED.test(name)) return `"${name}" has a meaning of its own in the store`;
  if (FILE_NAME.test(name)) return null;
  return "wanted a letter or digit, then up to 99 of letters, digits, . _ and -";
}

/** True when `name` as a whole is what `pattern` means. */
export function matchesPattern(pattern: string, name: string): boolean {
  // Goes back to the last star alone: what an earlier one could take, that one can take too.
  let [at, star, retry] = [0, -1, 0];
  for (let i = 0; i < name.length;) {
    if (pattern[at] === "*") [star, retry] = [at++, i];
    else if (pattern[at] === "?" || pattern[at] === name[i]) [at, i] = [at + 1, i + 1];
    else if (star >= 0) [at, i] = [star + 1, ++retry];
    else return false;
  }
  return /^\**$/.test(pattern.slice(at));
}

/** True when some name is meant by both patterns. */
export function patternsMeet(one: string, other: string): boolean {
  const known = new Map<number, boolean>();
  const meet = (i: number, j: number): boolean => {
    const [a, b] = [one[i], other[j]];
    if (a === undefined && b === undefined) return true;
    if (a === "*") return from(i + 1, j) || (b !== undefined && from(i, j + 1));
    if (b === "*") return from(i, j + 1) || (a !== undefined && from(i + 1, j));
    if (a === undefined || b === undefined) return false;
    return (a === b || a === "?" || b === "?") && from(i + 1, j + 1);
  };
  const from = (i: number, j: number): boolean => {
    const place = i * (other.length + 1) + j;
    const found = known.get(place);
    if (found !== undefined) return found;
    const result = meet(i, j);
    known.set(place, result);
    return result;
  };
  return from(0, 0);
}

export interface FoundDatabase {
  /** `<entry>/<file>`. */
  readonly name: string;
  readonly path: string;
}

/**
 * The databases among the file names of the folder at `path`, in order, and those that the pattern means but that
 * can't be replicated under their names: the manager warns of them. SQLite's companions are neither.
 */
export function databasesIn(
  entry: string,
  path: string,
  pattern: string,
  fileNames: readonly string[],
): {
  readonly found: readonly FoundDatabase[];
  readonly refused: readonly { readonly file: string; readonly fault: string }[];
} {
  const found: FoundDatabase[] = [];
  const refused: { file: string; fault: string }[] = [];
  for (const file of fileNames.toSorted()) {
    if (!matchesPattern(pattern, file) || COMPANION.test(file)) continue;
    const fault = databaseFileFault(file);
    if (fault === null) found.push({ name: `${entry}/${file}`, path: `${path}/${file}` });
    else refused.push({ file, fault });
  }
  return { found, refused };
}
