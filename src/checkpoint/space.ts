/** Whether a tree fits on the disk that it goes to, asked before anything is written there. */

import { StateManagerError } from "../platform/errors.ts";
import { AT_CWD, freeSpace, isErrno, pathBytes, statAt } from "../platform/libc_files.ts";
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

/** What the entries given to `add` need together. */
export class SpaceTally implements SpaceNeed {
  bytes = 0;
  files = 0;
  readonly #groups = new Set<number>();

  add(entries: readonly ManifestEntry[]): void {
    for (const { entry: { linkGroup }, parts } of entries) {
      if (linkGroup === undefined || !this.#groups.has(linkGroup)) this.files++;
      if (linkGroup !== undefined) this.#groups.add(linkGroup);
      for (const part of parts) if (part.kind === "chunk") this.bytes += part.length;
    }
  }
}

/** Free space where `path` is, or would be: the nearest folder above it that is there counts. */
export function freeSpaceAt(path: string): FreeSpace {
  return atNearest(path, freeSpace);
}

/** What `look` says of `path`, or of the nearest folder above it that is there. */
function atNearest<T>(path: string, look: (path: Uint8Array<ArrayBuffer>) => T): T {
  for (let at = path;; at = at.slice(0, at.lastIndexOf("/"))) {
    try {
      return look(pathBytes(at === "" ? "/" : at));
    } catch (error) {
      if (at === "" || !isErrno(error, "ENOENT", "ENOTDIR")) throw error;
    }
  }
}

/** One tree of several that are written before any of the old ones goes. */
export interface SpaceClaim {
  readonly name: string;
  readonly folder: string;
  /** No less than what is needed; known without reading much. */
  readonly atMost: SpaceNeed;
  readonly exact: () => Promise<SpaceNeed>;
}

/**
 * The trees that share a disk must fit on it together: `disk-full` before the first of them is written. What each one
 * truly needs is asked for only where the upper bounds do not fit.
 */
export async function requireSpaceForAll(
  claims: readonly SpaceClaim[],
  freeAt: (folder: string) => FreeSpace = freeSpaceAt,
): Promise<void> {
  const disks = Map.groupBy(claims, ({ folder }) => atNearest(folder, (path) => statAt(AT_CWD, path).dev));
  for (const sharing of disks.values()) {
    const [first] = sharing;
    if (first === undefined || sharing.length < 2) continue; // one alone is asked with its tree at hand
    const free = freeAt(first.folder);
    if (fits(sumOf(sharing.map(({ atMost }) => atMost)), free)) continue;
    const needs: SpaceNeed[] = [];
    for (const { exact } of sharing) needs.push(await exact());
    refuseUnlessFits(first.folder, sharing.map(({ name }) => name).join('", "'), sumOf(needs), free);
  }
}

function sumOf(needs: readonly SpaceNeed[]): SpaceNeed {
  const sum = (of: (need: SpaceNeed) => number) => needs.reduce((all, need) => all + of(need), 0);
  return { bytes: sum(({ bytes }) => bytes), files: sum(({ files }) => files) };
}

function fits(need: SpaceNeed, free: FreeSpace): boolean {
  return (free.bytes === null || need.bytes <= free.bytes) &&
    (free.files === null || need.files <= free.files);
}

/** `disk-full` with the numbers when it cannot fit. On filesystems that compress this refuses what might just have fit. */
export function requireSpace(folder: string, root: string, need: SpaceNeed): void {
  refuseUnlessFits(folder, root, need, freeSpaceAt(folder));
}

/** Whether it fits, as far as the filesystem says. */
export function hasSpace(folder: string, need: SpaceNeed): boolean {
  return fits(need, freeSpaceAt(folder));
}

function refuseUnlessFits(folder: string, root: string, need: SpaceNeed, free: FreeSpace): void {
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
