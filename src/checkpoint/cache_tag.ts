/**
 * Folders of caches by the Cache Directory Tagging Specification (https://bford.info/cachedir/): one that holds a
 * regular file CACHEDIR.TAG which begins with the signature. Its program can make anew what is in it.
 */

import { NO_DESCRIPTOR } from "../platform/errno.ts";
import {
  closeFd,
  isErrno,
  LibcError,
  OPEN,
  openAt,
  pathBytes,
  readAt,
  statIfPresent,
} from "../platform/libc_files.ts";
import { byteText } from "./byte_text.ts";

/** The file that stays of such a folder. */
export const CACHE_TAG = "CACHEDIR.TAG";
const SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55";
const tagName = pathBytes(CACHE_TAG);
const buffer = new Uint8Array(SIGNATURE.length);

/** True when the open folder is one. A tag that cannot be read is none: to keep too much loses nothing. */
export function isCacheFolder(folderFd: number): boolean {
  try {
    if (statIfPresent(folderFd, tagName)?.type !== "file") return false;
    const fd = openAt(folderFd, tagName, OPEN.read | OPEN.noFollow | OPEN.nonBlocking);
    try {
      return readAt(fd, buffer, 0) === buffer.length && byteText(buffer) === SIGNATURE;
    } finally {
      closeFd(fd);
    }
  } catch (error) {
    if (error instanceof LibcError && !isErrno(error, ...NO_DESCRIPTOR)) return false;
    throw error;
  }
}
