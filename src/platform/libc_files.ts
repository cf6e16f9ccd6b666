/**
 * Files by way of glibc, where the runtime's own calls lose data: raw names, nanoseconds, holes, owners, exchange of
 * names. Everything is synchronous: for the archiver child and short boot work only, never for the manager's loop.
 * Paths are bytes. Every failure is a LibcError that shows the path; no call here leaves a descriptor behind.
 */

import { errnoReader, isShortOfDescriptors } from "./errno.ts";
import { StateManagerError } from "./errors.ts";

/** Bytes of a path or name, without the closing NUL. */
export type PathBytes = Uint8Array<ArrayBuffer>;

/** A directory descriptor that means "paths are absolute, or relative to the working directory". */
export const AT_CWD = -100;

/** What statx knows of one name. */
export interface FileStat {
  readonly type: "file" | "directory" | "symlink" | "fifo" | "socket" | "device";
  /** 12 bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly dev: bigint;
  readonly ino: bigint;
  readonly linkCount: number;
  /** Of 512 bytes. */
  readonly blocks: number;
  /** True for the root of a mount, bind mounts of the same device included. */
  readonly mountRoot: boolean;
}

const ERRNO: Readonly<Record<number, string>> = {
  1: "EPERM",
  2: "ENOENT",
  4: "EINTR",
  5: "EIO",
  6: "ENXIO",
  7: "E2BIG",
  9: "EBADF",
  13: "EACCES",
  16: "EBUSY",
  17: "EEXIST",
  18: "EXDEV",
  20: "ENOTDIR",
  21: "EISDIR",
  22: "EINVAL",
  23: "ENFILE",
  24: "EMFILE",
  28: "ENOSPC",
  30: "EROFS",
  31: "EMLINK",
  34: "ERANGE",
  36: "ENAMETOOLONG",
  38: "ENOSYS",
  39: "ENOTEMPTY",
  40: "ELOOP",
  61: "ENODATA",
  95: "EOPNOTSUPP",
  116: "ESTALE",
  122: "EDQUOT",
};

/** A failed call: `errno` is its name ("ENOENT"), or "errno 71" for the rare ones. */
export class LibcError extends StateManagerError {
  readonly errno: string;

  constructor(action: string, errno: string) {
    const full = errno === "ENOSPC" || errno === "EDQUOT";
    super(
      full ? "disk-full" : "local-io",
      full ? `${action}: no space left (${errno})` : `${action}: ${errno}`,
      {
        hint: full
          ? "free space or raise the quota on that disk, then try again"
          : errno === "EACCES" || errno === "EPERM" || errno === "EROFS"
          ? "give this user the right to do it, or choose another folder"
          : "check that the disk and the path are sound",
      },
    );
    this.errno = errno;
  }
}

/** True when `error` is a failed call with one of these errno names. */
export function isErrno(error: unknown, ...names: string[]): error is LibcError {
  return error instanceof LibcError && names.includes(error.errno);
}

const LIBC_SYMBOLS = {
  geteuid: { parameters: [], result: "u32" },
  getegid: { parameters: [], result: "u32" },
  openat: { parameters: ["i32", "buffer", "i32", "u32"], result: "i32" },
  syscall: { parameters: ["i64", "i32", "buffer", "buffer", "usize"], result: "i64" },
  close: { parameters: ["i32"], result: "i32" },
  getdents64: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
  readlinkat: { parameters: ["i32", "buffer", "buffer", "usize"], result: "isize" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize" },
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize" },
  copy_file_range: { parameters: ["i32", "buffer", "i32", "buffer", "usize", "u32"], result: "isize" },
  copyFileRangeAside: {
    name: "copy_file_range",
    parameters: ["i32", "buffer", "i32", "buffer", "usize", "u32"],
    result: "isize",
    nonblocking: true,
  },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  mkdirat: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  symlinkat: { parameters: ["buffer", "i32", "buffer"], result: "i32" },
  linkat: { parameters: ["i32", "buffer", "i32", "buffer", "i32"], result: "i32" },
  mkfifoat: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  unlinkat: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  renameat2: { parameters: ["i32", "buffer", "i32", "buffer", "u32"], result: "i32" },
  fchownat: { parameters: ["i32", "buffer", "u32", "u32", "i32"], result: "i32" },
  fchmodat: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
  utimensat: { parameters: ["i32", "buffer", "buffer", "i32"], result: "i32" },
  fchown: { parameters: ["i32", "u32", "u32"], result: "i32" },
  fchmod: { parameters: ["i32", "u32"], result: "i32" },
  futimens: { parameters: ["i32", "buffer"], result: "i32" },
  fsync: { parameters: ["i32"], result: "i32" },
  syncfs: { parameters: ["i32"], result: "i32" },
  syncfsAside: { name: "syncfs", parameters: ["i32"], result: "i32", nonblocking: true },
  unlinkatAside: { name: "unlinkat", parameters: ["i32", "buffer", "i32"], result: "i32", nonblocking: true },
  statvfs: { parameters: ["buffer", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

function openLibc() {
  const symbols = Deno.dlopen("libc.so.6", LIBC_SYMBOLS).symbols;
  return { symbols, errno: errnoReader() };
}

let opened: ReturnType<typeof openLibc> | undefined;

function libc() {
  return opened ??= openLibc();
}

const encoder = new TextEncoder();

/** Bytes of a text path. */
export function pathBytes(path: string): PathBytes {
  return encoder.encode(path);
}

/** A path for people: UTF-8 as it is, every other byte and control character as \xNN. */
export function showPath(path: PathBytes): string {
  const escaped = (code: number) => `\\x${code.toString(16).padStart(2, "0")}`;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(path);
    // deno-lint-ignore no-control-regex
    return text.replace(/[\x00-\x1f\x7f]/g, (character) => escaped(character.charCodeAt(0)));
  } catch {
    const show = (byte: number) => byte > 0x1f && byte < 0x7f ? String.fromCharCode(byte) : escaped(byte);
    return Array.from(path, show).join("");
  }
}

/** PATH_MAX: the kernel takes no longer path in one call. */
const PATH_BYTES_MAX = 4096;
const firstPath = new Uint8Array(PATH_BYTES_MAX);
const secondPath = new Uint8Array(PATH_BYTES_MAX);

function terminated(path: PathBytes, scratch: PathBytes, action: string): PathBytes {
  if (path.length >= PATH_BYTES_MAX) throw new LibcError(`${action} ${showPath(path)}`, "ENAMETOOLONG");
  if (path.includes(0)) throw new LibcError(`${action} ${showPath(path)}`, "EINVAL");
  scratch.set(path);
  scratch[path.length] = 0;
  return scratch;
}

/** Throws when `result` says that the call failed. Must be the first thing after the call. */
function check(result: number | bigint, action: string, path?: PathBytes): number {
  if (result >= 0) return Number(result);
  throw libcError(libc().errno(), path === undefined ? action : `${action} ${showPath(path)}`);
}

/** The failure that errno's number `code` stands for. */
export function libcError(code: number, action: string): LibcError {
  return new LibcError(action, ERRNO[code] ?? `errno ${code}`);
}

const ARM = Deno.build.arch === "aarch64";

export const OPEN = {
  read: 0,
  write: 1,
  readWrite: 2,
  create: 0o100,
  exclusive: 0o200,
  truncate: 0o1000,
  nonBlocking: 0o4000,
  direct: ARM ? 0o200000 : 0o40000,
  directory: ARM ? 0o40000 : 0o200000,
  noFollow: ARM ? 0o100000 : 0o400000,
  noAtime: 0o1000000,
} as const;
export const O_CLOEXEC = 0o2000000;

/** True when this process is root, as far as file permissions go. */
export function isRoot(): boolean {
  return ownUid() === 0;
}

/** The user whose files this process makes. */
export function ownUid(): number {
  return libc().symbols.geteuid();
}

/** The group that files of this process get, unless their folder hands down its own. */
export function ownGid(): number {
  return libc().symbols.getegid();
}

/** Opens `path` below `dirFd`; the caller closes. */
export function openAt(dirFd: number, path: PathBytes, flags: number, mode = 0o600): number {
  const name = terminated(path, firstPath, "open");
  return check(libc().symbols.openat(dirFd, name, flags | O_CLOEXEC, mode), "open", path);
}

const SYS_OPENAT2 = 437n; // the same number on every architecture
const RESOLVE_NO_SYMLINKS_BENEATH = 0x04 | 0x08;
let openat2Works: boolean | undefined;
/** struct open_how: flags, mode, resolve. One for all calls: a scan makes very many. */
const OPEN_HOW_BYTES = 24n;
const openHow = new Uint8Array(Number(OPEN_HOW_BYTES));
const openHowView = new DataView(openHow.buffer);
openHowView.setUint32(16, RESOLVE_NO_SYMLINKS_BENEATH, true);

function openat2(dirFd: number, path: PathBytes, flags: number): bigint {
  openHowView.setUint32(0, flags | O_CLOEXEC, true);
  return libc().symbols.syscall(SYS_OPENAT2, dirFd, path, openHow, OPEN_HOW_BYTES);
}

/**
 * Opens `path` below `rootFd` and never through a symlink, not even when a program swaps a folder for one meanwhile.
 * The empty path is the root itself. Old kernels and strict sandboxes lack openat2: there only the last name is safe.
 */
export function openBeneath(rootFd: number, path: PathBytes, flags: number): number {
  if (openat2Works === undefined) {
    const fd = openat2(rootFd, new Uint8Array([0x2e, 0]), OPEN.read | OPEN.directory);
    if (fd < 0n && isShortOfDescriptors(libc().errno())) return check(fd, "open", path);
    openat2Works = fd >= 0n;
    if (fd >= 0n) closeFd(Number(fd));
  }
  const wanted = path.length === 0 ? pathBytes(".") : path;
  if (!openat2Works) return openAt(rootFd, wanted, flags | OPEN.noFollow);
  const name = terminated(wanted, firstPath, "open");
  return check(openat2(rootFd, name, flags | OPEN.noFollow), "open", path);
}

/** Closes; errors of close carry nothing that fsync did not say before. */
export function closeFd(fd: number): void {
  libc().symbols.close(fd);
}

/** Runs `use` with `path` opened as a folder, and closes it. */
export function withFolder<T>(path: PathBytes, use: (fd: number) => T): T {
  const fd = openAt(AT_CWD, path, OPEN.read | OPEN.directory);
  try {
    return use(fd);
  } finally {
    closeFd(fd);
  }
}

/** The absolute path of a folder with all symlinks resolved. Needs /proc, as the program itself does. */
export function realFolder(path: PathBytes): PathBytes {
  return withFolder(path, (fd) => readLinkAt(AT_CWD, pathBytes(`/proc/self/fd/${fd}`)));
}

const DENTS_BYTES = 64 * 1024; // about two thousand names per call: a few milliseconds
const dents = new Uint8Array(DENTS_BYTES);
const dentsView = new DataView(dents.buffer);
const DENT_NAME = 19; // offset of the name in struct linux_dirent64

/**
 * Names in an open folder, in the kernel's order, without "." and "..", as many at a time as one call gives. Other work
 * may come between, but no other listing of the same descriptor.
 */
export function* listNameBatches(fd: number): Generator<PathBytes[]> {
  check(libc().symbols.lseek(fd, 0n, 0), "rewind folder"); // an earlier listing left it at its end
  while (true) {
    const length = check(libc().symbols.getdents64(fd, dents, BigInt(DENTS_BYTES)), "list folder");
    if (length === 0) return;
    const names: PathBytes[] = [];
    const copy = dents.slice(0, length); // one for all: a buffer for each name is a burden to the collector
    for (let at = 0; at < length;) {
      const next = at + dentsView.getUint16(at + 16, true);
      const start = at + DENT_NAME;
      const end = dents.indexOf(0, start);
      at = next;
      const dots = dents[start] === 0x2e &&
        (end - start === 1 || (end - start === 2 && dents[start + 1] === 0x2e));
      if (!dots) names.push(copy.subarray(start, end));
    }
    yield names;
  }
}

/** All of them at once: not for the manager's loop, unless the folder is known to be small. */
export function listNames(fd: number): PathBytes[] {
  return [...listNameBatches(fd)].flat();
}

const statBytes = new Uint8Array(256);
const statView = new DataView(statBytes.buffer);
const STATX_BASIC = 0x7ff;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_NO_AUTOMOUNT = 0x800;
const AT_EMPTY_PATH = 0x1000;
const ATTRIBUTE_MOUNT_ROOT = 0x2000n;
const TYPES: Readonly<Record<number, FileStat["type"]>> = {
  0o100000: "file",
  0o040000: "directory",
  0o120000: "symlink",
  0o010000: "fifo",
  0o140000: "socket",
};

function timeNs(at: number): bigint {
  return statView.getBigInt64(at, true) * 1_000_000_000n + BigInt(statView.getUint32(at + 8, true));
}

function decodeStat(): FileStat {
  const mode = statView.getUint16(28, true);
  return {
    type: TYPES[mode & 0o170000] ?? "device",
    mode: mode & 0o7777,
    uid: statView.getUint32(20, true),
    gid: statView.getUint32(24, true),
    size: Number(statView.getBigUint64(40, true)),
    mtimeNs: timeNs(112),
    ctimeNs: timeNs(96),
    dev: BigInt(statView.getUint32(136, true)) << 32n | BigInt(statView.getUint32(140, true)),
    ino: statView.getBigUint64(32, true),
    linkCount: statView.getUint32(16, true),
    blocks: Number(statView.getBigUint64(48, true)),
    mountRoot: (statView.getBigUint64(8, true) & ATTRIBUTE_MOUNT_ROOT) !== 0n,
  };
}

/** Never follows a symlink in the last name. */
export function statAt(dirFd: number, path: PathBytes): FileStat {
  const name = terminated(path, firstPath, "stat");
  const flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
  check(libc().symbols.statx(dirFd, name, flags, STATX_BASIC, statBytes), "stat", path);
  return decodeStat();
}

/** Like statAt, with null where nothing has that name. */
export function statIfPresent(dirFd: number, path: PathBytes): FileStat | null {
  try {
    return statAt(dirFd, path);
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return null;
    throw error;
  }
}

export function statFd(fd: number): FileStat {
  firstPath[0] = 0;
  check(libc().symbols.statx(fd, firstPath, AT_EMPTY_PATH, STATX_BASIC, statBytes), "stat open file");
  return decodeStat();
}

export function readLinkAt(dirFd: number, path: PathBytes): PathBytes {
  const name = terminated(path, firstPath, "read link");
  const target = new Uint8Array(PATH_BYTES_MAX);
  const length = libc().symbols.readlinkat(dirFd, name, target, BigInt(target.length));
  return target.slice(0, check(length, "read link", path));
}

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

function seek(fd: number, offset: number, whence: number): number | null {
  try {
    return check(libc().symbols.lseek(fd, BigInt(offset), whence), "seek");
  } catch (error) {
    if (isErrno(error, "ENXIO")) return null;
    throw error;
  }
}

/** Offset of the next data at or after `offset`; null when only a hole follows, or the end. */
export function seekData(fd: number, offset: number): number | null {
  return seek(fd, offset, SEEK_DATA);
}

/** Offset of the next hole at or after `offset`; the end of the file counts as one, null is past it. */
export function seekHole(fd: number, offset: number): number | null {
  return seek(fd, offset, SEEK_HOLE);
}

/** Fills `buffer` from `offset`; returns fewer bytes only at the end of the file. */
export function readAt(fd: number, buffer: Uint8Array<ArrayBuffer>, offset: number): number {
  let done = 0;
  while (done < buffer.length) {
    const rest = done === 0 ? buffer : buffer.subarray(done);
    const count = check(libc().symbols.pread(fd, rest, BigInt(rest.length), BigInt(offset + done)), "read");
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** Writes all of `bytes` at `offset`. `path` is for the message only. */
export function writeAt(fd: number, bytes: Uint8Array<ArrayBuffer>, offset: number, path: PathBytes): void {
  let done = 0;
  while (done < bytes.length) {
    const rest = done === 0 ? bytes : bytes.subarray(done);
    const count = libc().symbols.pwrite(fd, rest, BigInt(rest.length), BigInt(offset + done));
    done += check(count, "write", path);
  }
}

function offsetBytes(offset: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new BigInt64Array([BigInt(offset)]).buffer);
}

/**
 * Copies up to `length` bytes inside the kernel, which shares blocks instead where the filesystem can. Returns how many;
 * 0 at the end of the source. EXDEV, EINVAL, ENOSYS and EOPNOTSUPP: read and write instead.
 */
export function copyRange(
  fromFd: number,
  fromOffset: number,
  toFd: number,
  toOffset: number,
  length: number,
): number {
  const [from, to] = [offsetBytes(fromOffset), offsetBytes(toOffset)];
  const copied = libc().symbols.copy_file_range(fromFd, from, toFd, to, BigInt(length), 0);
  return check(copied, "copy within files");
}

/** The same on another thread; only this one can say why it failed. */
export async function copyRangeAside(
  fromFd: number,
  fromOffset: number,
  toFd: number,
  toOffset: number,
  length: number,
): Promise<number> {
  const [from, to] = [offsetBytes(fromOffset), offsetBytes(toOffset)];
  const copied = await libc().symbols.copyFileRangeAside(fromFd, from, toFd, to, BigInt(length), 0);
  return copied < 0n ? copyRange(fromFd, fromOffset, toFd, toOffset, length) : Number(copied);
}

export function truncateFd(fd: number, size: number, path: PathBytes): void {
  check(libc().symbols.ftruncate(fd, BigInt(size)), "set size of", path);
}

export function makeFolderAt(dirFd: number, path: PathBytes, mode: number): void {
  check(libc().symbols.mkdirat(dirFd, terminated(path, firstPath, "make folder"), mode), "make folder", path);
}

export function makeSymlinkAt(target: PathBytes, dirFd: number, path: PathBytes): void {
  const to = terminated(target, secondPath, "make link to");
  const name = terminated(path, firstPath, "make link");
  check(libc().symbols.symlinkat(to, dirFd, name), "make link", path);
}

export function makeHardLinkAt(fromFd: number, from: PathBytes, toFd: number, to: PathBytes): void {
  const existing = terminated(from, secondPath, "link");
  const name = terminated(to, firstPath, "link");
  check(libc().symbols.linkat(fromFd, existing, toFd, name, 0), "link", to);
}

export function makeFifoAt(dirFd: number, path: PathBytes, mode: number): void {
  check(libc().symbols.mkfifoat(dirFd, terminated(path, firstPath, "make fifo"), mode), "make fifo", path);
}

const AT_REMOVEDIR = 0x200;

export function unlinkAt(dirFd: number, path: PathBytes): void {
  check(libc().symbols.unlinkat(dirFd, terminated(path, firstPath, "remove"), 0), "remove", path);
}

/** The same on another thread: a file of many gigabytes, or a folder that held many names, takes its time. */
export async function unlinkAside(dirFd: number, path: PathBytes, what: "file" | "folder"): Promise<void> {
  const name = terminated(path, new Uint8Array(path.length + 1), "remove");
  const flags = what === "folder" ? AT_REMOVEDIR : 0;
  if (await libc().symbols.unlinkatAside(dirFd, name, flags) === 0) return;
  // Says why, since errno stayed in the other thread.
  if (what === "folder") removeFolderAt(dirFd, path);
  else unlinkAt(dirFd, path);
}

export function removeFolderAt(dirFd: number, path: PathBytes): void {
  const name = terminated(path, firstPath, "remove folder");
  check(libc().symbols.unlinkat(dirFd, name, AT_REMOVEDIR), "remove folder", path);
}

/** no-replace: EEXIST when `to` is there. exchange: both must be there and swap their names, atomically. */
const RENAME_FLAGS = { "replace": 0, "no-replace": 1, "exchange": 2 } as const;
export type RenameMode = keyof typeof RENAME_FLAGS;

export function renameAt(
  fromFd: number,
  from: PathBytes,
  toFd: number,
  to: PathBytes,
  mode: RenameMode,
): void {
  const source = terminated(from, firstPath, "rename");
  const target = terminated(to, secondPath, "rename to");
  const result = libc().symbols.renameat2(fromFd, source, toFd, target, RENAME_FLAGS[mode]);
  check(result, `rename to ${showPath(to)}`, from);
}

/** Owner of the name itself, never of what a symlink points at. */
export function setOwnerAt(dirFd: number, path: PathBytes, uid: number, gid: number): void {
  const name = terminated(path, firstPath, "set owner of");
  check(libc().symbols.fchownat(dirFd, name, uid, gid, AT_SYMLINK_NOFOLLOW), "set owner of", path);
}

/** Follows a symlink in the last name: never call it for one. */
export function setModeAt(dirFd: number, path: PathBytes, mode: number): void {
  const name = terminated(path, firstPath, "set mode of");
  check(libc().symbols.fchmodat(dirFd, name, mode, 0), "set mode of", path);
}

/** Two struct timespec. One for all calls: a restore makes very many. */
const times = new Uint8Array(32);
const timesView = new DataView(times.buffer);

function timesOf(mtimeNs: bigint): Uint8Array<ArrayBuffer> {
  let seconds = mtimeNs / 1_000_000_000n;
  let rest = mtimeNs % 1_000_000_000n;
  if (rest < 0n) { // before 1970: the fraction counts upwards all the same
    rest += 1_000_000_000n;
    seconds -= 1n;
  }
  for (const at of [0, 16]) {
    timesView.setBigInt64(at, seconds, true);
    timesView.setBigInt64(at + 8, rest, true);
  }
  return times;
}

/** Sets access and modification time of the name itself. */
export function setTimesAt(dirFd: number, path: PathBytes, mtimeNs: bigint): void {
  const name = terminated(path, firstPath, "set time of");
  check(libc().symbols.utimensat(dirFd, name, timesOf(mtimeNs), AT_SYMLINK_NOFOLLOW), "set time of", path);
}

export function setOwnerFd(fd: number, uid: number, gid: number, path: PathBytes): void {
  check(libc().symbols.fchown(fd, uid, gid), "set owner of", path);
}

export function setModeFd(fd: number, mode: number, path: PathBytes): void {
  check(libc().symbols.fchmod(fd, mode), "set mode of", path);
}

export function setTimesFd(fd: number, mtimeNs: bigint, path: PathBytes): void {
  check(libc().symbols.futimens(fd, timesOf(mtimeNs)), "set time of", path);
}

export function syncFd(fd: number, path: PathBytes): void {
  check(libc().symbols.fsync(fd), "sync", path);
}

/** Makes everything on the filesystem of `fd` durable: one call instead of one fsync per file. */
export function syncFilesystem(fd: number, path: PathBytes): void {
  check(libc().symbols.syncfs(fd), "sync filesystem of", path);
}

/**
 * The same on another thread, for the manager's loop: it can take seconds. Why it failed stays in that thread, and asking
 * again would not tell (an error is reported once): EIO stands for what syncfs can say.
 */
export async function syncFilesystemAside(fd: number, path: PathBytes): Promise<void> {
  if (await libc().symbols.syncfsAside(fd) !== 0) {
    throw new LibcError(`sync filesystem of ${showPath(path)}`, "EIO");
  }
}

/**
 * Bytes and files that this user may still make on the filesystem of `path`. Null: it does not count them, as some
 * network mounts do not, and filesystems that make inodes as they go.
 */
export function freeSpace(path: PathBytes): { readonly bytes: number | null; readonly files: number | null } {
  const vfs = new Uint8Array(128);
  check(libc().symbols.statvfs(terminated(path, firstPath, "free space of"), vfs), "free space of", path);
  const view = new DataView(vfs.buffer);
  const field = (at: number) => Number(view.getBigUint64(at, true));
  const blockBytes = field(8);
  const [blocks, availableBlocks, inodes, availableInodes] = [field(16), field(32), field(40), field(56)];
  return {
    bytes: blocks === 0 ? null : blockBytes * availableBlocks,
    files: inodes === 0 ? null : availableInodes,
  };
}
