/**
 * Refuses a manifest that could make a restore write outside its stage, or that contradicts itself. Manifests come
 * from a bucket that others may write to, so nothing in them is trusted. Pure.
 */

import { StateManagerError } from "../platform/errors.ts";
import { type PathBytes, showPath } from "../platform/libc_files.ts";
import { byteText } from "./byte_text.ts";
import { comparePaths } from "./manifest.ts";
import type { ManifestEntry, TreeEntry } from "./types.ts";

export function manifestDamaged(root: string, path: PathBytes, what: string): StateManagerError {
  return new StateManagerError("data-damaged", `restore files "${root}": ${showPath(path)}: ${what}`, {
    hint: "run a verify of the checkpoint; restore another one meanwhile",
  });
}

/**
 * Looks at a manifest batch by batch: throws `data-damaged` unless every path is relative, without "." and "..", comes
 * after the one before it (so none comes twice), and lies in a folder that the manifest itself names before it, so that
 * no entry can reach through a symlink; and sizes agree with the parts.
 */
export class ManifestCheck {
  readonly #root: string;
  readonly #folders = new Set<string>();
  readonly #groups = new Set<number>();
  #previous: PathBytes | null = null;
  /** Of the entry before: one that is in the manifest. */
  #folder = "";

  constructor(root: string) {
    this.#root = root;
  }

  check(entries: readonly ManifestEntry[]): void {
    for (const member of entries) {
      const previous = this.#previous;
      this.#previous = member.entry.path;
      if (previous === null) this.#checkFirst(member.entry);
      else {
        this.#checkPath(member.entry, previous);
        this.#checkContent(member);
      }
    }
    if (this.#previous === null) this.#checkFirst(null);
  }

  #checkFirst(entry: TreeEntry | null): void {
    if (entry === null || entry.path.length > 0 || entry.type !== "directory") {
      throw manifestDamaged(
        this.#root,
        new Uint8Array(0),
        "the manifest does not begin with the root folder",
      );
    }
    this.#folders.add("");
  }

  #checkPath({ path, type }: TreeEntry, previous: PathBytes): void {
    const text = byteText(path);
    const cut = text.lastIndexOf("/");
    const name = text.slice(cut + 1);
    if (name === "" || name === "." || name === ".." || name.includes("\0") || cut === 0) {
      throw manifestDamaged(this.#root, path, "is no path inside the root");
    }
    // Most lie in the folder of the one before, of which it is known.
    if (cut !== this.#folder.length || !text.startsWith(this.#folder)) {
      this.#folder = text.slice(0, Math.max(cut, 0));
      if (!this.#folders.has(this.#folder)) {
        throw manifestDamaged(this.#root, path, "its folder is not in the manifest before it");
      }
    }
    const order = comparePaths(previous, path);
    if (order >= 0) {
      throw manifestDamaged(this.#root, path, order === 0 ? "comes twice" : "comes after a later path");
    }
    if (type === "directory") this.#folders.add(text);
  }

  #checkContent({ entry, parts }: ManifestEntry): void {
    if (entry.type === "symlink" && entry.target === undefined) {
      throw manifestDamaged(this.#root, entry.path, "has no target");
    }
    if (entry.type !== "file") return;
    const follower = entry.linkGroup !== undefined && this.#groups.has(entry.linkGroup);
    if (entry.linkGroup !== undefined) this.#groups.add(entry.linkGroup);
    const bytes = parts.reduce((sum, part) => sum + part.length, 0);
    if (follower ? parts.length === 0 : bytes === entry.size) return;
    throw manifestDamaged(
      this.#root,
      entry.path,
      `has parts of ${bytes} bytes, wanted ${follower ? "none" : entry.size}`,
    );
  }
}
