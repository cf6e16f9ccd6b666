/** What can be restored: the databases in a store, and the points of one of them. Reads only. */

import type { ObjectStore, RequestOptions } from "../storage/object_store.ts";
import { listAll } from "../storage/object_store.ts";
import {
  DATABASES_PREFIX,
  parseReplicaKey,
  type ReplicaLayout,
  type ReplicaName,
  type ReplicaPlace,
} from "./replica_layout.ts";
import { listReplica } from "./replica_listing.ts";
import { type FetchEnvironment, withTimes } from "./restore_fetch.ts";
import { newestTxid, pageOfPoints, POINTS_PAGE_LIMIT, restorePoints } from "./restore_plan.ts";

export interface PointsRequest {
  readonly place: ReplicaPlace;
  /** Only points after this TXID; 0 for all. */
  readonly after: number;
  /** At most `POINTS_PAGE_LIMIT`, which is the default. */
  readonly limit?: number;
  /** The last ones instead of the first, still oldest first. */
  readonly newest?: boolean;
}

export interface ListedPoint {
  readonly txid: number;
  /** Commit time: a restore to "not after" this time ends here. */
  readonly timestampMs: number;
  readonly level: number;
}

export interface ListedPoints {
  /** Oldest first. */
  readonly points: readonly ListedPoint[];
  /** Give as `after` for the next page; null on the last one. */
  readonly nextAfter: number | null;
  readonly total: number;
  /** Newest TXID of any file; larger than the last point where files are missing. 0: no such database. */
  readonly newestTxid: number;
}

export async function listRestorePoints(
  { place, after, limit = POINTS_PAGE_LIMIT, newest = false }: PointsRequest,
  environment: FetchEnvironment,
): Promise<ListedPoints> {
  const { files } = await listReplica(environment.store, place, { signal: environment.signal });
  const all = restorePoints(files);
  const most = Math.min(Math.max(1, limit), POINTS_PAGE_LIMIT);
  const page = pageOfPoints(newest ? all.slice(-most) : all, after, most);
  const timed = await withTimes(page.points.map(({ file }) => file), environment);
  return {
    points: timed.map(({ maxTxid: txid, timestampMs, level }) => ({ txid, timestampMs, level })),
    nextAfter: page.nextAfter,
    total: all.length,
    newestTxid: newestTxid(files),
  };
}

/** One database, as the keys in the store tell. */
export interface StoredDatabase {
  readonly name: string;
  readonly layout: ReplicaLayout;
  readonly files: number;
  readonly bytes: number;
  readonly newestTxid: number;
  /** The store's time of its newest object, for people. */
  readonly modifiedMs: number;
}

export interface ReplicaObject {
  readonly place: ReplicaPlace;
  readonly name: ReplicaName;
}

/** Names may have slashes: the part before the level, as short as it can be. */
const KEYS: Readonly<Record<ReplicaLayout, RegExp>> = {
  bucket: /^databases\/(.+?)\/000[0-9]\/[^/]+$/,
  folder: /^databases\/(.+?)\/ltx\/[0-9]\/[^/]+$/,
};

/** Whose levels a key lies in; whether it is a replica's file there is another question. */
function databaseOfKey(key: string): ReplicaPlace | null {
  for (const layout of ["bucket", "folder"] as const) {
    const name = KEYS[layout].exec(key)?.[1];
    if (name !== undefined) return { layout, name };
  }
  return null;
}

/** Null: not the key of a replica's file, in neither layout. */
export function parseAnyReplicaKey(key: string): ReplicaObject | null {
  const place = databaseOfKey(key);
  const name = place === null ? null : parseReplicaKey(place, key);
  return place === null || name === null ? null : { place, name };
}

/** More than a bucket of one repository can sensibly hold; a listing that goes on and on ends with an error elsewhere. */
const MOST_NAMES = 100_000;

/**
 * Names of all databases in the store, a request each: a listing of all their files could be thousands of pages.
 * After a key of `databases/app/` the next name is what follows "databases/app0": "0" comes right after "/".
 */
export async function listDatabaseNames(store: ObjectStore, options: RequestOptions = {}): Promise<string[]> {
  const names: string[] = [];
  let startAfter: string | undefined;
  while (names.length < MOST_NAMES) {
    const page = await store.list({
      prefix: DATABASES_PREFIX,
      limit: 1,
      ...(startAfter === undefined ? {} : { startAfter }),
      ...options,
    });
    const key = page.objects[0]?.key;
    if (key === undefined) break;
    const name = databaseOfKey(key)?.name;
    if (name !== undefined) names.push(name);
    startAfter = `${DATABASES_PREFIX}${name ?? key.slice(DATABASES_PREFIX.length).split("/")[0]}0`;
  }
  return names;
}

/**
 * All databases in the store, by name. Both layouts are looked for: a bucket that was copied to a folder keeps its own.
 * It lists every object of every database.
 */
export async function listDatabases(
  store: ObjectStore,
  options: RequestOptions = {},
): Promise<readonly StoredDatabase[]> {
  const found = new Map<string, StoredDatabase>();
  for await (const { key, sizeBytes, modifiedMs } of listAll(store, DATABASES_PREFIX, options)) {
    const read = parseAnyReplicaKey(key);
    if (read === null) continue;
    const { name, layout } = read.place;
    const before = found.get(`${layout} ${name}`);
    found.set(`${layout} ${name}`, {
      name,
      layout,
      files: (before?.files ?? 0) + 1,
      bytes: (before?.bytes ?? 0) + sizeBytes,
      newestTxid: Math.max(before?.newestTxid ?? 0, read.name.maxTxid),
      modifiedMs: Math.max(before?.modifiedMs ?? 0, modifiedMs),
    });
  }
  return [...found.values()].sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
}

/** Where the store has this database: in its usual layout, or in the other one; null: nowhere. */
export async function findReplica(
  store: ObjectStore,
  name: string,
  usual: ReplicaLayout,
  options: RequestOptions = {},
): Promise<ReplicaPlace | null> {
  const other = usual === "bucket" ? "folder" : "bucket";
  for (const layout of [usual, other] as const) {
    for await (const { key } of listAll(store, `databases/${name}/`, options)) {
      const place = parseAnyReplicaKey(key)?.place;
      if (place?.layout === layout && place.name === name) return place;
    }
  }
  return null;
}
