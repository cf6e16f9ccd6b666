/**
 * Extended attributes by way of glibc, since the runtime has no call for them. ACLs and file capabilities are such
 * attributes, too. Everything is synchronous; every failure is a LibcError ("ENODATA": there is none of that name,
 * "EOPNOTSUPP": the filesystem has none at all).
 */

import { errnoReader } from "./errno.ts";
import { libcError, type PathBytes, pathBytes, showPath } from "./libc_files.ts";

/**
 * What an attribute belongs to: an open file or folder, or a name in an open folder, which is never followed where it
 * is a symlink. Names work for all that cannot be opened without harm, such as a fifo; they need /proc.
 */
export type XattrPlace = number | { readonly folderFd: number; readonly name: PathBytes };

/** The kernel's own limits, XATTR_LIST_MAX and XATTR_SIZE_MAX. */
const LIST_BYTES_MAX = 64 * 1024;
const VALUE_BYTES_MAX = 64 * 1024;
/** For the first try: the kernel allocates what it is offered, and mostly there is nothing, or a label. */
const SHORT_LIST_BYTES = 256;
/** XATTR_NAME_MAX, and the closing NUL. */
const NAME_BYTES_MAX = 256;

const SYMBOLS = {
  flistxattr: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  llistxattr: { parameters: ["buffer", "buffer", "usize"], result: "isize" },
  fgetxattr: { parameters: ["i32", "buffer", "buffer", "usize"], result: "isize" },
  lgetxattr: { parameters: ["buffer", "buffer", "buffer", "usize"], result: "isize" },
  fsetxattr: { parameters: ["i32", "buffer", "buffer", "usize", "i32"], result: "i32" },
  lsetxattr: { parameters: ["buffer", "buffer", "buffer", "usize", "i32"], result: "i32" },
  fremovexattr: { parameters: ["i32", "buffer"], result: "i32" },
  lremovexattr: { parameters: ["buffer", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

function openLibc() {
  const symbols = Deno.dlopen("libc.so.6", SYMBOLS).symbols;
  return { symbols, errno: errnoReader() };
}

let opened: ReturnType<typeof openLibc> | undefined;

function libc() {
  return opened ??= openLibc();
}

/** Must be the first thing after the call. */
function check(result: number | bigint, action: string, name?: PathBytes): number {
  if (result >= 0) return Number(result);
  throw libcError(libc().errno(), name === undefined ? action : `${action} ${showPath(name)}`);
}

const placeScratch = new Uint8Array(512);
const nameScratch = new Uint8Array(NAME_BYTES_MAX);
const lists = new Uint8Array(LIST_BYTES_MAX);
const shortList = lists.subarray(0, SHORT_LIST_BYTES);
const values = new Uint8Array(VALUE_BYTES_MAX);

function terminated(bytes: PathBytes, scratch: PathBytes, at = 0): PathBytes {
  if (at + bytes.length >= scratch.length) throw libcError(ENAMETOOLONG, `use name ${showPath(bytes)}`);
  scratch.set(bytes, at);
  scratch[at + bytes.length] = 0;
  return scratch;
}
const ENAMETOOLONG = 36;

function placePath({ folderFd, name }: Exclude<XattrPlace, number>): PathBytes {
  const folder = pathBytes(`/proc/self/fd/${folderFd}/`);
  placeScratch.set(folder);
  return terminated(name, placeScratch, folder.length);
}

const NOTHING: readonly PathBytes[] = [];

/** Names of all attributes that this user may see, in the kernel's order. */
export function listXattrs(place: XattrPlace): readonly PathBytes[] {
  const { symbols, errno } = libc();
  const list = (into: PathBytes) =>
    typeof place === "number"
      ? symbols.flistxattr(place, into, BigInt(into.length))
      : symbols.llistxattr(placePath(place), into, BigInt(into.length));
  let length = list(shortList);
  if (length === 0n) return NOTHING;
  if (length < 0n && errno() === ERANGE) length = list(lists);
  const names: PathBytes[] = [];
  const end = check(length, "list extended attributes");
  for (let at = 0; at < end;) {
    const stop = lists.indexOf(0, at);
    names.push(lists.slice(at, stop));
    at = stop + 1;
  }
  return names;
}
const ERANGE = 34;

/** The value, a copy. */
export function getXattr(place: XattrPlace, name: PathBytes): PathBytes {
  const { symbols } = libc();
  const key = terminated(name, nameScratch);
  const size = BigInt(values.length);
  const length = typeof place === "number"
    ? symbols.fgetxattr(place, key, values, size)
    : symbols.lgetxattr(placePath(place), key, values, size);
  return values.slice(0, check(length, "read extended attribute", name));
}

/** Makes or replaces it. */
export function setXattr(place: XattrPlace, name: PathBytes, value: PathBytes): void {
  const { symbols } = libc();
  const key = terminated(name, nameScratch);
  const size = BigInt(value.length);
  const result = typeof place === "number"
    ? symbols.fsetxattr(place, key, value, size, 0)
    : symbols.lsetxattr(placePath(place), key, value, size, 0);
  check(result, "set extended attribute", name);
}

export function removeXattr(place: XattrPlace, name: PathBytes): void {
  const { symbols } = libc();
  const key = terminated(name, nameScratch);
  const result = typeof place === "number"
    ? symbols.fremovexattr(place, key)
    : symbols.lremovexattr(placePath(place), key);
  check(result, "remove extended attribute", name);
}
