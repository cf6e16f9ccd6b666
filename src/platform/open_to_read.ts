/** How the files are opened that a checkpoint reads: they are others', and nothing of them changes. */

import { isErrno, OPEN, openBeneath, type PathBytes } from "./libc_files.ts";

let mayKeepAtime = true;

/**
 * Opens a file below `rootFd` for reading, as `openBeneath`, and leaves the time of its last access alone: writing that for
 * each file of a tree takes as long as opening it, and it would tell of us and not of a program. Only a file's owner may ask for it.
 */
export function openToRead(rootFd: number, path: PathBytes): number {
  const flags = OPEN.read | OPEN.nonBlocking;
  if (!mayKeepAtime) return openBeneath(rootFd, path, flags);
  try {
    return openBeneath(rootFd, path, flags | OPEN.noAtime);
  } catch (error) {
    if (!isErrno(error, "EPERM")) throw error;
    mayKeepAtime = false; // nor of the next ones, most likely
    return openBeneath(rootFd, path, flags);
  }
}
