/**
 * Byte text: a path as a string with one character per byte. It sorts as the bytes do, serves as a key of maps and
 * goes through JSON unharmed, whatever the bytes are. It is not for people: `showPath` is.
 */

import { Buffer } from "node:buffer";
import type { PathBytes } from "../platform/libc_files.ts";

export function byteText(bytes: PathBytes): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

export function bytesOf(text: string): PathBytes {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** `folder`/`name`; the empty folder is the root, whose names stand alone. */
export function joinPath(folder: PathBytes, name: PathBytes): PathBytes {
  if (folder.length === 0) return name;
  const joined = new Uint8Array(folder.length + 1 + name.length);
  joined.set(folder);
  joined[folder.length] = 0x2f;
  joined.set(name, folder.length + 1);
  return joined;
}
