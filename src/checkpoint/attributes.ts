/** Owner, mode, times and extended attributes of restored entries, and the account of what the system would not let us set. */

import {
  closeFd,
  isErrno,
  OPEN,
  openAt,
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
import { removeXattr, setXattr, type XattrPlace } from "../platform/libc_xattrs.ts";
import { bytesOf } from "./byte_text.ts";
import type { FileWarning, TreeEntry } from "./types.ts";
import { XATTR_REFUSALS, xattrKind } from "./xattrs.ts";

const SET_ID_BITS = 0o6000;
const PERMISSION_BITS = 0o777;
/** To read and write it. */
const OWN_BITS = 0o600;
const REFUSALS: readonly string[] = ["EPERM", "EACCES", "EINVAL", "EOPNOTSUPP"];
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
  allowed(what: string, path: PathBytes, action: () => void, refusals = REFUSALS): boolean {
    try {
      action();
      return true;
    } catch (error) {
      if (!isErrno(error, ...refusals)) throw error;
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

function hasOwner({ uid, gid }: TreeEntry, owner: DefaultOwner): boolean {
  return owner !== null && owner.uid === uid && owner.gid === gid;
}

/**
 * True where a new file may have its mode from the beginning: nothing that is set later changes it or needs another one,
 * and who makes it can open it once more.
 */
export function mayBeMadeWithMode(entry: TreeEntry, owner: DefaultOwner): boolean {
  return hasOwner(entry, owner) && entry.xattrs === undefined && (entry.mode & ~PERMISSION_BITS) === 0 &&
    (entry.mode & OWN_BITS) === OWN_BITS;
}

/**
 * Of an open file, when its content is complete: owner first, since that takes the set-id bits and a capability away.
 * Then extended attributes, which a user that is not root cannot set on a file that its mode protects from writing; then
 * mode and times. A file whose owner could not be set must not get set-id bits: they would lend our own rights instead.
 * `hasMode`: it has its mode, by `mayBeMadeWithMode`.
 */
export function setFileAttributes(
  fd: number,
  entry: TreeEntry,
  owner: DefaultOwner,
  refusals: Refusals,
  hasMode = false,
): void {
  const { path, uid, gid } = entry;
  const owned = hasOwner(entry, owner) ||
    refusals.allowed("owner", path, () => setOwnerFd(fd, uid, gid, path));
  setXattrs(entry, fd, refusals);
  const mode = owned ? entry.mode : entry.mode & ~SET_ID_BITS;
  if (!hasMode) refusals.allowed("mode", path, () => setModeFd(fd, mode, path));
  refusals.allowed("time", path, () => setTimesFd(fd, entry.mtimeNs, path));
}

/** By name below `folder`, for all that is no regular file. */
export function setNameAttributes(folder: number, entry: TreeEntry, refusals: Refusals): void {
  const path = entry.path.length === 0 ? DOT : entry.path;
  const owned = refusals.allowed("owner", entry.path, () => setOwnerAt(folder, path, entry.uid, entry.gid));
  if (entry.xattrs !== undefined) setXattrsByName(folder, entry, refusals);
  if (entry.type !== "symlink") {
    const mode = owned ? entry.mode : entry.mode & ~SET_ID_BITS;
    refusals.allowed("mode", entry.path, () => setModeAt(folder, path, mode));
  }
  refusals.allowed("time", entry.path, () => setTimesAt(folder, path, entry.mtimeNs));
}

function setXattrsByName(root: number, entry: TreeEntry, refusals: Refusals): void {
  if (entry.path.length === 0) return setXattrs(entry, root, refusals);
  const cut = entry.path.lastIndexOf(0x2f);
  const folder = cut < 0 ? DOT : entry.path.slice(0, cut);
  const folderFd = openAt(root, folder, OPEN.read | OPEN.directory);
  try {
    setXattrs(entry, { folderFd, name: entry.path.slice(cut + 1) }, refusals);
  } finally {
    closeFd(folderFd);
  }
}

function setXattrs(entry: TreeEntry, place: XattrPlace, refusals: Refusals): void {
  for (const { name, value } of entry.xattrs ?? []) {
    const set = () => setXattr(place, bytesOf(name), value);
    refusals.allowed(xattrKind(name), entry.path, set, XATTR_REFUSALS);
  }
}

/** Removes what a folder of ours has inherited, where it has. */
export function removeOwnXattr(folder: number, name: string): void {
  try {
    removeXattr(folder, pathBytes(name));
  } catch (error) {
    if (!isErrno(error, "ENODATA", "EOPNOTSUPP", "EPERM", "EACCES", "EINVAL")) throw error;
  }
}
