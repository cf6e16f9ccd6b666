/**
 * The port to local files that the manager and the folder store keep their own state in: one method per system call,
 * so that a decorator can fail each of them. What is durable and atomic is built on it, in files.ts and store_files.ts.
 * Not for users' trees: their names are bytes and their times nanoseconds (libc_files.ts).
 *
 * Every method throws what the runtime throws: an error whose message ends in "(os error N)".
 */

import { isOwn, UncachedFile, UncachedWriter } from "./uncached_files.ts";

export type FileKind = "file" | "folder" | "other";

export interface FileFacts {
  readonly kind: FileKind;
  readonly sizeBytes: number;
  /** Whole milliseconds. */
  readonly modifiedMs: number;
  /** Number of the file in its file system; 0 where it has none. */
  readonly inode: number;
}

export interface FileEntry {
  readonly name: string;
  readonly kind: FileKind;
}

export interface ReadableFile extends Disposable {
  facts(): Promise<FileFacts>;
  /** Bytes read into `target`, from `position` on; null at the end. May be fewer than fit. */
  read(target: Uint8Array, position: number): Promise<number | null>;
}

/** Bytes [from, from + length) of a file; fewer only at its end. */
export async function readRange(
  file: ReadableFile,
  from: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  let filled = 0;
  while (filled < length) {
    const count = await file.read(bytes.subarray(filled), from + filled);
    if (count === null) break;
    filled += count;
  }
  return bytes.subarray(0, filled);
}

export interface WritableFile extends Disposable {
  facts(): Promise<FileFacts>;
  /** Bytes written after those before; may be fewer than given. */
  write(bytes: Uint8Array): Promise<number>;
  /** fsync: the content is durable, its name not yet. */
  sync(): Promise<void>;
}

export interface CreateOptions {
  /** Nobody reads it soon: long writes of memory that lies right for it (uncached_files.ts) pass the page cache. */
  readonly uncached?: boolean;
}

export interface OpenOptions {
  /** It is read once: long reads into memory that lies right for it pass the page cache, but for what is there already. */
  readonly uncached?: boolean;
}

export interface LocalFiles {
  /** Follows links. */
  stat(path: string): Promise<FileFacts>;
  open(path: string, options?: OpenOptions): Promise<ReadableFile>;
  /** Makes a new file, never opens one that is there. */
  create(path: string, mode: number, options?: CreateOptions): Promise<WritableFile>;
  /** In no order. */
  list(path: string): Promise<FileEntry[]>;
  makeFolder(path: string, mode: number): Promise<void>;
  changeMode(path: string, mode: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Gives `from` the second name `to`, never over an existing one. */
  link(from: string, to: string): Promise<void>;
  /** A file or an empty folder. */
  remove(path: string): Promise<void>;
  /** With all that is in it; not one step. */
  removeTree(path: string): Promise<void>;
  /** fsync of a folder: the names in it are durable. */
  syncFolder(path: string): Promise<void>;
}

export type FileOperation = Exclude<keyof LocalFiles, symbol> | "read" | "write" | "sync";

/** Operations that leave nothing behind, whatever becomes of them. */
const LOOKING: readonly FileOperation[] = ["stat", "open", "list", "read"];

export function isChanging(operation: FileOperation): boolean {
  return !LOOKING.includes(operation);
}

/** What tests and the memory disk fail with; Linux's numbers. */
const NUMBERS = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  EACCES: 13,
  EEXIST: 17,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENOSPC: 28,
  EROFS: 30,
  ENOTEMPTY: 39,
  EDQUOT: 122,
} as const;

export type FileErrno = keyof typeof NUMBERS;

/** An error as the runtime throws it for this number. */
export function fileError(errno: FileErrno, action: string): Error {
  const message = `${errno} (os error ${NUMBERS[errno]}): ${action}`;
  switch (errno) {
    case "ENOENT":
      return new Deno.errors.NotFound(message);
    case "EEXIST":
      return new Deno.errors.AlreadyExists(message);
    case "ENOTDIR":
      return new Deno.errors.NotADirectory(message);
    case "EPERM":
    case "EACCES":
      return new Deno.errors.PermissionDenied(message);
    default:
      return new Error(message);
  }
}

/** True when the error says that nothing of that name is there. */
export function isMissing(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
}

function factsOf(info: Deno.FileInfo): FileFacts {
  const kind = info.isFile ? "file" : info.isDirectory ? "folder" : "other";
  return { kind, sizeBytes: info.size, modifiedMs: info.mtime?.getTime() ?? 0, inode: info.ino ?? 0 };
}

async function syncFolder(path: string): Promise<void> {
  using folder = await Deno.open(path, { read: true });
  await folder.sync();
}

/** `plain`, the writes of `file` by the runtime, with those that can be passing the page cache where `uncached`. */
function passingTheCache(
  path: string,
  file: Deno.FsFile,
  plain: WritableFile,
  { uncached = false }: CreateOptions = {},
): WritableFile {
  if (!uncached) return plain;
  const writer = new UncachedWriter(path);
  /** Where the next byte goes, and where the runtime would put it. */
  let [at, plainAt] = [0, 0];
  return {
    ...plain,
    async write(bytes) {
      const passed = await writer.write(bytes, at);
      at += passed;
      if (passed > 0) return passed;
      if (plainAt !== at) await file.seek(at, Deno.SeekMode.Start);
      const count = await plain.write(bytes);
      at += count;
      plainAt = at;
      return count;
    },
    [Symbol.dispose]() {
      writer[Symbol.dispose]();
      plain[Symbol.dispose]();
    },
  };
}

/** By an `UncachedFile`, and what that leaves to it by the runtime's file of that name; null: all of it. */
async function openUncached(path: string): Promise<ReadableFile | null> {
  const file = await UncachedFile.open(path);
  if (file === null) return null;
  const { type, size, mtimeNs, ino } = file.stat();
  const facts: FileFacts = {
    kind: type === "file" ? "file" : type === "directory" ? "folder" : "other",
    sizeBytes: size,
    modifiedMs: Number(mtimeNs / 1_000_000n),
    inode: Number(ino),
  };
  return {
    facts: () => Promise.resolve(facts),
    async read(target, position) {
      const count = isOwn(target) ? await file.read(target, position) : -1;
      if (count >= 0) return count === 0 ? null : count;
      using plain = await systemFiles.open(path);
      if ((await plain.facts()).inode !== facts.inode) throw fileError("ENOENT", `read '${path}'`);
      return await plain.read(target, position);
    },
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}

/** The machine's file systems. */
export const systemFiles: LocalFiles = {
  stat: async (path) => factsOf(await Deno.stat(path)),
  async open(path, { uncached = false } = {}) {
    const once = uncached ? await openUncached(path) : null;
    if (once !== null) return once;
    const file = await Deno.open(path, { read: true });
    let at = 0;
    return {
      facts: async () => factsOf(await file.stat()),
      async read(target, position) {
        if (position !== at) await file.seek(position, Deno.SeekMode.Start);
        const count = await file.read(target);
        at = position + (count ?? 0);
        return count;
      },
      [Symbol.dispose]: () => file.close(),
    };
  },
  async create(path, mode, options) {
    const file = await Deno.open(path, { write: true, createNew: true, mode });
    return passingTheCache(path, file, {
      facts: async () => factsOf(await file.stat()),
      write: (bytes) => file.write(bytes),
      sync: () => file.sync(),
      [Symbol.dispose]: () => file.close(),
    }, options);
  },
  list: (path) =>
    Array.fromAsync(Deno.readDir(path), ({ name, isFile, isDirectory }) => ({
      name,
      kind: isFile ? "file" : isDirectory ? "folder" : "other",
    })),
  makeFolder: (path, mode) => Deno.mkdir(path, { mode }),
  changeMode: (path, mode) => Deno.chmod(path, mode),
  rename: (from, to) => Deno.rename(from, to),
  link: (from, to) => Deno.link(from, to),
  remove: (path) => Deno.remove(path),
  removeTree: (path) => Deno.remove(path, { recursive: true }),
  syncFolder,
};

/** The work as a promise, done on this thread: what it throws is its rejection. */
function promptly<T>(work: () => T): Promise<T> {
  try {
    return Promise.resolve(work());
  } catch (error) {
    return Promise.reject(error);
  }
}

/**
 * The same file systems, with all but waits for the disk (fsync) and whole trees done on this thread: for a process
 * that makes many small calls and may stand still for one, since handing a call to another thread costs more than it.
 */
export const promptFiles: LocalFiles = {
  ...systemFiles,
  stat: (path) => promptly(() => factsOf(Deno.statSync(path))),
  open: (path) =>
    promptly(() => {
      const file = Deno.openSync(path, { read: true });
      let at = 0;
      return {
        facts: () => promptly(() => factsOf(file.statSync())),
        read: (target, position) =>
          promptly(() => {
            if (position !== at) file.seekSync(position, Deno.SeekMode.Start);
            const count = file.readSync(target);
            at = position + (count ?? 0);
            return count;
          }),
        [Symbol.dispose]: () => file.close(),
      };
    }),
  create: (path, mode, options) =>
    promptly(() => {
      const file = Deno.openSync(path, { write: true, createNew: true, mode });
      return passingTheCache(path, file, {
        facts: () => promptly(() => factsOf(file.statSync())),
        write: (bytes) => promptly(() => file.writeSync(bytes)),
        sync: () => file.sync(),
        [Symbol.dispose]: () => file.close(),
      }, options);
    }),
  rename: (from, to) => promptly(() => Deno.renameSync(from, to)),
  link: (from, to) => promptly(() => Deno.linkSync(from, to)),
  remove: (path) => promptly(() => Deno.removeSync(path)),
  removeTree(path) {
    // Nearly always one file, or nothing.
    const kind = promptly(() => Deno.lstatSync(path));
    return kind.then((info) => info.isDirectory ? systemFiles.removeTree(path) : promptFiles.remove(path));
  },
};
