/**
 * Which extended attributes a checkpoint keeps, and how they are read and copied. Kept are what programs and people
 * set (`user.*`, `trusted.*`), ACLs, and file capabilities. Labels and signatures of security modules are the
 * machine's own and would be wrong, or refused, on another one.
 */

import { isErrno, isRoot, LibcError, type PathBytes } from "../platform/libc_files.ts";
import { getXattr, listXattrs, setXattr, type XattrPlace } from "../platform/libc_xattrs.ts";
import { bytesOf, byteText } from "./byte_text.ts";
import type { TreeEntry, Xattr } from "./types.ts";

const ACLS: readonly string[] = ["system.posix_acl_access", "system.posix_acl_default"];
const CAPABILITY = "security.capability";
/**
 * All of one entry: its names, values and this much for each in the manifest. Holds one value of the largest size that
 * Linux has, and keeps a line of a manifest below its limit.
 */
export const XATTRS_LIMIT_BYTES = 96 * 1024;
const OVERHEAD_BYTES = 16;

/** True for a name (byte text) that is kept, and set in a restore; all others are nobody's business here. */
export function isKeptXattr(name: string): boolean {
  return /^(?:user|trusted)\../s.test(name) || name === CAPABILITY || ACLS.includes(name);
}

/** What a kept attribute is called in warnings. */
export function xattrKind(name: string): string {
  if (ACLS.includes(name)) return "ACL";
  return name === CAPABILITY ? "file capability" : `extended attribute (${name.split(".")[0]}.*)`;
}

/** What it takes of `XATTRS_LIMIT_BYTES`. */
export function xattrBytes({ name, value }: Xattr): number {
  return name.length + value.length + OVERHEAD_BYTES;
}

/** What vanished between two calls is no error. */
const GONE: readonly string[] = ["ENODATA", "ENOENT", "ENOTDIR", "ESTALE"];

/** Reads attributes for one run over a tree. A filesystem that has none is asked once, not once per file. */
export class XattrReader {
  readonly #warn: (path: PathBytes, reason: string) => void;
  /** Device and type: some filesystems have them on files, not on links. */
  readonly #without = new Set<string>();

  constructor(warn: (path: PathBytes, reason: string) => void) {
    this.#warn = warn;
  }

  /** The kept attributes of `place`, as the part of its entry; nothing where it has none. */
  read(
    place: XattrPlace,
    { path, type }: Pick<TreeEntry, "path" | "type">,
    dev: bigint,
  ): Pick<TreeEntry, "xattrs"> {
    // Links and fifos can have trusted.* only, which nobody else sees.
    if ((type === "symlink" || type === "fifo") && !isRoot()) return {};
    const device = `${dev} ${type}`;
    if (this.#without.has(device)) return {};
    try {
      const names = listXattrs(place);
      return names.length === 0 ? {} : this.#values(place, path, names);
    } catch (error) {
      if (isErrno(error, "EOPNOTSUPP", "ENOSYS")) this.#without.add(device);
      else this.#failed(path, error);
      return {};
    }
  }

  #values(place: XattrPlace, path: PathBytes, names: readonly PathBytes[]): Pick<TreeEntry, "xattrs"> {
    const kept = names.map(byteText).filter(isKeptXattr).sort();
    const xattrs: Xattr[] = [];
    let bytes = 0;
    let omitted = 0;
    for (const name of kept) {
      const xattr = this.#value(place, path, name);
      if (xattr === null) continue;
      const withIt = bytes + xattrBytes(xattr);
      if (withIt > XATTRS_LIMIT_BYTES) {
        omitted++;
        continue;
      }
      bytes = withIt;
      xattrs.push(xattr);
    }
    if (omitted > 0) {
      const limit = `${XATTRS_LIMIT_BYTES / 1024} KiB`;
      this.#warn(path, `${omitted} extended attributes left out: more than ${limit} of them`);
    }
    return xattrs.length === 0 ? {} : { xattrs };
  }

  #value(place: XattrPlace, path: PathBytes, name: string): Xattr | null {
    try {
      return { name, value: getXattr(place, bytesOf(name)) };
    } catch (error) {
      this.#failed(path, error);
      return null;
    }
  }

  #failed(path: PathBytes, error: unknown): void {
    if (!(error instanceof LibcError)) throw error;
    if (!GONE.includes(error.errno)) this.#warn(path, `extended attributes not read: ${error.errno}`);
  }
}

/** What a user without the right, or a poorer filesystem, answers. ENOSPC and E2BIG: no room in the inode. */
export const XATTR_REFUSALS: readonly string[] = [
  "EPERM",
  "EACCES",
  "EINVAL",
  "EOPNOTSUPP",
  "ENOSPC",
  "E2BIG",
  "ERANGE",
];

/** Best effort, for a folder that takes another one's place. */
export function copyXattrs(from: XattrPlace, to: XattrPlace): void {
  try {
    for (const name of listXattrs(from)) {
      if (isKeptXattr(byteText(name))) setXattr(to, name, getXattr(from, name));
    }
  } catch (error) {
    if (!isErrno(error, "ENODATA", ...XATTR_REFUSALS)) throw error;
  }
}
