/**
 * File operations of the folder store: everything durable, nothing overwritten, errors told apart by what a store
 * must answer. Names are checked by the caller; nothing here follows a plan of its own.
 */

import { osErrorOf } from "./errno.ts";
import {
  type CreateOptions,
  type FileFacts,
  isMissing,
  type LocalFiles,
  type OpenOptions,
} from "./local_files.ts";
import { behindBorder, UNCACHED_BLOCK_BYTES } from "./uncached_files.ts";

export type StoreFileInfo = Pick<FileFacts, "sizeBytes" | "modifiedMs" | "inode">;

export interface FolderEntry {
  readonly name: string;
  readonly kind: "file" | "folder";
}

/** What a failed file operation means to a store. */
export type FileFault = "full" | "denied" | "no-hard-links" | "not-a-folder" | "other";

/** Bytes per read and write call: few calls, and a cancelled one does not hold much. */
const PIECE_BYTES = 4 * 1024 * 1024;
/** Beyond one ordinary object and its header: only large ones are synced on the way. */
const SYNC_BYTES = 80 * 1024 * 1024;

/** What a read past the page cache takes beside its bytes: the rest of their first and last block, and their place in memory. */
export const UNCACHED_SLACK_BYTES = 3 * UNCACHED_BLOCK_BYTES;

export function fileFault(error: unknown): FileFault {
  const number = osErrorOf(error);
  // ENOSPC, EDQUOT, EFBIG
  if (number === 28 || number === 122 || number === 27) return "full";
  // ENOTSUP, EMLINK, ENOSYS, EXDEV: of a link within one folder tree
  if (number === 95 || number === 31 || number === 38 || number === 18) return "no-hard-links";
  // ENOTDIR, EISDIR, ENOTEMPTY
  if (number === 20 || number === 21 || number === 39) return "not-a-folder";
  // EPERM, EACCES, EROFS
  if (number === 1 || number === 13 || number === 30) return "denied";
  if (error instanceof Deno.errors.PermissionDenied) return "denied";
  return "other";
}

function infoOf({ sizeBytes, modifiedMs, inode }: FileFacts): StoreFileInfo {
  return { sizeBytes, modifiedMs, inode };
}

export interface ReadStoreFileOptions extends OpenOptions {
  readonly signal?: AbortSignal;
  /** At least so many bytes. */
  readonly memory?: (sizeBytes: number) => Uint8Array<ArrayBuffer>;
}

/** Entries of a folder, unordered, links and devices left out; null when there is no such folder. */
export async function readStoreFolder(files: LocalFiles, path: string): Promise<FolderEntry[] | null> {
  try {
    const entries = await files.list(path);
    return entries.flatMap(({ name, kind }) => kind === "other" ? [] : [{ name, kind }]);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

async function factsIfPresent(files: LocalFiles, path: string): Promise<FileFacts | null> {
  try {
    return await files.stat(path);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

/** Facts of a plain file; null when there is none of that name. */
export async function statStoreFile(files: LocalFiles, path: string): Promise<StoreFileInfo | null> {
  const facts = await factsIfPresent(files, path);
  return facts?.kind === "file" ? infoOf(facts) : null;
}

/** True when there is a folder of that name. */
export async function isStoreFolder(files: LocalFiles, path: string): Promise<boolean> {
  return (await factsIfPresent(files, path))?.kind === "folder";
}

interface Range {
  readonly start: number;
  readonly end: number;
}

/**
 * The bytes [start, end) of a file, cut at its end, and its facts at the moment of opening; null when there is none.
 * Facts and bytes belong together: files of a store never change once they have their name. The bytes are somewhere in
 * what `memory` gives for them.
 */
export async function readStoreFile(
  files: LocalFiles,
  path: string,
  range: Range | ((sizeBytes: number) => Range),
  { signal, memory = (sizeBytes) => new Uint8Array(sizeBytes), ...how }: ReadStoreFileOptions = {},
): Promise<{ readonly info: StoreFileInfo; readonly bytes: Uint8Array<ArrayBuffer> } | null> {
  let opened;
  try {
    opened = await files.open(path, how);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
  using file = opened;
  const facts = await file.facts();
  if (facts.kind !== "file") return null;
  const { start, end } = typeof range === "function" ? range(facts.sizeBytes) : range;
  const sizeBytes = Math.max(0, Math.min(end, facts.sizeBytes) - start);
  const { bytes, lead } = how.uncached === true ? inBlocks(memory, start, sizeBytes) : {
    bytes: memory(sizeBytes).subarray(0, sizeBytes),
    lead: 0,
  };
  for (let filled = 0; filled < lead + sizeBytes;) {
    signal?.throwIfAborted();
    const position = start - lead + filled;
    const count = await file.read(bytes.subarray(filled, filled + PIECE_BYTES), position);
    if (count === null) throw new Error(`file ${path} ended after ${position} bytes`);
    filled += count;
  }
  return { info: infoOf(facts), bytes: bytes.subarray(lead, lead + sizeBytes) };
}

/** Room for whole blocks around [start, start + sizeBytes) of a file, at a border of blocks; `lead` of them come before. */
function inBlocks(
  memory: (sizeBytes: number) => Uint8Array<ArrayBuffer>,
  start: number,
  sizeBytes: number,
): { readonly bytes: Uint8Array<ArrayBuffer>; readonly lead: number } {
  const lead = start % UNCACHED_BLOCK_BYTES;
  const length = Math.ceil((lead + sizeBytes) / UNCACHED_BLOCK_BYTES) * UNCACHED_BLOCK_BYTES;
  const whole = memory(sizeBytes + UNCACHED_SLACK_BYTES);
  const first = (UNCACHED_BLOCK_BYTES - behindBorder(whole)) % UNCACHED_BLOCK_BYTES;
  return { bytes: whole.subarray(first, first + length), lead };
}

/** All bytes of a file, piece by piece; each is done with before the next one is read, in the same memory. */
export async function* readStorePieces(
  files: LocalFiles,
  path: string,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
  using file = await files.open(path);
  const piece = new Uint8Array(PIECE_BYTES);
  for (let position = 0;;) {
    const count = await file.read(piece, position);
    if (count === null) return;
    position += count;
    yield piece.subarray(0, count);
  }
}

/**
 * Writes a new file, never an existing one, and makes its content (not yet its name) durable. Long ones in steps, so
 * that neither the kernel's memory nor the last sync grows with them.
 */
export async function writeStoreFile(
  files: LocalFiles,
  path: string,
  parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  { signal, ...how }: CreateOptions & { readonly signal?: AbortSignal } = {},
): Promise<StoreFileInfo> {
  using file = await files.create(path, 0o600, how);
  let unsynced = 0;
  for await (const part of parts) {
    for (let written = 0; written < part.length;) {
      signal?.throwIfAborted();
      const count = await file.write(part.subarray(written, written + PIECE_BYTES));
      written += count;
      unsynced += count;
    }
    if (unsynced < SYNC_BYTES) continue;
    await file.sync();
    unsynced = 0;
  }
  await file.sync();
  return infoOf(await file.facts());
}

/** Gives `from` the second name `to`, atomically and never over an existing one (link(2)). */
export async function linkStoreFile(
  files: LocalFiles,
  from: string,
  to: string,
): Promise<"linked" | "exists" | "missing"> {
  try {
    await files.link(from, to);
    return "linked";
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return "exists";
    if (error instanceof Deno.errors.NotFound) return "missing";
    throw error;
  }
}

/** Removes a file or an empty folder; false when it was not there or the folder is not empty. */
export async function removeStoreEntry(files: LocalFiles, path: string): Promise<boolean> {
  try {
    await files.remove(path);
    return true;
  } catch (error) {
    if (isMissing(error) || fileFault(error) === "not-a-folder") return false;
    throw error;
  }
}

/** Makes one folder, for this user alone (it holds what databases hold); false when it was there already. */
export async function makeStoreFolder(files: LocalFiles, path: string): Promise<boolean> {
  try {
    await files.makeFolder(path, 0o700);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return false;
    throw error;
  }
}
