/**
 * What a start must know of a database's replica and of the commits on this disk before it decides which of them wins:
 * facts for the manager's lineage rules, gathered without opening the database and without changing anything.
 */

import { equalBytes } from "../platform/equal_bytes.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { listFolder, localFileError } from "../platform/files.ts";
import { isMissing, type LocalFiles, readRange, systemFiles } from "../platform/local_files.ts";
import { LTX_HEADER_BYTES, LTX_TRAILER_BYTES, ltxName, parseLtxName } from "./ltx/mod.ts";
import { COMMIT_LEVEL, type ReplicaPlace } from "./replica_layout.ts";
import { listReplica, type ReplicaFile } from "./replica_listing.ts";
import type { FetchEnvironment } from "./restore_fetch.ts";
import { newestTxid } from "./restore_plan.ts";

export interface ReplicaFacts {
  /** Newest TXID in the store, of any level; null: it has no file of this database. */
  readonly bucketTxid: number | null;
  /** Newest commit file on this disk; null: none. */
  readonly localTxid: number | null;
  /** Whether the commit files of the store's newest TXID, there and here, are the same; null: not both are there. */
  readonly sameContent: boolean | null;
}

/** `localFolder`: where the follower keeps its commit files. It need not exist. */
export async function readReplicaFacts(
  place: ReplicaPlace,
  localFolder: string,
  environment: FetchEnvironment,
  files: LocalFiles = systemFiles,
): Promise<ReplicaFacts> {
  const listing = await listReplica(environment.store, place, { signal: environment.signal });
  const bucketTxid = newestTxid(listing.files);
  let localTxid = 0;
  for (const name of await listFolder(localFolder, files)) localTxid = Math.max(localTxid, localTxidOf(name));
  const newest = listing.files.find((file) => file.level === COMMIT_LEVEL && file.maxTxid === bucketTxid);
  return {
    bucketTxid: bucketTxid === 0 ? null : bucketTxid,
    localTxid: localTxid === 0 ? null : localTxid,
    sameContent: newest === undefined ? null : await isSame(newest, localFolder, environment, files),
  };
}

/** 0 for what is no commit file: temporary and damaged ones have other names. */
function localTxidOf(name: string): number {
  try {
    const range = parseLtxName(name);
    return range !== null && range.minTxid === range.maxTxid ? range.maxTxid : 0;
  } catch {
    return 0;
  }
}

/** A commit file is sent byte for byte; header and trailer, with its checksum, tell one from every other. */
async function isSame(
  file: ReplicaFile,
  localFolder: string,
  environment: FetchEnvironment,
  files: LocalFiles,
): Promise<boolean | null> {
  const local = await readEnds(`${localFolder}/${ltxName(file.minTxid, file.maxTxid)}`, files);
  if (local === null) return null;
  if (local.sizeBytes !== file.sizeBytes) return false;
  const header = await getRange(file, 0, LTX_HEADER_BYTES, environment);
  const trailer = await getRange(file, file.sizeBytes - LTX_TRAILER_BYTES, file.sizeBytes, environment);
  if (header === null || trailer === null) return null;
  return equalBytes(header, local.header) &&
    equalBytes(trailer, local.trailer);
}

/** Header and trailer of a local file, which may be a snapshot of any size; null: there is none. */
async function readEnds(
  path: string,
  files: LocalFiles,
): Promise<{ readonly sizeBytes: number; readonly header: Uint8Array; readonly trailer: Uint8Array } | null> {
  try {
    using file = await files.open(path);
    const { sizeBytes } = await file.facts();
    const header = await readRange(file, 0, LTX_HEADER_BYTES);
    const trailer = await readRange(file, Math.max(0, sizeBytes - LTX_TRAILER_BYTES), LTX_TRAILER_BYTES);
    return { sizeBytes, header, trailer };
  } catch (error) {
    if (isMissing(error)) return null;
    throw localFileError(`read ${path}`, error);
  }
}

async function getRange(
  file: ReplicaFile,
  start: number,
  end: number,
  { store, signal }: FetchEnvironment,
): Promise<Uint8Array | null> {
  try {
    const { body } = await store.get(file.key, { range: { start, end }, signal });
    return body;
  } catch (error) {
    if (isError(error, "object-not-found")) return null; // expired meanwhile: it can't be told
    if (!isError(error, "invalid-request")) throw error;
    throw new StateManagerError("data-damaged", `read ${file.key}: shorter than its listing says`, {
      hint: "somebody else changes the objects of this repository: stop that",
    });
  }
}
