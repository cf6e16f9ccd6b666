/**
 * Reads one file of a root: where its data is, its bytes, and whether it changed while it was read. A file that a
 * program writes to is read again (FUZZY_READS times in all) and then taken as it is, with a warning: its content is
 * a mix of states. Opens beneath the root only, never through a symlink.
 */

import {
  AT_CWD,
  closeFd,
  LibcError,
  OPEN,
  openAt,
  type PathBytes,
  pathBytes,
  readAt,
  seekData,
  seekHole,
  showPath,
  statFd,
} from "../platform/libc_files.ts";
import { openToRead } from "../platform/open_to_read.ts";
import { entryOf, factsOf } from "./scan.ts";
import type { ScanFacts, TreeEntry } from "./types.ts";
import type { XattrReader } from "./xattrs.ts";

/** Times that a changing file is read before its content is taken as it is. */
export const FUZZY_READS = 3;

export interface Extent {
  readonly kind: "data" | "hole";
  readonly offset: number;
  readonly length: number;
}

/** A file opened for reading; `close` must be called. Throws LibcError ("ENOENT" where the file vanished). */
export interface OpenFile {
  /** The entry with size, times and attributes as they are now: this, not the scan's, belongs to what is read. */
  readonly entry: TreeEntry;
  readonly facts: ScanFacts;
  readonly fd: number;
  /** Data and holes from 0 to `entry.size`, in order, without gaps. */
  extents(): Extent[];
  /** Fills `buffer` from `offset`; fewer bytes only at the end of the file. */
  read(offset: number, buffer: Uint8Array<ArrayBuffer>): number;
  /** True when size, mtime or ctime are not those of `entry` any more. */
  changed(): boolean;
  close(): void;
}

/** Opens the folder that `openForReading` takes; close it with `closeFd`. */
export function openRootFolder(path: string): number {
  return openAt(AT_CWD, pathBytes(path), OPEN.read | OPEN.directory);
}

/** Opens the file at `path` below the root that `openRootFolder` opened; without `xattrs` these are not asked for. */
export function openForReading(rootFd: number, path: PathBytes, xattrs?: XattrReader): OpenFile {
  const fd = openToRead(rootFd, path);
  try {
    const stat = statFd(fd);
    // Another kind of thing has the name now: the file that was scanned is gone.
    if (stat.type !== "file") throw new LibcError(`open ${showPath(path)}`, "ENOENT");
    const entry = entryOf(path, stat, "file");
    const found = xattrs?.read(fd, entry, stat.dev);
    return openFile(fd, found?.xattrs === undefined ? entry : { ...entry, ...found }, factsOf(stat));
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

function openFile(fd: number, entry: TreeEntry, facts: ScanFacts): OpenFile {
  return {
    entry,
    facts,
    fd,
    extents: () => extentsOf(fd, entry.size, facts.blocks),
    read: (offset, buffer) => readAt(fd, buffer, offset),
    changed() {
      const now = statFd(fd);
      return now.size !== entry.size || now.mtimeNs !== entry.mtimeNs || now.ctimeNs !== facts.ctimeNs;
    },
    close: () => closeFd(fd),
  };
}

/** Data and holes of an open file of this size, which has so many blocks of 512 bytes. */
export function extentsOf(fd: number, size: number, blocks: number): Extent[] {
  if (size === 0) return [];
  if (blocks * 512 >= size) return [{ kind: "data", offset: 0, length: size }]; // no room for a hole
  const extents: Extent[] = [];
  for (let at = 0; at < size;) {
    const data = Math.min(seekData(fd, at) ?? size, size);
    if (data > at) extents.push({ kind: "hole", offset: at, length: data - at });
    if (data === size) break;
    const hole = Math.min(seekHole(fd, data) ?? size, size);
    extents.push({ kind: "data", offset: data, length: hole - data });
    at = hole;
  }
  return extents;
}
