/** The folders of a folder store: made when needed, durable before anything in them counts, temporaries swept. */

import type { Clock } from "../platform/clock.ts";
import { parentOf } from "../platform/files.ts";
import type { CreateOptions, LocalFiles } from "../platform/local_files.ts";
import { type Random, randomHex } from "../platform/random.ts";
import {
  isStoreFolder,
  makeStoreFolder,
  readStoreFolder,
  removeStoreEntry,
  statStoreFile,
  type StoreFileInfo,
  writeStoreFile,
} from "../platform/store_files.ts";
import { TEMPORARY_FOLDER } from "./folder_layout.ts";

/** No put that still runs is this old, unless its process was stopped: then it fails and wrote nothing. */
const TEMPORARY_LIFE_MS = 24 * 3600 * 1000;
/** Temporaries are left by crashes only: looking for them more often finds nothing. */
const SWEEP_INTERVAL_MS = 3600 * 1000;
/** Folders that we know to be durable; beyond it we forget and sync again. */
const MOST_KNOWN_FOLDERS = 10_000;

export interface FolderTreeOptions {
  /** Absolute, without a slash at its end. */
  readonly root: string;
  readonly files: LocalFiles;
  readonly clock: Clock;
  readonly random: Random;
}

export class FolderTree {
  readonly root: string;
  readonly files: LocalFiles;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #durable = new Set<string>();
  #nextSweepMs = 0;

  constructor(options: FolderTreeOptions) {
    this.root = options.root;
    this.files = options.files;
    this.#clock = options.clock;
    this.#random = options.random;
  }

  pathOf(key: string): string {
    return `${this.root}/${key}`;
  }

  get #temporaries(): string {
    return `${this.root}/${TEMPORARY_FOLDER}`;
  }

  /**
   * Makes `path` and what is missing above it. Each name is synced once per process, also where the folder was there:
   * who made it may have died before its own sync.
   */
  async ensureFolder(path: string): Promise<void> {
    if (this.#durable.has(path) && await isStoreFolder(this.files, path)) return;
    if (path === "/") return;
    await this.ensureFolder(parentOf(path));
    await makeStoreFolder(this.files, path);
    await this.#syncName(path);
    if (this.#durable.size >= MOST_KNOWN_FOLDERS) this.#durable.clear();
    this.#durable.add(path);
  }

  /** Above the store's root folders may be closed to us: what somebody else made there is theirs to make durable. */
  async #syncName(path: string): Promise<void> {
    try {
      await this.files.syncFolder(parentOf(path));
    } catch (error) {
      if (path.length > this.root.length) throw error;
    }
  }

  async syncFolder(path: string): Promise<void> {
    await this.files.syncFolder(path);
  }

  async syncParent(path: string): Promise<void> {
    await this.files.syncFolder(parentOf(path));
  }

  async ensureParent(path: string): Promise<void> {
    await this.ensureFolder(parentOf(path));
  }

  /** Writes and syncs a temporary file, hands it to `use`, and removes it whatever happens. */
  async withTemporary<T>(
    parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    use: (temporary: string, info: StoreFileInfo) => Promise<T>,
    how: CreateOptions = {},
  ): Promise<T> {
    await this.ensureFolder(this.#temporaries);
    await this.#sweepWhenDue();
    signal.throwIfAborted();
    const temporary = `${this.#temporaries}/${randomHex(this.#random)}`;
    try {
      const info = await writeStoreFile(this.files, temporary, parts, { signal, ...how });
      signal.throwIfAborted(); // the last moment at which nothing has landed
      return await use(temporary, info);
    } finally {
      await removeStoreEntry(this.files, temporary).catch(() => {}); // swept later: no reason to fail what was done
    }
  }

  async #sweepWhenDue(): Promise<void> {
    const now = this.#clock.monotonicMs();
    if (now < this.#nextSweepMs) return;
    this.#nextSweepMs = now + SWEEP_INTERVAL_MS;
    for (const entry of await readStoreFolder(this.files, this.#temporaries) ?? []) {
      if (entry.kind === "file") await this.#sweepOne(`${this.#temporaries}/${entry.name}`);
    }
  }

  /** Another process may sweep at the same time, and what can't be removed must not fail the put that found it. */
  async #sweepOne(path: string): Promise<void> {
    try {
      const info = await statStoreFile(this.files, path);
      if (info === null || this.#clock.wallMs() - info.modifiedMs < TEMPORARY_LIFE_MS) return;
      await removeStoreEntry(this.files, path);
    } catch {
      // Left for the next sweep.
    }
  }
}
