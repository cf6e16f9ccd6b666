/**
 * What the local L0 files of a database say of its position, looked at from outside: by whoever decides what a start
 * does with it, before anything follows it. The follower's own reading of them is local_ltx.ts.
 */

import { isMissing, type LocalFiles, systemFiles } from "../platform/local_files.ts";
import type { ObjectStore, RequestOptions } from "../storage/object_store.ts";
import { LTX_HEADER_BYTES, LTX_TRAILER_BYTES, parseLtxName } from "./ltx/mod.ts";
import type { ReplicaFile } from "./replica_listing.ts";

export interface LocalPosition {
  /** Newest TXID of the local L0 files; null: there are none. */
  readonly txid: number | null;
  /** Path of the file of each TXID. */
  readonly paths: ReadonlyMap<number, string>;
}

/** `folder` is the database's own below the data folder. */
export async function readLocalPosition(
  folder: string,
  files: LocalFiles = systemFiles,
): Promise<LocalPosition> {
  const level = `${folder}/ltx/0`;
  const paths = new Map<number, string>();
  for (const { name, kind } of await listIfPresent(level, files)) {
    const range = kind === "file" ? parseLtxName(name) : null;
    if (range !== null && range.minTxid === range.maxTxid) paths.set(range.maxTxid, `${level}/${name}`);
  }
  return { txid: paths.size === 0 ? null : Math.max(...paths.keys()), paths };
}

async function listIfPresent(path: string, files: LocalFiles) {
  try {
    return await files.list(path);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}

/**
 * Whether the local file of an L0 object has its content: equal size, header (with the token of its writer) and trailer
 * (with the checksum of all). Null: there is no local file of that TXID.
 */
export async function sameAsLocal(
  local: LocalPosition,
  object: ReplicaFile,
  store: ObjectStore,
  options: RequestOptions & { readonly files?: LocalFiles } = {},
): Promise<boolean | null> {
  const { files = systemFiles, ...request } = options;
  const path = local.paths.get(object.maxTxid);
  if (path === undefined) return null;
  using file = await files.open(path);
  const { sizeBytes } = await file.facts();
  if (sizeBytes !== object.sizeBytes) return false;
  const trailerAt = sizeBytes - LTX_TRAILER_BYTES;
  for (const range of [{ start: 0, end: LTX_HEADER_BYTES }, { start: trailerAt, end: sizeBytes }]) {
    const mine = new Uint8Array(range.end - range.start);
    const count = await file.read(mine, range.start);
    const { body } = await store.get(object.key, { ...request, range });
    if (count !== mine.length || body.some((byte, index) => byte !== mine[index])) return false;
  }
  return true;
}
