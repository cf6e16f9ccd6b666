/**
 * Reads the tree of one files root: names, attributes and hard links, no content but the first bytes of new files
 * (is it a SQLite database?). Never follows a symlink, never leaves the root's filesystem, never reads what is
 * excluded. What disappears meanwhile is skipped; what cannot be read is a warning; a root that is missing or is
 * suddenly another filesystem is an error, since an empty checkpoint made of it would evict a good one.
 */

import { NO_DESCRIPTOR } from "../platform/errno.ts";
import { StateManagerError } from "../platform/errors.ts";
import {
  AT_CWD,
  closeFd,
  type FileStat,
  isErrno,
  LibcError,
  listNames,
  OPEN,
  openAt,
  openBeneath,
  type PathBytes,
  pathBytes,
  readAt,
  readLinkAt,
  showPath,
  statAt,
  statFd,
} from "../platform/libc_files.ts";
import { byteText, joinPath } from "./byte_text.ts";
import { CACHE_TAG, isCacheFolder } from "./cache_tag.ts";
import { type Excluder, excluderOf, isOwnName, SQLITE_COMPANIONS } from "./exclude.ts";
import type { FilesRoot, FileWarning, ScanFacts, TreeEntry } from "./types.ts";
import { XattrReader } from "./xattrs.ts";

/** What identifies the write-ahead log of a database: its content counts as the database's. */
export type WalFacts = Pick<FileStat, "size" | "mtimeNs" | "ctimeNs" | "ino">;

export interface ScannedEntry {
  /** Of a file without its extended attributes: they are read with its content, or known of the last time. */
  readonly entry: TreeEntry;
  readonly facts: ScanFacts;
  /** For a SQLite database with a write-ahead log: the log's facts; null for all else. */
  readonly wal: WalFacts | null;
}

export interface ScanOptions {
  /** Device that the root had at the last checkpoint of this boot; another one is `source-missing`. */
  readonly expectedDev?: bigint;
  /** Whether an unchanged file was a database at the last scan; undefined: not known, look into the file. */
  readonly knownDatabase?: (path: PathBytes, facts: ScanFacts, stat: FileStat) => boolean | undefined;
  /** Reads extended attributes; left out: a new one. */
  readonly xattrs?: XattrReader;
  /** Called once per skipped entry or folder. */
  readonly onWarning?: (warning: FileWarning) => void;
  readonly signal?: AbortSignal;
}

/** "SQLite format 3\0" */
const SQLITE_MAGIC = byteText(pathBytes("SQLite format 3\0"));
/** The smallest database is one page of the smallest page size. */
const SQLITE_PAGE_MIN = 512;
/** A path that has no room for another name cannot be opened from the root any more. */
const RELATIVE_PATH_MAX = 4095;

interface Walk {
  readonly root: FilesRoot;
  readonly rootFd: number;
  readonly rootStat: FileStat;
  readonly excluded: Excluder;
  readonly hasExcludes: boolean;
  readonly options: ScanOptions;
  readonly xattrs: XattrReader;
  readonly links: Map<string, number>;
}

interface Child {
  /** The name as byte text; for what is inside a folder, with a slash behind it. */
  readonly key: string;
  readonly path: PathBytes;
  readonly stat: FileStat;
  readonly database: boolean;
  /** A folder that is listed but not entered: something else is mounted there. */
  readonly closed: boolean;
  readonly xattrs: Pick<TreeEntry, "xattrs">;
}

/**
 * Entries of the root in ascending order of path bytes, the root (empty path) first; a folder always comes before
 * what is inside it. The walk goes on while the caller takes entries, so use them soon after.
 */
export function* scanTree(root: FilesRoot, options: ScanOptions = {}): Generator<ScannedEntry> {
  const rootFd = openRoot(root);
  try {
    const rootStat = statFd(rootFd);
    if (options.expectedDev !== undefined && rootStat.dev !== options.expectedDev) {
      throw new StateManagerError(
        "source-missing",
        `scan files "${root.name}": ${root.path} is on another device than before, wanted the same filesystem`,
        { hint: "check that the volume is still mounted there; restart the manager if the move was meant" },
      );
    }
    const excluded = excluderOf(root);
    const hasExcludes = root.exclude.length + root.excludePaths.length > 0;
    const xattrs = options.xattrs ?? new XattrReader((path, reason) => warnOf(root, options, path, reason));
    const walk: Walk = { root, rootFd, rootStat, excluded, hasExcludes, options, xattrs, links: new Map() };
    const path = new Uint8Array(0);
    const entry = entryOf(path, rootStat, "directory");
    yield {
      entry: { ...entry, ...xattrs.read(rootFd, entry, rootStat.dev) },
      facts: factsOf(rootStat),
      wal: null,
    };
    yield* inside(walk, path);
  } finally {
    closeFd(rootFd);
  }
}

function openRoot(root: FilesRoot): number {
  try {
    return openAt(AT_CWD, pathBytes(root.path), OPEN.read | OPEN.directory);
  } catch (error) {
    if (!isErrno(error, "ENOENT", "ENOTDIR", "ESTALE", "EIO")) throw error;
    throw new StateManagerError(
      "source-missing",
      `scan files "${root.name}": ${root.path} is not there (${error.errno}), wanted a folder`,
      { hint: "check the path and that its volume is mounted", cause: error },
    );
  }
}

/** Everything below the folder at `path`, which was given out before. */
function* inside(walk: Walk, path: PathBytes): Generator<ScannedEntry> {
  walk.options.signal?.throwIfAborted();
  const children = readFolder(walk, path);
  const databases = new Set(children.filter(({ database }) => database).map(({ key }) => key));
  // Most folders have no database: nobody asks for their files by name then.
  const stats = new Map(databases.size === 0 ? [] : children.map(({ key, stat }) => [key, stat]));
  // "a", "a-b" and "a/x" sort in this order as whole paths, so the inside of the folder "a" sorts as "a/".
  const insides = children.filter((child) => child.stat.type === "directory" && !child.closed)
    .map((child) => ({ ...child, key: child.key + "/" }));
  for (const child of [...children, ...insides].sort((a, b) => a.key < b.key ? -1 : 1)) {
    if (child.key.endsWith("/")) {
      yield* inside(walk, child.path);
    } else if (isCompanion(child, databases)) {
      continue;
    } else if (!child.database) {
      const found = scanned(walk, child, null);
      if (found !== null) yield found;
    } else if (walk.root.includeDatabases) {
      const found = scanned(walk, child, stats.get(child.key + "-wal") ?? null);
      if (found !== null) yield found;
    }
  }
}

/** The log, shared memory or journal of a database belongs to its snapshot and is worth nothing without it. */
function isCompanion(child: Child, databases: ReadonlySet<string>): boolean {
  if (databases.size === 0 || child.stat.type !== "file") return false;
  const suffix = SQLITE_COMPANIONS.find((end) => child.key.endsWith(end));
  return suffix !== undefined && databases.has(child.key.slice(0, -suffix.length));
}

function warn(walk: Walk, path: PathBytes, reason: string): void {
  warnOf(walk.root, walk.options, path, reason);
}

function warnOf(root: FilesRoot, options: ScanOptions, path: PathBytes, reason: string): void {
  options.onWarning?.({ root: root.name, path: showPath(path), reason });
}

/**
 * Does `action`; what vanished meanwhile is nothing (null), what else fails is a warning and nothing. A shortage of
 * descriptors is an error: for a moment's sake a whole folder would be missing.
 */
function orSkip<T>(walk: Walk, path: PathBytes, action: () => T): T | null {
  try {
    return action();
  } catch (error) {
    if (!(error instanceof LibcError) || NO_DESCRIPTOR.includes(error.errno)) throw error;
    const gone = ["ENOENT", "ENOTDIR", "ESTALE"].includes(error.errno);
    if (!gone) warn(walk, path, `not read: ${error.errno}`);
    return null;
  }
}

function readFolder(walk: Walk, path: PathBytes): Child[] {
  const fd = orSkip(walk, path, () => openBeneath(walk.rootFd, path, OPEN.read | OPEN.directory));
  if (fd === null) return [];
  try {
    let names = orSkip(walk, path, () => listNames(fd)) ?? [];
    // The root itself is never taken for a cache: to keep nothing of it cannot be what its entry in `files` is for.
    if (walk.root.excludeCaches === true && path.length > 0 && isCacheFolder(fd)) {
      names = names.filter((name) => byteText(name) === CACHE_TAG);
    }
    const children: Child[] = [];
    for (const name of names) {
      const child = readChild(walk, fd, path, name);
      if (child !== null) children.push(child);
    }
    return children;
  } finally {
    closeFd(fd);
  }
}

function readChild(walk: Walk, folderFd: number, folder: PathBytes, name: PathBytes): Child | null {
  const path = joinPath(folder, name);
  const stat = orSkip(walk, path, () => statAt(folderFd, name));
  if (stat === null) return null;
  const isDirectory = stat.type === "directory";
  const key = byteText(name);
  if (isOwnName(key)) return null;
  if (walk.hasExcludes && walk.excluded(textDecoder.decode(path), isDirectory)) return null;
  if (isDirectory && folder.length === 0 && key === "lost+found" && walk.rootStat.mountRoot) return null;
  if (stat.type === "socket" || stat.type === "device") {
    warn(walk, path, `left out: a ${stat.type} has no content to keep`);
    return null;
  }
  if (path.length > RELATIVE_PATH_MAX) {
    warn(walk, path, `left out: its path is longer than ${RELATIVE_PATH_MAX} bytes`);
    return null;
  }
  // On an overlay only folders tell their device truly. A bind mount of the same device shows as the root of a mount.
  const closed = stat.mountRoot || (isDirectory && stat.dev !== walk.rootStat.dev);
  if (closed) {
    warn(walk, path, "left out: another filesystem is mounted there; give it an entry of its own in files");
    if (!isDirectory) return null;
  }
  const database = stat.type === "file" && isDatabase(walk, folderFd, name, path, stat);
  const { type } = stat;
  const xattrs = type === "file" || closed
    ? {}
    : walk.xattrs.read({ folderFd, name }, { path, type }, stat.dev);
  return { key, path, stat, database, closed, xattrs };
}

const textDecoder = new TextDecoder();
const magicBuffer = new Uint8Array(SQLITE_MAGIC.length);

function isDatabase(walk: Walk, folderFd: number, name: PathBytes, path: PathBytes, stat: FileStat): boolean {
  // A database is a whole number of pages, and these are multiples of 512: most files are ruled out unread.
  if (stat.size < SQLITE_PAGE_MIN || stat.size % SQLITE_PAGE_MIN !== 0) return false;
  const known = walk.options.knownDatabase?.(path, factsOf(stat), stat);
  if (known !== undefined) return known;
  return orSkip(walk, path, () => {
    const fd = openAt(folderFd, name, OPEN.read | OPEN.noFollow | OPEN.nonBlocking);
    try {
      readAt(fd, magicBuffer, 0);
      return byteText(magicBuffer) === SQLITE_MAGIC;
    } finally {
      closeFd(fd);
    }
  }) ?? false;
}

export function factsOf(stat: FileStat): ScanFacts {
  const { dev, ino, ctimeNs, linkCount, blocks } = stat;
  return { dev, ino, ctimeNs, linkCount, blocks };
}

/** The entry of a stat, without what only the scan can add. */
export function entryOf(path: PathBytes, stat: FileStat, type: TreeEntry["type"]): TreeEntry {
  const { mode, uid, gid, mtimeNs } = stat;
  return { path, type, mode, uid, gid, mtimeNs, size: type === "file" ? stat.size : 0 };
}

function scanned(walk: Walk, child: Child, wal: WalFacts | null): ScannedEntry | null {
  const { path, stat } = child;
  if (stat.type === "socket" || stat.type === "device") return null;
  const facts = factsOf(stat);
  const common = entryOf(path, stat, stat.type);
  // Most of a tree, and there are very many of them: nothing to add.
  if (stat.type === "file" && stat.linkCount === 1 && !child.database) {
    return { entry: common, facts, wal: null };
  }
  const entry = { ...common, ...child.xattrs };
  if (stat.type === "symlink") {
    const target = orSkip(walk, path, () => readLinkAt(walk.rootFd, path));
    return target === null ? null : { entry: { ...entry, target }, facts, wal: null };
  }
  const linkGroup = stat.type === "file" && stat.linkCount > 1 ? groupOf(walk, stat) : undefined;
  return {
    entry: {
      ...entry,
      ...(linkGroup === undefined ? {} : { linkGroup }),
      ...(child.database ? { sqlite: true } : {}),
    },
    facts,
    wal: child.database ? wal : null,
  };
}

/** Number of the hard link group of an inode, in order of first sight. */
function groupOf(walk: Walk, stat: FileStat): number {
  const key = `${stat.dev}:${stat.ino}`;
  const group = walk.links.get(key) ?? walk.links.size + 1;
  walk.links.set(key, group);
  return group;
}
