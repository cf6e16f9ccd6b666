/**
 * One files root on its way into a checkpoint: scanned once, then every file that may have changed is read. What
 * cannot be read is left out with a warning; what changes while it is read is taken after a few tries, with one too.
 */

import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, isError } from "../platform/errors.ts";
import { removeIfPresent } from "../platform/files.ts";
import { closeFd, isErrno, LibcError, type PathBytes, pathBytes, showPath } from "../platform/libc_files.ts";
import { readContent } from "./content_reader.ts";
import { FUZZY_READS, openForReading, openRootFolder } from "./file_reader.ts";
import type { Pacer } from "./pacer.ts";
import { type ScannedEntry, scanTree } from "./scan.ts";
import type { ScanCache } from "./scan_cache.ts";
import { snapshotDatabase } from "./sqlite_snapshot.ts";
import type { ContentPart, FilesRoot, FileWarning, ManifestEntry, TreeEntry } from "./types.ts";

export interface TreeReaderOptions {
  readonly root: FilesRoot;
  readonly cache: ScanCache;
  readonly clock: Clock;
  /** File for one database copy at a time. */
  readonly scratchFile: string;
  readonly signal: AbortSignal;
  readonly pacer: Pacer;
  readonly warn: (warning: FileWarning) => void;
  /** Stores a chunk and says its id. */
  readonly store: (chunk: Uint8Array) => string;
  /** True when the chunk is in the repository. */
  readonly stored: (id: string) => boolean;
  /** Null when another chunk may be stored at once, else a promise to await. */
  readonly room: () => Promise<void> | null;
  readonly expectedDevice: string | null;
}

export class TreeReader {
  readonly #options: TreeReaderOptions;
  #scanned: ScannedEntry[] = [];
  readonly #databases = new Map<ScannedEntry, ManifestEntry>();
  #bytes = 0;
  #bytesRead = 0;

  constructor(options: TreeReaderOptions) {
    this.#options = options;
  }

  get root(): FilesRoot {
    return this.#options.root;
  }

  /** Device of the root, decimal. */
  get device(): string {
    return String(this.#scanned[0]?.facts.dev ?? "");
  }

  get entryCount(): number {
    return this.#scanned.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get bytesRead(): number {
    return this.#bytesRead;
  }

  async scan(): Promise<void> {
    const { root, cache, signal, pacer, warn, expectedDevice } = this.#options;
    const entries = scanTree(root, {
      signal,
      onWarning: warn,
      knownDatabase: cache.knownDatabase,
      ...(expectedDevice === null ? {} : { expectedDev: BigInt(expectedDevice) }),
    });
    for (const scanned of entries) {
      this.#scanned.push(scanned);
      this.#bytes += scanned.entry.size;
      pacer.count(1, scanned.entry.size);
      const pause = pacer.turn();
      if (pause !== null) await pause;
    }
  }

  /** Reads the databases, each from a consistent copy. Before `entries`. */
  async readDatabases(): Promise<void> {
    const groups = new Set<number>();
    for (const scanned of this.#scanned) {
      const { entry } = scanned;
      if (entry.sqlite !== true) continue;
      if (entry.linkGroup !== undefined && groups.has(entry.linkGroup)) continue;
      if (entry.linkGroup !== undefined) groups.add(entry.linkGroup);
      const read = this.#cached(scanned) ?? await this.#readDatabase(scanned);
      if (read !== null) this.#databases.set(scanned, read);
    }
  }

  /** Every entry with its content, in path order. Entries that vanished or cannot be read are left out. */
  async *entries(): AsyncGenerator<ManifestEntry> {
    const folder = openRootFolder(this.root.path);
    const carriers = new Map<number, TreeEntry>();
    try {
      for (const scanned of this.#scanned) {
        const { entry } = scanned;
        this.#options.pacer.count(1, 0);
        const carrier = entry.linkGroup === undefined ? undefined : carriers.get(entry.linkGroup);
        if (entry.type !== "file") {
          yield { entry, parts: [] };
        } else if (carrier !== undefined) {
          // One inode: what was read of the first member holds for this one, whatever the scan saw.
          yield { entry: { ...carrier, path: entry.path }, parts: [] };
        } else {
          const read = this.#databases.get(scanned) ?? this.#cached(scanned) ??
            await this.#readFile(folder, scanned);
          if (read === null) continue;
          if (entry.linkGroup !== undefined) carriers.set(entry.linkGroup, read.entry);
          yield read;
        }
      }
    } finally {
      closeFd(folder);
    }
  }

  saveCache(): Promise<void> {
    return this.#options.cache.save();
  }

  /** The file as remembered, if it is unchanged and all its chunks are still in the repository. */
  #cached(scanned: ScannedEntry): ManifestEntry | null {
    const parts = this.#options.cache.find(scanned);
    if (parts === null) return null;
    if (!parts.every((part) => part.kind === "hole" || this.#options.stored(part.id))) return null;
    const size = sizeOf(parts);
    if (scanned.entry.sqlite !== true && size !== scanned.entry.size) return null;
    this.#options.cache.remember(scanned, parts);
    this.#options.pacer.count(0, scanned.entry.size);
    return { entry: { ...scanned.entry, size }, parts };
  }

  async #readFile(folder: number, scanned: ScannedEntry): Promise<ManifestEntry | null> {
    const { sqlite: _raw, ...entry } = scanned.entry;
    try {
      for (let attempt = 1;; attempt++) {
        const file = openForReading(folder, entry);
        try {
          const parts = await readContent(file, this.#contentOptions(scanned.entry.sqlite === true));
          const size = sizeOf(parts);
          const changed = file.changed() || size !== file.entry.size;
          if (!changed) {
            this.#options.cache.remember({ ...scanned, entry: file.entry, facts: file.facts }, parts);
            return { entry: file.entry, parts };
          }
          if (attempt === FUZZY_READS) {
            this.#warn(entry.path, "changed while it was read: its content may mix states");
            return { entry: { ...file.entry, size }, parts };
          }
        } finally {
          file.close();
        }
      }
    } catch (error) {
      if (!(error instanceof LibcError)) throw error;
      const gone = ["ENOENT", "ESTALE", "ENOTDIR"].includes(error.errno);
      if (!gone) this.#warn(entry.path, `not read: ${error.errno}`);
      return null;
    }
  }

  /** Null when no consistent copy could be made: the file is then read as it is, with a warning. */
  async #readDatabase(scanned: ScannedEntry): Promise<ManifestEntry | null> {
    const { clock, scratchFile, signal } = this.#options;
    const { entry } = scanned;
    try {
      await snapshotDatabase(joinPath(this.root.path, entry.path), scratchFile, { clock, signal });
      const parts = await this.#readCopy(scratchFile);
      this.#options.cache.remember(scanned, parts);
      return { entry: { ...entry, size: sizeOf(parts) }, parts };
    } catch (error) {
      signal.throwIfAborted();
      if (isError(error, "disk-full", "cancelled")) throw error;
      if (isErrno(error, "ENOENT")) return null;
      const reason = asStateManagerError(error).message;
      this.#warn(entry.path, `no consistent copy of the database, its file was taken as it is: ${reason}`);
      return null;
    } finally {
      await removeIfPresent(scratchFile);
    }
  }

  async #readCopy(path: string): Promise<readonly ContentPart[]> {
    const cut = path.lastIndexOf("/");
    const folder = openRootFolder(path.slice(0, cut));
    try {
      const name = pathBytes(path.slice(cut + 1));
      const file = openForReading(folder, {
        path: name,
        type: "file",
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtimeNs: 0n,
        size: 0,
      });
      try {
        return await readContent(file, this.#contentOptions(true));
      } finally {
        file.close();
      }
    } finally {
      closeFd(folder);
    }
  }

  #contentOptions(sqlite: boolean) {
    const { store, pacer, room } = this.#options;
    return {
      sqlite,
      store,
      pace: (bytes: number) => {
        this.#bytesRead += bytes;
        pacer.count(0, bytes);
        return both(pacer.turn(), room());
      },
    };
  }

  #warn(path: PathBytes, reason: string): void {
    this.#options.warn({ root: this.root.name, path: showPath(path), reason });
  }
}

function both(first: Promise<void> | null, second: Promise<void> | null): Promise<void> | null {
  if (first === null) return second;
  return second === null ? first : first.then(() => second);
}

function sizeOf(parts: readonly ContentPart[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
}

function joinPath(root: string, path: PathBytes): PathBytes {
  const folder = pathBytes(root + "/");
  const joined = new Uint8Array(folder.length + path.length);
  joined.set(folder);
  joined.set(path, folder.length);
  return joined;
}
