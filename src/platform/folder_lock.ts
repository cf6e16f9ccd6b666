/**
 * One manager per data folder: an exclusive flock by libc, so that the kernel frees it however the holder dies.
 * Opened with O_CLOEXEC (children never keep it) and LOCK_NB (a holder that is stopped cannot make us hang).
 */

import { errnoReader } from "./errno.ts";
import { StateManagerError } from "./errors.ts";
import { statFd } from "./libc_files.ts";

const O_RDWR_CREAT_CLOEXEC = 0o2 | 0o100 | 0o2000000;
const LOCK_EX_NB = 2 | 4;
const EPERM = 1;
const EINTR = 4;
const EWOULDBLOCK = 11;
const EACCES = 13;
const EROFS = 30;

export interface FolderLock {
  /**
   * "<device>:<inode>" of the locked file. On one boot of one machine no other file that exists has it: a copy of the
   * folder has another inode.
   */
  readonly identity: string;
  /** Lets the next one in. The file stays: removing it would race with its next opener. */
  release(): void;
}

/** The calls that a lock takes. What fails gives less than 0, and its errno at once after it. */
export interface LockCalls {
  open(path: string): number;
  /** flock, exclusive, without a wait. */
  lock(descriptor: number): number;
  close(descriptor: number): void;
  errno(): number;
}

let opened: LockCalls | undefined;

function systemCalls(): LockCalls {
  return opened ??= bindCalls();
}

function bindCalls(): LockCalls {
  const { symbols } = Deno.dlopen("libc.so.6", {
    open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
    flock: { parameters: ["i32", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
  });
  return {
    open: (path) => symbols.open(new TextEncoder().encode(path + "\0"), O_RDWR_CREAT_CLOEXEC, 0o600),
    lock: (descriptor) => symbols.flock(descriptor, LOCK_EX_NB),
    close: (descriptor) => void symbols.close(descriptor),
    errno: errnoReader(),
  };
}

/**
 * Takes the lock on the file `path`, or returns null when a living process holds it. Throws an error that ends in
 * "(os error N)" when it cannot be opened, `data-dir-unwritable` when its file system gives no locks.
 */
export function lockFolder(path: string, calls: LockCalls = systemCalls()): FolderLock | null {
  const descriptor = calls.open(path);
  if (descriptor < 0) throw openError(path, calls.errno());
  const errno = lock(calls, descriptor);
  if (errno !== 0) {
    calls.close(descriptor);
    if (errno === EWOULDBLOCK) return null;
    throw new StateManagerError(
      "data-dir-unwritable",
      `lock ${path}: its file system refuses (os error ${errno})`,
      {
        hint:
          "a network mount may have its locks switched off: mount it with locks, or choose a folder on a local disk",
      },
    );
  }
  return { identity: identityOf(descriptor), release: () => calls.close(descriptor) };
}

/** Errno, 0 when it is ours. */
function lock(calls: LockCalls, descriptor: number): number {
  while (calls.lock(descriptor) !== 0) {
    const errno = calls.errno();
    if (errno !== EINTR) return errno;
  }
  return 0;
}

function openError(path: string, errno: number): Error {
  const text = `open ${path}: refused by the system (os error ${errno})`;
  return [EPERM, EACCES, EROFS].includes(errno) ? new Deno.errors.PermissionDenied(text) : new Error(text);
}

function identityOf(descriptor: number): string {
  const { dev, ino } = statFd(descriptor);
  return `${dev}:${ino}`;
}
