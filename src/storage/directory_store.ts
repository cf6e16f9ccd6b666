/**
 * A folder as the store, for one host and for tests, with S3's guarantees between processes of that host. How objects
 * lie there is in folder_layout.ts, how versions replace each other in folder_object.ts. Never a file lock: it proves
 * only that its owner is dead, and waiting for one hangs behind a stopped process.
 */

import type { Clock } from "../platform/clock.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { type LocalFiles, systemFiles } from "../platform/local_files.ts";
import { type Random, randomHex } from "../platform/random.ts";
import {
  fileFault,
  readStoreFile,
  type ReadStoreFileOptions,
  readStorePieces,
} from "../platform/store_files.ts";
import { type DeadlineOptions, withDeadline } from "./deadline.ts";
import { encodeHeader } from "./folder_layout.ts";
import { walkObjects } from "./folder_listing.ts";
import {
  advance,
  currentVersion,
  metadataOf,
  plainVersion,
  removePlain,
  sweepDeleted,
  Unsettled,
  type Version,
} from "./folder_object.ts";
import { FolderTree } from "./folder_tree.ts";
import { FolderWrite, type Written } from "./folder_write.ts";
import { assertLargeSize, counted, largeDeadline, SourceFailure, unwrapped } from "./large_put.ts";
import { pageLimit, pageOf } from "./listing.ts";
import { assertBody, assertKey, assertMetadata, readableRange } from "./object_key.ts";
import type {
  ETag,
  GetOptions,
  ObjectInfo,
  ObjectStore,
  Pieces,
  PutLargeOptions,
  PutOptions,
  RequestOptions,
  StoredObject,
} from "./object_store.ts";
import {
  actionText,
  objectNotFound,
  type OperationKind,
  outcomeUnknown,
  preconditionFailed,
  tooSlow,
} from "./store_errors.ts";

export interface DirectoryStoreOptions {
  /** Absolute path; made by the first put. */
  readonly path: string;
  readonly clock: Clock;
  readonly random: Random;
  /** Where the folder is; left out: on this machine. */
  readonly files?: LocalFiles;
}

/** A local disk that needs longer for 64 MiB hangs (a dead network mount): better an error than silence. */
const DEFAULT_TIMEOUT_MS = 60_000;
/** Writers that overtake an unconditional put or delete before it gives up. */
const MOST_ROUNDS = 100;

type Bytes = Uint8Array<ArrayBuffer>;
type Present = Extract<Version, { present: true }>;

function infoOf(key: string, version: Present, metadata: Readonly<Record<string, string>>): ObjectInfo {
  const { sizeBytes, etag, file } = version;
  return { key, sizeBytes, etag, modifiedMs: file.modifiedMs, metadata };
}

function howToRead({ memory, uncached = false }: GetOptions, signal: AbortSignal): ReadStoreFileOptions {
  return { signal, uncached, ...(memory === undefined ? {} : { memory }) };
}

function conditionFault(version: Version, condition: PutOptions["condition"]): string | undefined {
  if (condition === undefined) return undefined;
  if ("absent" in condition) return version.present ? "it exists, wanted none" : undefined;
  if (!version.present) return "no such object, wanted a certain version";
  return version.etag === condition.etag ? undefined : "another version is there";
}

class DirectoryStore implements ObjectStore {
  readonly description: string;
  readonly #tree: FolderTree;
  readonly #clock: Clock;
  readonly #random: Random;

  constructor(options: DirectoryStoreOptions) {
    const root = options.path.replace(/(?<=.)\/+$/, "");
    this.description = `folder ${root}`;
    this.#clock = options.clock;
    this.#random = options.random;
    this.#tree = new FolderTree({ files: systemFiles, ...options, root });
  }

  get(key: string, options: GetOptions = {}) {
    return this.#run("get", key, options, async (signal) => {
      if (options.immutable === true) {
        const object = await this.#getPlain(key, options, signal);
        if (object !== null) return object;
      }
      for (let round = 0; round < MOST_ROUNDS; round++) {
        const version = await currentVersion(this.#tree, this.#tree.pathOf(key));
        if (!version.present) break;
        const { start, end } = readableRange(key, options.range, version.sizeBytes);
        const range = { start: start + version.offset, end: end + version.offset };
        const read = await readStoreFile(this.#tree.files, version.path, range, howToRead(options, signal));
        if (read === null) continue; // a newer version is there by now
        const metadata = await metadataOf(this.#tree, this.#tree.pathOf(key), version);
        return { ...infoOf(key, version, metadata), body: read.bytes };
      }
      throw objectNotFound("get", key, this.description);
    });
  }

  /** Of an object with one version, ever; null: not there as a plain file. */
  async #getPlain(key: string, options: GetOptions, signal: AbortSignal): Promise<StoredObject | null> {
    const path = this.#tree.pathOf(key);
    const range = (sizeBytes: number) => readableRange(key, options.range, sizeBytes);
    const read = await readStoreFile(this.#tree.files, path, range, howToRead(options, signal));
    if (read === null) return null;
    return { ...infoOf(key, plainVersion(path, read.info), {}), body: read.bytes };
  }

  head(key: string, options: RequestOptions = {}) {
    return this.#run("head", key, options, async () => {
      const path = this.#tree.pathOf(key);
      const version = await currentVersion(this.#tree, path);
      if (!version.present) throw objectNotFound("head", key, this.description);
      return infoOf(key, version, await metadataOf(this.#tree, path, version));
    });
  }

  put(key: string, body: Bytes, options: PutOptions = {}) {
    return this.#run("put", key, options, async (signal) => {
      assertBody(key, body);
      const { metadata = {}, uncached = false } = options;
      assertMetadata(metadata);
      const path = this.#tree.pathOf(key);
      const write = new FolderWrite(this.#tree, this.#random, path, metadata, signal);
      return await this.#settle(
        key,
        path,
        options.condition,
        (version) =>
          version.next === null
            ? write.create([body], { uncached })
            : write.replace(version, version.next, [body]),
      );
    });
  }

  /** The source can be read once, and other writers may make us try often: so it is on this disk first. */
  putLarge(key: string, pieces: Pieces, options: PutLargeOptions) {
    const put = { key, clock: this.#clock, description: this.description };
    let settling = false;
    const deadline = largeDeadline(put, options, () => settling);
    return this.#run("put", key, options, async (signal, progress) => {
      const { sizeBytes, condition, metadata = {} } = options;
      assertLargeSize(key, sizeBytes);
      assertMetadata(metadata);
      const path = this.#tree.pathOf(key);
      await this.#check(key, await currentVersion(this.#tree, path), condition);
      const write = new FolderWrite(this.#tree, this.#random, path, metadata, signal);
      const source = counted(key, pieces, { sizeBytes, signal }, progress);
      return await this.#tree.withTemporary(source, signal, async (file, info) => {
        settling = true;
        return await this.#settle(
          key,
          path,
          condition,
          (version) =>
            version.next === null
              ? write.createFrom(file, info)
              : write.replace(version, version.next, readStorePieces(this.#tree.files, file)),
        );
      });
    }, deadline);
  }

  /** Throws `precondition-failed` when `condition` does not hold. */
  async #check(key: string, version: Version, condition: PutOptions["condition"]): Promise<void> {
    const fault = conditionFault(version, condition);
    if (fault === undefined) return;
    // What refuses us may be so new that its name isn't durable: who hears of it may build on it.
    if (version.present) await this.#tree.syncParent(version.path);
    throw preconditionFailed(key, this.description, fault);
  }

  /** Attempts, on what is there each time, until one of them is the object or the condition is refused. */
  async #settle(
    key: string,
    path: string,
    condition: PutOptions["condition"],
    attempt: (version: Version) => Promise<Written>,
  ): Promise<{ readonly etag: ETag }> {
    for (let round = 0; round < MOST_ROUNDS; round++) {
      const version = await currentVersion(this.#tree, path);
      await this.#check(key, version, condition);
      const { outcome, etag } = await attempt(version);
      if (outcome === "won") return { etag };
      // Without a condition: once more, rather than answer for a version that perhaps nobody ever saw.
      if (outcome === "unknown" && condition !== undefined) {
        throw outcomeUnknown(
          key,
          this.description,
          "other writers went on before it could be seen who was first",
        );
      }
    }
    throw outcomeUnknown(key, this.description, `other writers were first ${MOST_ROUNDS} times`);
  }

  list(options: Parameters<ObjectStore["list"]>[0]) {
    return this.#run("list", options.prefix, options, async (signal) => {
      const limit = pageLimit(options);
      const objects: ObjectInfo[] = [];
      for await (const info of walkObjects(this.#tree, options)) {
        signal.throwIfAborted();
        objects.push(info);
        if (objects.length > limit) break;
      }
      return pageOf(objects, limit);
    });
  }

  delete(key: string, options: RequestOptions = {}) {
    return this.#run("delete", key, options, async (signal) => {
      const path = this.#tree.pathOf(key);
      for (let round = 0; round < MOST_ROUNDS; round++) {
        const version = await currentVersion(this.#tree, path);
        if (!version.present) return;
        if (version.header === null) {
          await removePlain(this.#tree, path);
          await this.#tree.syncParent(path);
          continue; // absent now, unless somebody swapped it at this moment: then mark that
        }
        const tag = randomHex(this.#random);
        const mark = encodeHeader({ tag, after: version.etag, deleted: true, metadata: {} });
        const outcome = await this.#tree.withTemporary(
          [mark],
          signal,
          (temporary) => advance(this.#tree, path, version, version.next, tag, temporary),
        );
        if (outcome !== "won") continue;
        // Deleted, for a moment at least. What the sweep leaves behind is hidden and means nothing.
        return await sweepDeleted(this.#tree, path).catch(() => {});
      }
      throw new Error(`other writers were first ${MOST_ROUNDS} times`);
    });
  }

  /** Its clock is this machine's. */
  clockMs(): null {
    return null;
  }

  async close() {}

  /** Checks the key, bounds the time and turns what the file system says into a store's errors. */
  async #run<T>(
    kind: OperationKind,
    key: string,
    options: RequestOptions,
    work: (signal: AbortSignal, progress: () => void) => Promise<T>,
    deadline?: DeadlineOptions,
  ): Promise<T> {
    if (kind !== "list") assertKey(key);
    const limitMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const plain: DeadlineOptions = {
      clock: this.#clock,
      signal: options.signal,
      limitMs,
      counts: "total",
      timedOut: () => tooSlow(kind, key, this.description, limitMs),
    };
    return await withDeadline(deadline ?? plain, async ({ signal, progress }) => {
      try {
        return await work(signal, progress);
      } catch (error) {
        throw signal.aborted ? signal.reason : this.#translate(kind, key, error);
      }
    });
  }

  #translate(kind: OperationKind, key: string, error: unknown): unknown {
    if (error instanceof SourceFailure) return unwrapped(error);
    if (isError(error)) return error;
    const action = actionText(kind, key, this.description);
    const text = error instanceof Error ? error.message : String(error);
    if (error instanceof Unsettled && kind === "put") {
      return outcomeUnknown(key, this.description, text, error.cause);
    }
    switch (fileFault(error)) {
      case "full":
        return new StateManagerError("store-full", `${action}: no space left`, {
          hint:
            "free space on that disk or raise the quota; nothing was lost, the write is tried again later",
          cause: error,
        });
      case "denied":
        return new StateManagerError("store-access-denied", `${action}: not permitted`, {
          hint:
            "let this user read and write the folder and everything in it, or name another storage.directory",
          cause: error,
        });
      case "no-hard-links":
        return new StateManagerError("store-unsafe", `${action}: this file system has no hard links`, {
          hint: "use a folder on a local file system such as ext4, xfs, btrfs or tmpfs",
          cause: error,
        });
      case "not-a-folder":
        return new StateManagerError("store-refused", `${action}: a file stands where a folder is needed`, {
          hint: "a key cannot lie below another key in a folder store",
          cause: error,
        });
      case "other":
        if (kind === "put") return outcomeUnknown(key, this.description, text, error);
        return new StateManagerError("store-unreachable", `${action}: ${text}`, {
          hint: "check the disk that holds the folder",
          cause: error,
        });
    }
  }
}

export function directoryStore(options: DirectoryStoreOptions): ObjectStore {
  return new DirectoryStore(options);
}
