/**
 * Where the objects of a replicated database lie, in Litestream's own two layouts, so that `litestream restore` reads
 * them: `databases/<name>/<level as 4 hex digits>/<min>-<max>.ltx` in a bucket and
 * `databases/<name>/ltx/<level decimal>/<min>-<max>.ltx` in a folder store. Names only; nothing here sends a request.
 */

import { assert } from "../platform/assert.ts";

/** bucket: Litestream's S3 layout; folder: its file layout. */
export type ReplicaLayout = "bucket" | "folder";

/** The usual one of a store. */
export function layoutOf({ kind }: { readonly kind: "directory" | "s3" }): ReplicaLayout {
  return kind === "directory" ? "folder" : "bucket";
}

/** What all keys of databases begin with. */
export const DATABASES_PREFIX = "databases/";

/** One database's place in the store; keys are under the store's prefix. */
export interface ReplicaPlace {
  readonly layout: ReplicaLayout;
  /** The database's name in the configuration. */
  readonly name: string;
}

/** Level of the commits as they come; min and max TXID are equal there. */
export const COMMIT_LEVEL = 0;
/** Level of the snapshots: all pages, min TXID 1. */
export const SNAPSHOT_LEVEL = 9;
/** Levels that are written; Litestream may be configured with any of 0 to 9, and all of them are read. */
export const WRITTEN_LEVELS = [0, 1, 2, 3, 9] as const;
/** Commit time of an object's newest transaction; `litestream restore -timestamp` decides by it. */
export const TIMESTAMP_METADATA = "litestream-timestamp";

/** Fencing token of the term that wrote a slot, as in its LTX header: for people who look at the bucket. */
const TOKEN_METADATA = "sm-token";

/** What a key says. */
export interface ReplicaName {
  readonly level: number;
  readonly minTxid: number;
  readonly maxTxid: number;
}

const FILE_NAME = /^([0-9a-f]{16})-([0-9a-f]{16})\.ltx$/;

/** What all keys of one database begin with. */
export function databasePrefix(place: ReplicaPlace): string {
  return place.layout === "bucket" ? `databases/${place.name}/` : `databases/${place.name}/ltx/`;
}

export function levelPrefix(place: ReplicaPlace, level: number): string {
  assert(Number.isInteger(level) && level >= 0 && level <= SNAPSHOT_LEVEL, "a level is one of 0 to 9");
  const folder = place.layout === "bucket" ? level.toString(16).padStart(4, "0") : String(level);
  return `${databasePrefix(place)}${folder}/`;
}

export function txidText(txid: number): string {
  assert(Number.isSafeInteger(txid) && txid >= 0, "a TXID is a whole number");
  return txid.toString(16).padStart(16, "0");
}

export function replicaKey(place: ReplicaPlace, name: ReplicaName): string {
  assert(name.minTxid >= 1 && name.minTxid <= name.maxTxid, "a file's TXIDs are from 1 on, in order");
  return `${levelPrefix(place, name.level)}${txidText(name.minTxid)}-${txidText(name.maxTxid)}.ltx`;
}

/** Null for a key that is not exactly one `replicaKey` makes. */
export function parseReplicaKey(place: ReplicaPlace, key: string): ReplicaName | null {
  const prefix = databasePrefix(place);
  if (!key.startsWith(prefix)) return null;
  const [folder, file, ...rest] = key.slice(prefix.length).split("/");
  if (folder === undefined || file === undefined || rest.length > 0) return null;
  const folderFits = place.layout === "bucket" ? /^000[0-9]$/.test(folder) : /^[0-9]$/.test(folder);
  const [, minText, maxText] = FILE_NAME.exec(file) ?? [];
  if (!folderFits || minText === undefined || maxText === undefined) return null;
  const [minTxid, maxTxid] = [parseInt(minText, 16), parseInt(maxText, 16)];
  const inOrder = minTxid >= 1 && minTxid <= maxTxid && Number.isSafeInteger(maxTxid);
  return inOrder ? { level: Number(folder), minTxid, maxTxid } : null;
}

/** RFC 3339, as Litestream parses it. */
export function timestampMetadata(timestampMs: number): Readonly<Record<string, string>> {
  return { [TIMESTAMP_METADATA]: new Date(timestampMs).toISOString() };
}

export function slotMetadata(timestampMs: number, token: number): Readonly<Record<string, string>> {
  return { ...timestampMetadata(timestampMs), [TOKEN_METADATA]: String(token) };
}

/** Milliseconds since the epoch; null without the metadata, or when it says no time. */
export function timestampOf(metadata: Readonly<Record<string, string>>): number | null {
  const text = metadata[TIMESTAMP_METADATA];
  const timeMs = text === undefined ? NaN : Date.parse(text);
  return Number.isFinite(timeMs) ? timeMs : null;
}
