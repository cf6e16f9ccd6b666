/** A part of a tree: some paths with all below them, and the folders that lead there. Pure. */

import { StateManagerError } from "../platform/errors.ts";
import { pathBytes } from "../platform/libc_files.ts";
import { byteText } from "./byte_text.ts";
import type { ManifestEntry } from "./types.ts";

/**
 * A path as a user gives it, relative to the files root, as byte text without slashes at its ends. `invalid-request` for
 * one that is absolute or leaves the root.
 */
export function parseInnerPath(text: string): string {
  const trimmed = text.replace(/^(?:\.\/+)+/, "").replace(/\/+$/, "");
  const names = trimmed.split("/");
  if (trimmed === "" || names.some((name) => name === "" || name === "." || name === "..")) {
    throw new StateManagerError("invalid-request", "restore: a path is none inside of a files root", {
      hint: "give paths relative to the files root, such as --path photos/2026 or --path notes.txt",
    });
  }
  return byteText(pathBytes(trimmed));
}

/**
 * The entries at and below `paths` (byte text) of a tree that comes in batches, in path order, with the folders above
 * them. Of a group of hard links the first one that is taken carries the content. `not-found`, when all has come, for a
 * path that the tree does not have.
 */
export function* selectPaths(
  batches: Iterable<readonly ManifestEntry[]>,
  paths: readonly string[],
  root: string,
): Generator<readonly ManifestEntry[]> {
  const wanted = new Set(paths);
  const above = new Set(
    paths.flatMap((path) => [...path.matchAll(/\//g)].map(({ index }) => path.slice(0, index))),
  );
  above.add("");
  const found = new Set<string>();
  const takes = ({ path: bytes, type }: ManifestEntry["entry"]) => {
    const path = byteText(bytes);
    const inside = innermostOf(path, wanted);
    if (inside !== null) found.add(inside);
    return inside !== null || (above.has(path) && type === "directory");
  };
  const carriers = new LinkCarriers();
  for (const entries of batches) yield entries.flatMap((member) => carriers.take(member, takes));
  if (paths.every((path) => found.has(path))) return;
  throw new StateManagerError(
    "not-found",
    `restore files "${root}": the checkpoint does not have that path`,
    {
      hint: "list what it has, or name another checkpoint; paths are relative to the files root",
    },
  );
}

/** For a part of a tree, entry by entry: of a group of hard links the first one that is taken carries the content. */
export class LinkCarriers {
  readonly #content = new Map<number, ManifestEntry["parts"]>();
  readonly #carried = new Set<number>();

  /** The entry as it is in the part; none where `takes` says that it is left out. */
  take(
    { entry, parts }: ManifestEntry,
    takes: (entry: ManifestEntry["entry"]) => boolean,
  ): readonly ManifestEntry[] {
    const { linkGroup } = entry;
    if (linkGroup !== undefined && parts.length > 0) this.#content.set(linkGroup, parts);
    if (!takes(entry)) return [];
    if (linkGroup === undefined || this.#carried.has(linkGroup)) return [{ entry, parts }];
    this.#carried.add(linkGroup);
    return [{ entry, parts: this.#content.get(linkGroup) ?? [] }];
  }
}

/** True for a path at or below one of `paths`; all are byte texts. */
export function isBelow(path: string, paths: readonly string[]): boolean {
  return innermostOf(path, new Set(paths)) !== null;
}

/** The wanted path that `path` is or lies below; null: none. */
function innermostOf(path: string, wanted: ReadonlySet<string>): string | null {
  if (wanted.has(path)) return path;
  for (let cut = path.lastIndexOf("/"); cut > 0; cut = path.lastIndexOf("/", cut - 1)) {
    const folder = path.slice(0, cut);
    if (wanted.has(folder)) return folder;
  }
  return null;
}
