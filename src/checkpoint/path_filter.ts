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
 * The entries at and below `paths` (byte text), with the folders above them. Of a group of hard links the first one that
 * is taken carries the content. `not-found` for a path that the tree does not have.
 */
export function selectPaths(
  entries: readonly ManifestEntry[],
  paths: readonly string[],
  root: string,
): readonly ManifestEntry[] {
  const selection = new PathSelection(paths, root);
  const selected = selection.select(entries);
  selection.finish();
  return selected;
}

/** The same for a tree that comes in batches, in path order. */
export class PathSelection {
  readonly #paths: readonly string[];
  readonly #root: string;
  readonly #wanted: ReadonlySet<string>;
  /** The folders above the wanted paths. */
  readonly #above: ReadonlySet<string>;
  readonly #found = new Set<string>();
  readonly #content = new Map<number, ManifestEntry["parts"]>();
  readonly #carried = new Set<number>();

  constructor(paths: readonly string[], root: string) {
    this.#paths = paths;
    this.#root = root;
    this.#wanted = new Set(paths);
    const above = paths.flatMap((path) => [...path.matchAll(/\//g)].map(({ index }) => path.slice(0, index)));
    this.#above = new Set([...above, ""]);
  }

  select(entries: readonly ManifestEntry[]): readonly ManifestEntry[] {
    const selected: ManifestEntry[] = [];
    for (const { entry, parts } of entries) {
      const { linkGroup } = entry;
      if (linkGroup !== undefined && parts.length > 0) this.#content.set(linkGroup, parts);
      const path = byteText(entry.path);
      const inside = innermostOf(path, this.#wanted);
      if (inside !== null) this.#found.add(inside);
      if (inside === null && !(this.#above.has(path) && entry.type === "directory")) continue;
      if (linkGroup === undefined || this.#carried.has(linkGroup)) selected.push({ entry, parts });
      else {
        this.#carried.add(linkGroup);
        selected.push({ entry, parts: this.#content.get(linkGroup) ?? [] });
      }
    }
    return selected;
  }

  /** After the last batch: `not-found` for a path that did not come. */
  finish(): void {
    if (this.#paths.every((path) => this.#found.has(path))) return;
    throw new StateManagerError(
      "not-found",
      `restore files "${this.#root}": the checkpoint does not have that path`,
      {
        hint: "list what it has, or name another checkpoint; paths are relative to the files root",
      },
    );
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
