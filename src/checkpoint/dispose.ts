/**
 * Deletes what a restore left over, and nothing else: only folders whose own name begins with `.sm-restore-`, never
 * across a mount, never through a symlink. Yields often, since the manager runs it beside its duties.
 */

import { StateManagerError } from "../platform/errors.ts";
import {
  AT_CWD,
  closeFd,
  isErrno,
  listNameBatches,
  OPEN,
  openAt,
  type PathBytes,
  pathBytes,
  realFolder,
  removeFolderAt,
  setModeAt,
  statAt,
  statIfPresent,
  unlinkAside,
  unlinkAt,
  withFolder,
} from "../platform/libc_files.ts";
import type { Turns } from "../platform/turns.ts";
import { type Excluder, excluderOf, isOwnName, keptPaths } from "./exclude.ts";
import { FORMER_PREFIX, HOLDER_PREFIX, idBeside, idInside, splitOwnPath } from "./holder.ts";
import { listAllNames, managerTurns } from "./turns.ts";
import type { FilesRoot } from "./types.ts";

/** From this size on removing a file, and from so many names that it held a folder, can hold the thread for long. */
const LARGE_BYTES = 64 * 1024 * 1024;
const LARGE_NAMES = 5000;

/** Removes a `.sm-restore-…` folder with all in it. What is mounted inside stays, and is an error. */
export function disposeHolder(holder: string): Promise<void> {
  return dispose(holder, HOLDER_PREFIX);
}

/** The same for one former stage inside of a holder. */
export function disposeFormer(former: string): Promise<void> {
  return dispose(former, FORMER_PREFIX);
}

async function dispose(path: string, prefix: string): Promise<void> {
  const own = splitOwnPath(path, prefix);
  const [parent, name] = [pathBytes(own.parent), pathBytes(own.name)];
  const parentFd = openAt(AT_CWD, parent, OPEN.read | OPEN.directory);
  try {
    const stat = statIfPresent(parentFd, name);
    if (stat === null) return;
    await remove(parentFd, name, { dev: stat.dev, turns: managerTurns() });
  } finally {
    closeFd(parentFd);
  }
}

interface Removal {
  /** Device of the whole: what lies on another one is mounted there. */
  readonly dev: bigint;
  readonly turns: Turns;
}

async function remove(folderFd: number, name: PathBytes, removal: Removal): Promise<void> {
  const stat = statIfPresent(folderFd, name);
  if (stat === null) return;
  if (stat.type !== "directory") {
    if (stat.size < LARGE_BYTES) unlinkAt(folderFd, name);
    else await unlinkAside(folderFd, name, "file");
    return;
  }
  if (stat.mountRoot || stat.dev !== removal.dev) {
    throw new StateManagerError("local-io", "delete the old content: something is mounted inside it", {
      hint: "unmount it; the next restore or start deletes the rest",
    });
  }
  const fd = openWritable(folderFd, name);
  let count = 0;
  try {
    const names = await listAllNames(fd, removal.turns);
    count = names.length;
    for (const child of names) {
      await remove(fd, child, removal);
      const pause = removal.turns.next();
      if (pause !== null) await pause;
    }
  } finally {
    closeFd(fd);
  }
  if (count < LARGE_NAMES) removeFolderAt(folderFd, name);
  else await unlinkAside(folderFd, name, "folder");
}

/** A folder that its owner may not write in (mode 0500) can be emptied only after it got the right. */
function openWritable(folderFd: number, name: PathBytes): number {
  const flags = OPEN.read | OPEN.directory | OPEN.noFollow;
  try {
    setModeAt(folderFd, name, 0o700);
  } catch (error) {
    if (!isErrno(error, "EPERM")) throw error;
  }
  return openAt(folderFd, name, flags);
}

/**
 * Folders of ours beside and inside `live` that an interrupted restore left, but those of the restores `keep`; delete
 * them when no journal names them.
 */
export async function findLeftovers(live: string, keep: ReadonlySet<string> = new Set()): Promise<string[]> {
  const trimmed = realPath(live.replace(/\/+$/, ""));
  const cut = trimmed.lastIndexOf("/");
  const [parent, base] = [trimmed.slice(0, cut), trimmed.slice(cut + 1)];
  const gone = (id: string | null) => id !== null && !keep.has(id);
  const beside = (await holdersIn(parent || "/")).filter((name) => gone(idBeside(name, base)));
  const inside = (await holdersIn(trimmed)).filter((name) => gone(idInside(name)));
  return [...beside.map((name) => `${parent}/${name}`), ...inside.map((name) => `${trimmed}/${name}`)];
}

/** A root may be a symlink: its holders are where it leads. */
function realPath(path: string): string {
  try {
    return new TextDecoder().decode(realFolder(pathBytes(path)));
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR", "EACCES")) return path;
    throw error;
  }
}

async function holdersIn(folder: string): Promise<string[]> {
  let fd: number;
  try {
    fd = openAt(AT_CWD, pathBytes(folder), OPEN.read | OPEN.directory);
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR", "EACCES")) return [];
    throw error;
  }
  try {
    const names = await listAllNames(fd, managerTurns());
    // By the first byte before all else: the folder may be wide.
    return names.filter((name) => name[0] === DOT).map((name) => new TextDecoder().decode(name))
      .filter((name) => name.startsWith(HOLDER_PREFIX));
  } finally {
    closeFd(fd);
  }
}

const DOT = 0x2e;

/**
 * True when a files root holds nothing of anybody's: missing, or empty but for lost+found, our own folders and what is
 * kept out of it by path or pattern (a replicated database for one), with the folders that hold nothing else. An empty
 * folder counts, unless it is there for what is kept out.
 */
export function isEmptyRoot(root: Pick<FilesRoot, "path" | "exclude" | "excludePaths">): boolean {
  try {
    if (statAt(AT_CWD, pathBytes(root.path)).type === "file") return false;
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return true;
    throw error;
  }
  const { path, exclude, excludePaths } = root;
  const places = [...keptPaths(path, excludePaths).map((each) => `/${each}`), ...exclude];
  const isPlace = (folder: string) => places.some((each) => each.startsWith(`/${folder}/`));
  return holdings(path, { excluded: excluderOf(root), isPlace }, "") !== "something";
}

interface Kept {
  readonly excluded: Excluder;
  /** True for a folder on the way to something that is kept out. */
  readonly isPlace: (folder: string) => boolean;
}

function holdings(path: string, kept: Kept, below: string): "nothing" | "excluded" | "something" {
  return withFolder(pathBytes(path), (fd) => {
    let found: "nothing" | "excluded" = "nothing";
    for (const names of listNameBatches(fd)) {
      for (const name of names) {
        if (below === "" && isNobodys(name)) continue;
        const text = new TextDecoder().decode(name);
        const isFolder = statIfPresent(fd, name)?.type === "directory";
        if (!kept.excluded(below + text, isFolder)) {
          const inside = isFolder ? holdings(`${path}/${text}`, kept, `${below}${text}/`) : "something";
          if (inside === "something") return inside;
          if (inside === "nothing" && !kept.isPlace(below + text)) return "something";
        }
        found = "excluded";
      }
    }
    return found;
  });
}

function isNobodys(name: PathBytes): boolean {
  const text = new TextDecoder().decode(name);
  return text === "lost+found" || isOwnName(text);
}
