/** Whether a tree fits on the disk that it goes to, asked before anything is written there. */

import { StateManagerError } from "../platform/errors.ts";
import { freeSpace, isErrno, pathBytes } from "../platform/libc_files.ts";
import type { ManifestEntry } from "./types.ts";

export interface SpaceNeed {
  /** Of files, without their holes. What a filesystem adds for names and rounding is not in it. */
  readonly bytes: number;
  /** Names that take an inode of their own. */
  readonly files: number;
}

/** Null: the filesystem does not say. */
export interface FreeSpace {
  readonly bytes: number | null;
  readonly files: number | null;
}

export function needOf(entries: readonly ManifestEntry[]): SpaceNeed {
  let bytes = 0;
  let files = 0;
  const groups = new Set<number>();
  for (const { entry, parts } of entries) {
    if (entry.linkGroup === undefined || !groups.has(entry.linkGroup)) files++;
    if (entry.linkGroup !== undefined) groups.add(entry.linkGroup);
    for (const part of parts) if (part.kind === "chunk") bytes += part.length;
  }
  return { bytes, files };
}

/** Free space where `path` is, or would be: the nearest folder above it that is there counts. */
export function freeSpaceAt(path: string): FreeSpace {
  for (let at = path;; at = at.slice(0, at.lastIndexOf("/"))) {
    try {
      return freeSpace(pathBytes(at === "" ? "/" : at));
    } catch (error) {
      if (at === "" || !isErrno(error, "ENOENT", "ENOTDIR")) throw error;
    }
  }
}

/** `disk-full` with the numbers when it cannot fit. On filesystems that compress this refuses what might just have fit. */
export function requireSpace(folder: string, root: string, need: SpaceNeed): void {
  const free = freeSpaceAt(folder);
  const hint =
    `free space on the disk of ${folder}, or make it larger; the old content stays until the new one is there`;
  if (free.bytes !== null && need.bytes > free.bytes) {
    throw new StateManagerError(
      "disk-full",
      `restore files "${root}": ${need.bytes} bytes are needed, ${free.bytes} are free`,
      { hint },
    );
  }
  if (free.files !== null && need.files > free.files) {
    throw new StateManagerError(
      "disk-full",
      `restore files "${root}": ${need.files} inodes are needed, ${free.files} are free`,
      { hint },
    );
  }
}
