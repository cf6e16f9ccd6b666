/**
 * What a restore would add, change and remove in a folder: names and attributes compared, no content read. A file counts
 * as unchanged when size, times and rights are; nothing is decided by it, it is for people. Pure but for the entries
 * that it takes.
 */

import { type PathBytes, showPath } from "../platform/libc_files.ts";
import { comparePaths } from "./manifest.ts";
import type { TreeEntry } from "./types.ts";

export interface ChangeSum {
  readonly entries: number;
  /** Sizes of the files among them: the new ones, of what is removed the old ones. */
  readonly bytes: number;
}

export interface Difference {
  readonly change: "added" | "changed" | "removed";
  /** Relative to the root, for people; the root itself is ".". */
  readonly path: string;
  readonly type: TreeEntry["type"];
  readonly bytes: number;
}

export interface TreeDifferences {
  readonly added: ChangeSum;
  readonly changed: ChangeSum;
  readonly removed: ChangeSum;
  readonly unchanged: ChangeSum;
  /** In path order, at most as many as were asked for. */
  readonly paths: readonly Difference[];
  readonly pathsTotal: number;
}

/** Text of paths in one answer: it is a line of JSON between processes. */
const PATHS_LIMIT_BYTES = 8 * 1024 * 1024;

/**
 * Compares `wanted` with what is there, both in path order. `isInScope` says of a path that is there whether the restore
 * would replace it at all.
 */
export function differencesOf(
  wanted: Iterable<TreeEntry>,
  there: Iterable<TreeEntry>,
  options: { readonly paths: number; readonly isInScope?: (path: PathBytes) => boolean },
): TreeDifferences {
  const { isInScope = () => true } = options;
  const tally = new Tally(options.paths);
  const rest = wanted[Symbol.iterator]();
  let next = rest.next();
  for (const live of there) {
    for (; next.done !== true && comparePaths(next.value.path, live.path) < 0; next = rest.next()) {
      tally.add("added", next.value);
    }
    if (next.done !== true && comparePaths(next.value.path, live.path) === 0) {
      tally.add(isSame(next.value, live) ? "unchanged" : "changed", next.value);
      next = rest.next();
    } else if (isInScope(live.path)) tally.add("removed", live);
  }
  for (; next.done !== true; next = rest.next()) tally.add("added", next.value);
  return tally.result();
}

/** A folder's time changes with what is in it, and is no difference of its own. */
function isSame(a: TreeEntry, b: TreeEntry): boolean {
  const attributes = a.type === b.type && a.uid === b.uid && a.gid === b.gid;
  if (!attributes) return false;
  if (a.type === "symlink") return comparePaths(a.target ?? EMPTY, b.target ?? EMPTY) === 0;
  if (a.mode !== b.mode) return false;
  return a.type !== "file" || (a.size === b.size && a.mtimeNs === b.mtimeNs);
}

const EMPTY = new Uint8Array(0);

class Tally {
  readonly #sums = {
    added: { entries: 0, bytes: 0 },
    changed: { entries: 0, bytes: 0 },
    removed: { entries: 0, bytes: 0 },
    unchanged: { entries: 0, bytes: 0 },
  };
  readonly #limit: number;
  readonly #paths: Difference[] = [];
  #pathBytes = 0;
  #total = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(change: Difference["change"] | "unchanged", entry: TreeEntry): void {
    const sum = this.#sums[change];
    sum.entries++;
    sum.bytes += entry.size;
    if (change === "unchanged") return;
    this.#total++;
    if (this.#paths.length >= this.#limit || this.#pathBytes > PATHS_LIMIT_BYTES) return;
    const path = entry.path.length === 0 ? "." : showPath(entry.path);
    this.#pathBytes += path.length;
    this.#paths.push({ change, path, type: entry.type, bytes: entry.size });
  }

  result(): TreeDifferences {
    return { ...this.#sums, paths: this.#paths, pathsTotal: this.#total };
  }
}
