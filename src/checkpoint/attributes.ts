/** Owner, mode and times of restored entries, and the account of what the system would not let us set. */

import {
  isErrno,
  type PathBytes,
  pathBytes,
  setModeAt,
  setModeFd,
  setOwnerAt,
  setOwnerFd,
  setTimesAt,
  setTimesFd,
  showPath,
} from "../platform/libc_files.ts";
import type { FileWarning, TreeEntry } from "./types.ts";

const SET_ID_BITS = 0o6000;
const DOT = pathBytes(".");

/** Who owns a file that this process makes in the stage; null where that is not certain, and each owner is set. */
export type DefaultOwner = { readonly uid: number; readonly gid: number } | null;

/** What was refused of one kind: how often, and where first. Travels between threads. */
export interface Refused {
  readonly what: string;
  readonly first: PathBytes;
  readonly count: number;
}

/** Counts attributes that could not be set, which is never a failure. */
export class Refusals {
  readonly #seen = new Map<string, Refused>();

  /**
   * Does what a user without the right, or a poorer filesystem, may refuse. EINVAL is an owner that a user namespace
   * does not map. False: it was refused.
   */
  allowed(what: string, path: PathBytes, action: () => void): boolean {
    try {
      action();
      return true;
    } catch (error) {
      if (!isErrno(error, "EPERM", "EACCES", "EINVAL", "EOPNOTSUPP")) throw error;
      this.add([{ what, first: path, count: 1 }]);
      return false;
    }
  }

  add(more: readonly Refused[]): void {
    for (const one of more) {
      const seen = this.#seen.get(one.what) ?? { ...one, count: 0 };
      this.#seen.set(one.what, { ...seen, count: seen.count + one.count });
    }
  }

  list(): Refused[] {
    return [...this.#seen.values()];
  }

  warnings(root: string): FileWarning[] {
    return this.list().map(({ what, first, count }) => ({
      root,
      path: showPath(first),
      reason: `${what} not set, here and on ${
        count - 1
      } others: not permitted, or not known to this filesystem`,
    }));
  }
}

/**
 * Of an open file, when its content is complete: owner first, since that takes the set-id bits away, then mode, then
 * times. A file whose owner could not be set must not get set-id bits: they would lend our own rights instead.
 */
export function setFileAttributes(
  fd: number,
  entry: TreeEntry,
  owner: DefaultOwner,
  refusals: Refusals,
): void {
  const { path, uid, gid } = entry;
  const owned = (owner !== null && owner.uid === uid && owner.gid === gid) ||
    refusals.allowed("owner", path, () => setOwnerFd(fd, uid, gid, path));
  const mode = owned ? entry.mode : entry.mode & ~SET_ID_BITS;
  refusals.allowed("mode", path, () => setModeFd(fd, mode, path));
  refusals.allowed("time", path, () => setTimesFd(fd, entry.mtimeNs, path));
}

/** By name below `folder`, for all that is no regular file. */
export function setNameAttributes(folder: number, entry: TreeEntry, refusals: Refusals): void {
  const path = entry.path.length === 0 ? DOT : entry.path;
  const owned = refusals.allowed("owner", entry.path, () => setOwnerAt(folder, path, entry.uid, entry.gid));
  if (entry.type !== "symlink") {
    const mode = owned ? entry.mode : entry.mode & ~SET_ID_BITS;
    refusals.allowed("mode", entry.path, () => setModeAt(folder, path, mode));
  }
  refusals.allowed("time", entry.path, () => setTimesAt(folder, path, entry.mtimeNs));
}
