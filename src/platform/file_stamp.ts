/**
 * Cheap looks at whether a file has changed: one system call, on this thread, a few microseconds. For polling hundreds of
 * files several times a second, where an asynchronous call each would cost more than all else.
 */

export interface FileStamp {
  readonly sizeBytes: number;
  /** Whole milliseconds. */
  readonly modifiedMs: number;
  /** Another one: another file bears the name now. */
  readonly inode: number;
}

/** Follows links. Null where there is no file, or none that we may look at. */
export function fileStamp(path: string): FileStamp | null {
  try {
    const info = Deno.statSync(path);
    return { sizeBytes: info.size, modifiedMs: info.mtime?.getTime() ?? 0, inode: info.ino ?? 0 };
  } catch {
    return null;
  }
}

export function sameStamp(a: FileStamp | null, b: FileStamp | null): boolean {
  if (a === null || b === null) return a === b;
  return a.sizeBytes === b.sizeBytes && a.modifiedMs === b.modifiedMs && a.inode === b.inode;
}
