/**
 * Files that some process has mapped to write into them. Such a write makes no system call, and the kernel moves the
 * file's times only at the first one to each page since that page was written to the disk; on a filesystem in memory only
 * at the very first. So while the mapping lasts, times do not tell that nothing changed.
 */

import { isOutOfDescriptors } from "./errno.ts";
import { listProcPids } from "./libc_proc.ts";

/** "address perms offset device inode path"; shared and writable. */
const SHARED_WRITABLE = /^[0-9a-f]+-[0-9a-f]+ .w.s [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ ([1-9]\d*) +(\S.*)$/gm;
/** Memory that programs share, under names that no path has. */
const NO_FILE = /^(\/memfd:|\/dev\/zero|\/SYSV|anon_inode:|\/dmabuf)/;

/** Inode numbers, of all filesystems: a file of another one that has the same number is taken for mapped, too. */
export function mappedInodes(): ReadonlySet<bigint> {
  const inodes = new Set<bigint>();
  for (const pid of listProcPids()) for (const inode of inodesIn(readMaps(pid))) inodes.add(inode);
  return inodes;
}

/** Of the text of a maps file. */
export function inodesIn(maps: string): bigint[] {
  return [...maps.matchAll(SHARED_WRITABLE)].filter(([, , path = ""]) => !NO_FILE.test(path))
    .map(([, inode = "0"]) => BigInt(inode));
}

/** Empty where the process is gone, or is not ours to look into. Throws for want of descriptors: that says nothing. */
function readMaps(pid: number): string {
  try {
    return new TextDecoder("latin1").decode(Deno.readFileSync(`/proc/${pid}/maps`));
  } catch (error) {
    if (isOutOfDescriptors(error)) throw error;
    return "";
  }
}
