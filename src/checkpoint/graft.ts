/**
 * The tree of a restore of single paths: what is there now, with some paths as they were in an older tree. What swap.ts
 * does to the live folder, said of manifests; both must come to the same. Pure.
 */

import { StateManagerError } from "../platform/errors.ts";
import { byteText } from "./byte_text.ts";
import { comparePaths } from "./manifest.ts";
import { isBelow, selectPaths } from "./path_filter.ts";
import type { ManifestEntry } from "./types.ts";

/** What SQLite keeps beside a database. Of another content than the database it would be played into it. */
export const SQLITE_COMPANIONS = ["-wal", "-shm", "-journal"] as const;

/**
 * `current` with all that is at and below `paths` (byte texts) replaced by what `source` has there. Folders that lead
 * there come from `source` only where `current` has none. Errors: `not-found` for a path that `source` does not have,
 * `invalid-request` where something else than a folder is in the way.
 */
export function graftPaths(
  current: readonly ManifestEntry[],
  source: readonly ManifestEntry[],
  paths: readonly string[],
  root: string,
): readonly ManifestEntry[] {
  const wanted = new Set(paths);
  const selected = selectPaths(source, paths, root);
  const databases = selected.filter(({ entry }) => entry.sqlite === true && wanted.has(byteText(entry.path)));
  const gone = [
    ...paths,
    ...databases.flatMap(({ entry }) => SQLITE_COMPANIONS.map((end) => byteText(entry.path) + end)),
  ];
  const stays = withCarriers(current, (path) => !isBelow(path, gone));
  const there = new Map(stays.map(({ entry }) => [byteText(entry.path), entry.type]));
  const lastGroup = Math.max(0, ...groupsOf(stays));
  const comes = selected.flatMap(({ entry, parts }) => {
    const path = byteText(entry.path);
    const type = there.get(path);
    if (!isBelow(path, paths) && type !== undefined) {
      if (type !== "directory") throw inTheWay(root);
      return [];
    }
    const { linkGroup } = entry;
    return [{
      entry: linkGroup === undefined ? entry : { ...entry, linkGroup: lastGroup + 1 + linkGroup },
      parts,
    }];
  });
  const grafted = [...stays, ...comes].sort((a, b) => comparePaths(a.entry.path, b.entry.path));
  return withoutLoneGroups(grafted, loneGroups(current));
}

/** The entries that stay; of hard links whose first one goes, the next carries the content. */
function withCarriers(
  entries: readonly ManifestEntry[],
  stays: (path: string) => boolean,
): readonly ManifestEntry[] {
  const content = new Map<number, ManifestEntry["parts"]>();
  const carried = new Set<number>();
  return entries.flatMap(({ entry, parts }) => {
    const { linkGroup } = entry;
    if (linkGroup !== undefined && parts.length > 0) content.set(linkGroup, parts);
    if (!stays(byteText(entry.path))) return [];
    if (linkGroup === undefined || carried.has(linkGroup)) return [{ entry, parts }];
    carried.add(linkGroup);
    return [{ entry, parts: content.get(linkGroup) ?? [] }];
  });
}

function groupsOf(entries: readonly ManifestEntry[]): Set<number> {
  return new Set(entries.flatMap(({ entry: { linkGroup } }) => linkGroup === undefined ? [] : [linkGroup]));
}

/** Groups of one: linked to something outside of the tree. */
function loneGroups(entries: readonly ManifestEntry[]): ReadonlySet<number> {
  const members = new Map<number, number>();
  for (const { entry: { linkGroup } } of entries) {
    if (linkGroup !== undefined) members.set(linkGroup, (members.get(linkGroup) ?? 0) + 1);
  }
  return new Set([...members].flatMap(([group, count]) => count === 1 ? [group] : []));
}

/** Whoever lost the others of its group is a file like any other. */
function withoutLoneGroups(
  entries: readonly ManifestEntry[],
  alwaysLone: ReadonlySet<number>,
): readonly ManifestEntry[] {
  const lone = loneGroups(entries);
  return entries.map(({ entry, parts }) => {
    const { linkGroup, ...alone } = entry;
    const lost = linkGroup !== undefined && lone.has(linkGroup) && !alwaysLone.has(linkGroup);
    return { entry: lost ? alone : entry, parts };
  });
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
