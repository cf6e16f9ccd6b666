/**
 * Deletes what a restore left over, and nothing else: only folders whose own name begins with `.sm-restore-`, never
 * across a mount, never through a symlink. Yields often, since the manager runs it beside its duties.
 */

import { StateManagerError } from "../platform/errors.ts";
import {
  AT_CWD,
  closeFd,
  isErrno,
  listNames,
  OPEN,
  openAt,
  type PathBytes,
  pathBytes,
  realFolder,
  removeFolderAt,
  setModeAt,
  statAt,
  statIfPresent,
  unlinkAt,
  withFolder,
} from "../platform/libc_files.ts";
import { isOwnName } from "./exclude.ts";
import { FORMER_PREFIX, HOLDER_PREFIX, idBeside, idInside, splitOwnPath } from "./holder.ts";

/** Entries removed between two breaths: about a millisecond of work. */
const REMOVALS_PER_TURN = 200;

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
    let count = 0;
    for (const _removed of removal(parentFd, name, stat.dev)) {
      if (++count % REMOVALS_PER_TURN === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    }
  } finally {
    closeFd(parentFd);
  }
}

/** Yields after each removed name. */
function* removal(folderFd: number, name: PathBytes, dev: bigint): Generator<void> {
  const stat = statIfPresent(folderFd, name);
  if (stat === null) return;
  if (stat.type !== "directory") {
    unlinkAt(folderFd, name);
    return yield;
  }
  if (stat.mountRoot || stat.dev !== dev) {
    throw new StateManagerError("local-io", "delete the old content: something is mounted inside it", {
      hint: "unmount it; the next restore or start deletes the rest",
    });
  }
  const fd = openWritable(folderFd, name);
  try {
    for (const child of listNames(fd)) yield* removal(fd, child, dev);
  } finally {
    closeFd(fd);
  }
  removeFolderAt(folderFd, name);
  yield;
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
export function findLeftovers(live: string, keep: ReadonlySet<string> = new Set()): string[] {
  const trimmed = realPath(live.replace(/\/+$/, ""));
  const cut = trimmed.lastIndexOf("/");
  const [parent, base] = [trimmed.slice(0, cut), trimmed.slice(cut + 1)];
  const gone = (id: string | null) => id !== null && !keep.has(id);
  const beside = namesIn(parent || "/").filter((name) => gone(idBeside(name, base)));
  const inside = namesIn(trimmed).filter((name) => gone(idInside(name)));
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

function namesIn(folder: string): string[] {
  try {
    return withFolder(pathBytes(folder), (fd) => listNames(fd).map((name) => new TextDecoder().decode(name)));
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR", "EACCES")) return [];
    throw error;
  }
}

/** True when a files root holds nothing of anybody's: missing, or empty but for lost+found and our own folders. */
export function isEmptyRoot(path: string): boolean {
  try {
    if (statAt(AT_CWD, pathBytes(path)).type === "file") return false;
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return true;
    throw error;
  }
  return withFolder(pathBytes(path), (fd) =>
    listNames(fd).every((name) => {
      const text = new TextDecoder().decode(name);
      return text === "lost+found" || isOwnName(text);
    }));
}
