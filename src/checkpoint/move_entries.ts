/**
 * Moves everything in one folder into another by renames, where the folder itself cannot be renamed: it is the root
 * of a mount, or holds something that must stay (data dir, folder store, nested mount). Each rename is atomic, and
 * running the same move again after a crash does what is left, so the caller only has to know that it had begun.
 * A root can be very wide, and this runs in the manager: it gives the event loop its turn between renames. Nobody else
 * works on the two folders meanwhile.
 */

import {
  AT_CWD,
  closeFd,
  type FileStat,
  isErrno,
  makeFolderAt,
  OPEN,
  openAt,
  type PathBytes,
  pathBytes,
  removeFolderAt,
  renameAt,
  setModeAt,
  setOwnerAt,
  setTimesAt,
  showPath,
  statAt,
  statIfPresent,
} from "../platform/libc_files.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { Turns } from "../platform/turns.ts";
import { bytesOf, byteText, joinPath } from "./byte_text.ts";
import { isOwnName } from "./exclude.ts";
import { isBelow } from "./path_filter.ts";
import { listAllNames, managerTurns } from "./turns.ts";
import { copyXattrs } from "./xattrs.ts";

export interface MoveOptions {
  /** Only these paths (byte text, relative) with all below them; the folders that lead there are there. Left out: all. */
  readonly only?: readonly string[];
  /** Paths (byte text, relative) that stay where they are, in the source and in the target. */
  readonly keep: ReadonlySet<string>;
  /**
   * Where a thing goes that is in the way of one that moves in: a folder that is there; null: such a thing is an
   * error, since nobody else should write here now.
   */
  readonly displacedTo: PathBytes | null;
}

/** What could not be moved because a kept path is in its way, as shown paths. */
export type Unmoved = string[];

/** Moves all but `keep` and our own folders from the folder `from` to the existing folder `to`. */
export async function moveEntries(from: PathBytes, to: PathBytes, options: MoveOptions): Promise<Unmoved> {
  const unmoved: Unmoved = [];
  await moveInside({ from, to, prefix: "", options, unmoved, turns: managerTurns() });
  return unmoved;
}

interface Move {
  readonly from: PathBytes;
  readonly to: PathBytes;
  /** Of the folder inside the tree: "" or "a/b/", byte text. */
  readonly prefix: string;
  readonly options: MoveOptions;
  readonly unmoved: Unmoved;
  readonly turns: Turns;
}

const DOT = pathBytes(".");

async function moveInside(move: Move): Promise<void> {
  const fromFd = openAt(AT_CWD, move.from, OPEN.read | OPEN.directory | OPEN.noFollow);
  try {
    const toFd = openAt(AT_CWD, move.to, OPEN.read | OPEN.directory | OPEN.noFollow);
    try {
      for (const name of await listAllNames(fromFd, move.turns)) {
        const merging = moveOne(move, fromFd, toFd, name) ?? move.turns.next();
        if (merging !== null) await merging;
      }
    } finally {
      closeFd(toFd);
    }
  } finally {
    closeFd(fromFd);
  }
}

function holdsKept(keep: ReadonlySet<string>, path: string): boolean {
  for (const kept of keep) if (kept.startsWith(path + "/")) return true;
  return false;
}

/** A promise where it needs more than a rename. */
function moveOne(move: Move, fromFd: number, toFd: number, name: PathBytes): Promise<void> | null {
  const text = byteText(name);
  const path = move.prefix + text;
  const { keep, only } = move.options;
  if (keep.has(path) || isOwnName(text)) return null;
  const place = only === undefined ? "inside" : placeOf(path, only);
  if (place === "beside") return null;
  const stat = statIfPresent(fromFd, name);
  if (stat === null) return null;
  if (place === "above") return passThrough(move, toFd, name, stat);
  if (holdsKept(keep, path)) {
    if (stat.type === "directory") return mergeFolder(move, fromFd, toFd, name, stat);
    move.unmoved.push(showPath(bytesOf(path)));
    return null;
  }
  try {
    renameAt(fromFd, name, toFd, name, "no-replace");
    return null;
  } catch (error) {
    // EXDEV for a folder: an overlay does not rename folders of its image. EEXIST: merged before a crash, or in the way.
    const folder = stat.type === "directory";
    if (isErrno(error, "EXDEV") && folder) return mergeFolder(move, fromFd, toFd, name, stat);
    if (isErrno(error, "EEXIST", "ENOTEMPTY")) return moveOver(move, fromFd, toFd, name, stat);
    throw error;
  }
}

/** Where `path` is, seen from the paths that move. */
function placeOf(path: string, only: readonly string[]): "inside" | "above" | "beside" {
  if (isBelow(path, only)) return "inside";
  return only.some((each) => each.startsWith(`${path}/`)) ? "above" : "beside";
}

/** A folder that stays and holds something that moves. What is no folder here has nothing to move. */
function passThrough(move: Move, toFd: number, name: PathBytes, stat: FileStat): Promise<void> | null {
  if (stat.type !== "directory") return null;
  if (statIfPresent(toFd, name) === null) makeFolderAt(toFd, name, 0o700);
  return moveInside({
    ...move,
    from: joinPath(move.from, name),
    to: joinPath(move.to, name),
    prefix: `${move.prefix}${byteText(name)}/`,
  });
}

function moveOver(
  move: Move,
  fromFd: number,
  toFd: number,
  name: PathBytes,
  stat: FileStat,
): Promise<void> | null {
  if (stat.type === "directory" && statAt(toFd, name).type === "directory") {
    return mergeFolder(move, fromFd, toFd, name, stat);
  }
  const { displacedTo } = move.options;
  if (displacedTo === null) {
    throw new StateManagerError(
      "local-io",
      `move ${showPath(name)} aside: something has its name there already`,
      {
        hint: "stop what else writes into this folder, then start again",
      },
    );
  }
  const asideFd = openAt(AT_CWD, displacedTo, OPEN.read | OPEN.directory);
  try {
    renameAt(toFd, name, asideFd, freeName(asideFd, name), "no-replace");
  } finally {
    closeFd(asideFd);
  }
  renameAt(fromFd, name, toFd, name, "no-replace");
  return null;
}

function freeName(folderFd: number, name: PathBytes): PathBytes {
  let free = name;
  for (let n = 1; statIfPresent(folderFd, free) !== null; n++) {
    const suffix = pathBytes(`.${n}`);
    free = new Uint8Array(name.length + suffix.length);
    free.set(name);
    free.set(suffix, name.length);
  }
  return free;
}

/** Moves what is in one folder into its namesake, which then gets its attributes, and removes it if it is empty. */
async function mergeFolder(
  move: Move,
  fromFd: number,
  toFd: number,
  name: PathBytes,
  stat: FileStat,
): Promise<void> {
  const there = statIfPresent(toFd, name);
  if (there === null) makeFolderAt(toFd, name, 0o700);
  else if (there.type !== "directory") {
    move.unmoved.push(showPath(bytesOf(move.prefix + byteText(name))));
    return;
  }
  const child = (parent: PathBytes) => joinPath(parent, name);
  const prefix = `${move.prefix}${byteText(name)}/`;
  await moveInside({ ...move, from: child(move.from), to: child(move.to), prefix });
  copyXattrs({ folderFd: fromFd, name }, { folderFd: toFd, name });
  copyAttributes(toFd, name, stat);
  try {
    removeFolderAt(fromFd, name);
  } catch (error) {
    if (!isErrno(error, "ENOTEMPTY", "EEXIST", "EBUSY")) throw error; // something kept is inside
    setTimesAt(fromFd, name, stat.mtimeNs);
  }
}

/** Best effort for a user without the right to give files away. */
export function copyAttributes(
  folderFd: number,
  name: PathBytes,
  stat: Pick<FileStat, "uid" | "gid" | "mode" | "mtimeNs">,
): void {
  const path = name.length === 0 ? DOT : name;
  try {
    setOwnerAt(folderFd, path, stat.uid, stat.gid);
  } catch (error) {
    if (!isErrno(error, "EPERM", "EINVAL", "EOPNOTSUPP")) throw error;
  }
  try {
    setModeAt(folderFd, path, stat.mode);
    setTimesAt(folderFd, path, stat.mtimeNs);
  } catch (error) {
    if (!isErrno(error, "EPERM", "EOPNOTSUPP")) throw error; // a volume's root that belongs to somebody else
  }
}
