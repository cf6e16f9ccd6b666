/** Files that lines are added to, as log writers see them: one method per system call, none of which blocks the loop. */

export interface AppendFile extends Disposable {
  /** Bytes so far; null for what cannot be rotated: a pipe, a terminal, /dev/stdout. */
  readonly sizeBytes: number | null;
  /** Which file it is; null where it cannot be told. */
  readonly inode: number | null;
  /** Bytes written at the end; may be fewer than given. */
  write(bytes: Uint8Array): Promise<number>;
}

export interface AppendFiles {
  /** Opens for adding; makes it where there is none. */
  open(path: string, mode: number): Promise<AppendFile>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  exists(path: string): Promise<boolean>;
  /** Which file the name means; null: none, or one that cannot be told. */
  inode(path: string): Promise<number | null>;
  makeFolder(path: string, mode: number): Promise<void>;
  /** Names in a folder, in no order. */
  list(path: string): Promise<string[]>;
}

async function isFifo(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFifo === true;
  } catch {
    return false;
  }
}

/** The machine's files. */
export const systemAppendFiles: AppendFiles = {
  async open(path, mode) {
    // A pipe with no reader would hold the call back until one comes; opened both ways it never does (fifo(7)).
    const file = await isFifo(path)
      ? await Deno.open(path, { read: true, write: true })
      : await Deno.open(path, { append: true, create: true, mode });
    const info = await file.stat();
    return {
      sizeBytes: info.isFile ? info.size : null,
      inode: info.ino,
      write: (bytes) => file.write(bytes),
      [Symbol.dispose]: () => file.close(),
    };
  },
  rename: (from, to) => Deno.rename(from, to),
  remove: (path) => Deno.remove(path),
  exists: (path) =>
    Deno.lstat(path).then(() => true, (error) => {
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }),
  inode: (path) => Deno.lstat(path).then(({ ino }) => ino, () => null),
  makeFolder: (path, mode) => Deno.mkdir(path, { recursive: true, mode }),
  list: (path) => Array.fromAsync(Deno.readDir(path), ({ name }) => name),
};
