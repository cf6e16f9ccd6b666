/**
 * The tree of a restore of single paths: what is there now, with some paths as they were in an older tree. What swap.ts
 * does to the live folder, said of manifests; both must come to the same. Each tree is read a few times rather than held:
 * it may have a million entries. Pure.
 */

import { StateManagerError } from "../platform/errors.ts";
import { byteText } from "./byte_text.ts";
import { comparePaths } from "./manifest.ts";
import { isBelow, LinkCarriers, selectPaths } from "./path_filter.ts";
import type { ManifestEntry, TreeEntry } from "./types.ts";
import { type BatchedTree, entriesOf } from "./wanted_tree.ts";

/** What SQLite keeps beside a database. Of another content than the database it would be played into it. */
export const SQLITE_COMPANIONS = ["-wal", "-shm", "-journal"] as const;

/**
 * `current` with all that is at and below `paths` (byte texts) replaced by what `source` has there, in path order.
 * Folders that lead there come from `source` only where `current` has none. Errors, all before the first entry:
 * `not-found` for a path that `source` does not have, `invalid-request` where something else than a folder is in the way.
 */
export function graftPaths(
  current: BatchedTree,
  source: BatchedTree,
  paths: readonly string[],
  root: string,
): Iterable<ManifestEntry> {
  const comes = () => selectedOf(source, paths, root);
  const wanted = new Set(paths);
  const above = new Set<string>();
  const gone = [...paths];
  const groups = new GroupCount();
  for (const { entry } of comes()) {
    const path = byteText(entry.path);
    if (!isBelow(path, paths)) above.add(path);
    if (entry.sqlite === true && wanted.has(path)) gone.push(...SQLITE_COMPANIONS.map((end) => path + end));
  }
  const stays = (path: string) => !isBelow(path, gone);
  /** Of the folders that lead to the paths, those that are there. */
  const there = new Set<string>();
  const before = new GroupCount();
  for (const { entry } of entriesOf(current)) {
    const path = byteText(entry.path);
    before.add(entry);
    if (!stays(path)) continue;
    groups.add(entry);
    if (!above.has(path)) continue;
    if (entry.type !== "directory") throw inTheWay(root);
    there.add(path);
  }
  const renumbered = (group: number) => before.highest + 1 + group;
  for (const { entry } of comes()) groups.add(renumber(entry, renumbered));
  const isLost = (group: number) => groups.isLone(group) && !before.isLone(group);
  return {
    *[Symbol.iterator]() {
      const fromSource = function* () {
        for (const { entry, parts } of comes()) {
          if (!there.has(byteText(entry.path))) yield { entry: renumber(entry, renumbered), parts };
        }
      };
      for (const { entry, parts } of merged(withCarriers(current, stays), fromSource())) {
        const { linkGroup, ...alone } = entry;
        // Whoever lost the others of its group is a file like any other.
        yield { entry: linkGroup !== undefined && isLost(linkGroup) ? alone : entry, parts };
      }
    },
  };
}

function* selectedOf(tree: BatchedTree, paths: readonly string[], root: string): Generator<ManifestEntry> {
  for (const batch of selectPaths(tree.batches(), paths, root)) yield* batch;
}

/** The entries that stay; of hard links whose first one goes, the next carries the content. */
function* withCarriers(tree: BatchedTree, stays: (path: string) => boolean): Generator<ManifestEntry> {
  const carriers = new LinkCarriers();
  for (const member of entriesOf(tree)) yield* carriers.take(member, ({ path }) => stays(byteText(path)));
}

/** Two lists in path order that share no path, as one. */
function* merged(a: Iterator<ManifestEntry>, b: Iterator<ManifestEntry>): Generator<ManifestEntry> {
  let [left, right] = [a.next(), b.next()];
  while (left.done !== true || right.done !== true) {
    const isLeft = right.done === true ||
      (left.done !== true && comparePaths(left.value.entry.path, right.value.entry.path) < 0);
    if (isLeft && left.done !== true) {
      yield left.value;
      left = a.next();
    } else if (right.done !== true) {
      yield right.value;
      right = b.next();
    }
  }
}

function renumber(entry: TreeEntry, numberOf: (group: number) => number): TreeEntry {
  return entry.linkGroup === undefined ? entry : { ...entry, linkGroup: numberOf(entry.linkGroup) };
}

/** How many names of a tree each hard link group has. */
class GroupCount {
  readonly #members = new Map<number, number>();
  highest = 0;

  add({ linkGroup }: TreeEntry): void {
    if (linkGroup === undefined) return;
    this.#members.set(linkGroup, (this.#members.get(linkGroup) ?? 0) + 1);
    this.highest = Math.max(this.highest, linkGroup);
  }

  /** A group of one: linked to something outside of the tree. */
  isLone(group: number): boolean {
    return this.#members.get(group) === 1;
  }
}

function inTheWay(root: string): StateManagerError {
  return new StateManagerError(
    "invalid-request",
    `restore files "${root}": what leads to a path is no folder now`,
    {
      hint: "bring back the whole folder that the path was in: give that as --path",
    },
  );
}
