/**
 * Refuses a manifest that could make a restore write outside its stage, or that contradicts itself. Manifests come
 * from a bucket that others may write to, so nothing in them is trusted. Pure.
 */

import { StateManagerError } from "../platform/errors.ts";
import { type PathBytes, showPath } from "../platform/libc_files.ts";
import { byteText } from "./byte_text.ts";
import type { ManifestEntry } from "./types.ts";

const SLASH = 0x2f;

export function manifestDamaged(root: string, path: PathBytes, what: string): StateManagerError {
  return new StateManagerError("data-damaged", `restore files "${root}": ${showPath(path)}: ${what}`, {
    hint: "run a verify of the checkpoint; restore another one meanwhile",
  });
}

/**
 * Throws `data-damaged` unless every path is relative, without "." and "..", comes once, and lies in a folder that
 * the manifest itself names before it, so that no entry can reach through a symlink; and sizes agree with the parts.
 */
export function checkManifest(entries: readonly ManifestEntry[], root: string): void {
  const first = entries[0]?.entry;
  if (first === undefined || first.path.length > 0 || first.type !== "directory") {
    throw manifestDamaged(root, new Uint8Array(0), "the manifest does not begin with the root folder");
  }
  const folders = new Set<string>([""]);
  const seen = new Set<string>([""]);
  const groups = new Set<number>();
  for (const { entry, parts } of entries.slice(1)) {
    const cut = entry.path.lastIndexOf(SLASH);
    const name = byteText(entry.path.subarray(cut + 1));
    const parent = byteText(entry.path.subarray(0, Math.max(cut, 0)));
    const path = byteText(entry.path);
    if (name === "" || name === "." || name === ".." || name.includes("\0") || cut === 0) {
      throw manifestDamaged(root, entry.path, "is no path inside the root");
    }
    if (!folders.has(parent)) {
      throw manifestDamaged(root, entry.path, "its folder is not in the manifest before it");
    }
    if (seen.has(path)) throw manifestDamaged(root, entry.path, "comes twice");
    seen.add(path);
    if (entry.type === "directory") folders.add(path);
    if (entry.type === "symlink" && entry.target === undefined) {
      throw manifestDamaged(root, entry.path, "has no target");
    }
    if (entry.type !== "file") continue;
    const follower = entry.linkGroup !== undefined && groups.has(entry.linkGroup);
    if (entry.linkGroup !== undefined) groups.add(entry.linkGroup);
    const bytes = parts.reduce((sum, part) => sum + part.length, 0);
    if (follower ? parts.length > 0 : bytes !== entry.size) {
      throw manifestDamaged(
        root,
        entry.path,
        `has parts of ${bytes} bytes, wanted ${follower ? "none" : entry.size}`,
      );
    }
  }
}
