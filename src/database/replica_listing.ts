/**
 * What lies in the store of one database. The holder of the lease lists it once, at the start of its term, and keeps
 * the listing up to date by its own puts and deletes (`HolderListing`), so that an idle database costs no requests;
 * whoever has no lease lists anew each time (`listReplica`). A key that is not ours is left out and named, gaps and
 * overlaps are reported, nothing is ever repaired or guessed.
 *
 * A listing is never what decides the next slot: that is the position of the holder and the store's own conditional
 * put. A listing that misses the newest object or shows a deleted one therefore harms nothing but the plan made of it.
 */

import type { ObjectInfo, ObjectStore, RequestOptions } from "../storage/object_store.ts";
import { listAll } from "../storage/object_store.ts";
import {
  databasePrefix,
  levelPrefix,
  parseReplicaKey,
  replicaKey,
  type ReplicaName,
  type ReplicaPlace,
  SNAPSHOT_LEVEL,
} from "./replica_layout.ts";

/** One object of a replica, as far as a listing knows it. */
export interface ReplicaFile extends ReplicaName {
  readonly key: string;
  readonly sizeBytes: number;
  /** Commit time of its newest transaction. Null: not known without reading the object's header or metadata. */
  readonly timestampMs: number | null;
  /** The store's own time of the object; our wall clock for one that we put ourselves. */
  readonly modifiedMs: number;
}

/** Something about a listing that a healthy replica does not have. */
export interface ListingDefect {
  /**
   * odd-key: below the database's prefix and not a replica's key, left out. too-small: cannot be an LTX file, left out.
   * gap, overlap: between two neighbours of one level (`chainDefects`).
   */
  readonly kind: "odd-key" | "too-small" | "gap" | "overlap";
  readonly key: string;
  readonly detail: string;
}

export interface ReplicaListing {
  /** By level, then min TXID, then max TXID. */
  readonly files: readonly ReplicaFile[];
  readonly defects: readonly ListingDefect[];
}

export interface ListReplicaOptions extends RequestOptions {
  /** Only these levels. Default: all, in one listing. */
  readonly levels?: readonly number[];
}

/** An LTX file without a page: header 100, end of pages 6, index 9, trailer 16. */
const SMALLEST_FILE_BYTES = 131;

export function compareFiles(a: ReplicaName, b: ReplicaName): number {
  return a.level - b.level || a.minTxid - b.minTxid || a.maxTxid - b.maxTxid;
}

/**
 * Lists one database anew. Levels come in ascending order: a file that a compaction moves up meanwhile is seen in the
 * lower level, in the upper one or in both, never in neither.
 */
export async function listReplica(
  store: ObjectStore,
  place: ReplicaPlace,
  options: ListReplicaOptions = {},
): Promise<ReplicaListing> {
  const { levels, ...request } = options;
  const prefixes = levels === undefined
    ? [databasePrefix(place)]
    : [...levels].sort((a, b) => a - b).map((level) => levelPrefix(place, level));
  const files: ReplicaFile[] = [];
  const defects: ListingDefect[] = [];
  for (const prefix of prefixes) {
    for await (const info of listAll(store, prefix, request)) {
      const read = readInfo(place, info);
      if ("kind" in read) defects.push(read);
      else files.push(read);
    }
  }
  files.sort(compareFiles);
  return { files, defects: [...defects, ...chainDefects(files)] };
}

function readInfo(place: ReplicaPlace, info: ObjectInfo): ReplicaFile | ListingDefect {
  const { key, sizeBytes, modifiedMs } = info;
  const name = parseReplicaKey(place, key);
  if (name === null) return { kind: "odd-key", key, detail: "not the key of a replica's file" };
  if (sizeBytes < SMALLEST_FILE_BYTES) {
    return {
      kind: "too-small",
      key,
      detail: `has ${sizeBytes} bytes, an LTX file has at least ${SMALLEST_FILE_BYTES}`,
    };
  }
  return { ...name, key, sizeBytes, timestampMs: null, modifiedMs };
}

/**
 * Gaps and overlaps between neighbours of one level. A gap whose TXIDs are in other files is none: retention keeps single
 * files for kept checkpoints. Snapshots overlap by nature. `files` as `compareFiles` sorts.
 */
export function chainDefects(files: readonly ReplicaFile[]): ListingDefect[] {
  const defects: ListingDefect[] = [];
  let previous: ReplicaFile | undefined;
  for (const file of files) {
    if (file.level === SNAPSHOT_LEVEL) continue;
    if (previous?.level === file.level) {
      const wanted = previous.maxTxid + 1;
      if (file.minTxid > wanted && !isHeld(files, wanted, file.minTxid - 1)) {
        defects.push({
          kind: "gap",
          key: file.key,
          detail: `begins at ${file.minTxid}, wanted ${wanted} after ${previous.key}`,
        });
      } else if (file.minTxid < wanted) {
        defects.push({ kind: "overlap", key: file.key, detail: `begins within ${previous.key}` });
      }
    }
    previous = file;
  }
  return defects;
}

/** Whether the files together hold all TXIDs from `first` to `last`. */
function isHeld(files: readonly ReplicaFile[], first: number, last: number): boolean {
  let reached = first - 1;
  // From the end: snapshots come last and hold nearly every gap that there is.
  for (let next = furthest(files, reached); next > reached; next = furthest(files, reached)) {
    reached = next;
    if (reached >= last) return true;
  }
  return false;
}

function furthest(files: readonly ReplicaFile[], reached: number): number {
  let most = reached;
  for (let at = files.length - 1; at >= 0; at--) {
    const file = files[at];
    if (file === undefined || file.minTxid > reached + 1 || file.maxTxid <= most) continue;
    most = file.maxTxid;
    if (file.level === SNAPSHOT_LEVEL) break; // the newest one: what else there is begins after it or is inside
  }
  return most;
}

/** The listing of the holder: read once, then told of each of its own puts and deletes. */
export class HolderListing {
  readonly place: ReplicaPlace;
  /** Own puts and deletes while a listing is under way, which may show the state before or after them. */
  #meanwhile: (() => void)[] | null = null;
  #byKey = new Map<string, ReplicaFile>();
  #byLevel = new Map<number, ReplicaFile[]>();

  private constructor(place: ReplicaPlace, files: readonly ReplicaFile[]) {
    this.place = place;
    this.#replace(files);
  }

  /** Lists the database; `defects` are for the log. */
  static async load(
    store: ObjectStore,
    place: ReplicaPlace,
    options: RequestOptions = {},
  ): Promise<{ readonly listing: HolderListing; readonly defects: readonly ListingDefect[] }> {
    const { files, defects } = await listReplica(store, place, options);
    return { listing: new HolderListing(place, files), defects };
  }

  /** Of a listing that is known already, for example the one a restore has made under the same lease. */
  static of(place: ReplicaPlace, files: readonly ReplicaFile[]): HolderListing {
    return new HolderListing(place, files);
  }

  /**
   * Lists the database anew, for one who found that an object of the listing is not there. On an error all stays as it
   * was.
   */
  async reload(store: ObjectStore, options: RequestOptions = {}): Promise<readonly ListingDefect[]> {
    const meanwhile: (() => void)[] = [];
    this.#meanwhile = meanwhile;
    try {
      const { files, defects } = await listReplica(store, this.place, options);
      const known = this.#byKey;
      this.#replace(
        files.map((file) => ({ ...file, timestampMs: known.get(file.key)?.timestampMs ?? null })),
      );
      this.#meanwhile = null;
      for (const repeat of meanwhile) repeat();
      return defects;
    } finally {
      this.#meanwhile = null;
    }
  }

  /** All files, by level, min, max. */
  get files(): readonly ReplicaFile[] {
    return [...this.#byLevel.keys()].sort((a, b) => a - b).flatMap((level) => this.level(level));
  }

  /** By min, then max TXID. */
  level(level: number): readonly ReplicaFile[] {
    return this.#byLevel.get(level) ?? [];
  }

  /** The one that reaches furthest. */
  newest(level: number): ReplicaFile | null {
    return this.level(level).reduce<ReplicaFile | null>(
      (best, file) => best === null || file.maxTxid >= best.maxTxid ? file : best,
      null,
    );
  }

  /** The furthest TXID of any level; 0 for an empty replica. */
  get maxTxid(): number {
    return [...this.#byLevel.keys()].reduce(
      (most, level) => Math.max(most, this.newest(level)?.maxTxid ?? 0),
      0,
    );
  }

  get(key: string): ReplicaFile | null {
    return this.#byKey.get(key) ?? null;
  }

  /** A put of ours is known to be there. */
  added(
    file: ReplicaName & Pick<ReplicaFile, "sizeBytes" | "timestampMs" | "modifiedMs">,
  ): ReplicaFile {
    const { level, minTxid, maxTxid, sizeBytes, timestampMs, modifiedMs } = file;
    const key = replicaKey(this.place, { level, minTxid, maxTxid });
    const entry = { level, minTxid, maxTxid, sizeBytes, timestampMs, modifiedMs, key };
    this.#meanwhile?.push(() => this.#put(entry));
    this.#put(entry);
    return entry;
  }

  /** A delete of ours was sent: whatever became of it, nothing may count on the object any more. */
  removed(key: string): void {
    this.#meanwhile?.push(() => this.#remove(key));
    this.#remove(key);
  }

  #remove(key: string): void {
    const file = this.#byKey.get(key);
    if (file === undefined) return;
    this.#byKey.delete(key);
    this.#byLevel.set(file.level, this.level(file.level).filter((each) => each.key !== key));
  }

  #replace(files: readonly ReplicaFile[]): void {
    this.#byKey = new Map(files.map((file) => [file.key, file]));
    this.#byLevel = Map.groupBy([...files].sort(compareFiles), (file) => file.level);
  }

  #put(file: ReplicaFile): void {
    this.#remove(file.key);
    this.#byKey.set(file.key, file);
    const files = this.level(file.level);
    // Files come in order nearly always: from the end there is nothing to move.
    let at = files.length;
    while (at > 0 && compareFiles(file, files[at - 1] ?? file) < 0) at--;
    this.#byLevel.set(file.level, files.toSpliced(at, 0, file));
  }
}
