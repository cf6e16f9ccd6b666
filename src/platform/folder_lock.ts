/**
 * One manager per data folder: an exclusive flock by libc, so that the kernel frees it however the holder dies.
 * Opened with O_CLOEXEC (children never keep it) and LOCK_NB (a holder that is stopped cannot make us hang).
 */

import { statFd } from "./libc_files.ts";

const O_RDWR_CREAT_CLOEXEC = 0o2 | 0o100 | 0o2000000;
const LOCK_EX_NB = 2 | 4;

export interface FolderLock {
  /**
   * "<device>:<inode>" of the locked file. On one boot of one machine no other file that exists has it: a copy of the
   * folder has another inode.
   */
  readonly identity: string;
  /** Lets the next one in. The file stays: removing it would race with its next opener. */
  release(): void;
}

/** Takes the lock on the file `path`, or returns null when a living process holds it. Throws when it cannot be opened. */
export function lockFolder(path: string): FolderLock | null {
  const libc = Deno.dlopen("libc.so.6", {
    open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
    flock: { parameters: ["i32", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
  });
  const descriptor = libc.symbols.open(new TextEncoder().encode(path + "\0"), O_RDWR_CREAT_CLOEXEC, 0o600);
  if (descriptor < 0) throw new Deno.errors.PermissionDenied(`open ${path}: refused by the system`);
  if (libc.symbols.flock(descriptor, LOCK_EX_NB) !== 0) {
    libc.symbols.close(descriptor);
    return null;
  }
  return {
    identity: identityOf(descriptor),
    release: () => {
      libc.symbols.close(descriptor);
    },
  };
}

function identityOf(descriptor: number): string {
  const { dev, ino } = statFd(descriptor);
  return `${dev}:${ino}`;
}
