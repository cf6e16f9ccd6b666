/**
 * File operations of the folder store: everything durable, nothing overwritten, errors told apart by what a store
 * must answer. Names are checked by the caller; nothing here follows a plan of its own.
 */

import { syncFolder } from "./files.ts";

export interface StoreFileInfo {
  readonly sizeBytes: number;
  /** Whole milliseconds. */
  readonly modifiedMs: number;
  /** Number of the file in its file system; 0 where it has none. */
  readonly inode: number;
}

export interface FolderEntry {
  readonly name: string;
  readonly kind: "file" | "folder";
}

/** What a failed file operation means to a store. */
export type FileFault = "full" | "denied" | "no-hard-links" | "not-a-folder" | "other";

/** Bytes per read and write call: few calls, and a cancelled one does not hold much. */
const PIECE_BYTES = 4 * 1024 * 1024;

export function fileFault(error: unknown): FileFault {
  const text = error instanceof Error ? error.message : String(error);
  const number = Number(/os error (\d+)/.exec(text)?.[1] ?? 0);
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

function isMissing(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
}

function infoOf(info: Deno.FileInfo): StoreFileInfo {
  return { sizeBytes: info.size, modifiedMs: info.mtime?.getTime() ?? 0, inode: info.ino ?? 0 };
}

/** Entries of a folder, unordered, links and devices left out; null when there is no such folder. */
export async function readStoreFolder(path: string): Promise<FolderEntry[] | null> {
  const entries: FolderEntry[] = [];
  try {
    for await (const entry of Deno.readDir(path)) {
      if (entry.isFile) entries.push({ name: entry.name, kind: "file" });
      else if (entry.isDirectory) entries.push({ name: entry.name, kind: "folder" });
    }
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
  return entries;
}

/** Facts of a plain file; null when there is none of that name. */
export async function statStoreFile(path: string): Promise<StoreFileInfo | null> {
  try {
    const info = await Deno.stat(path);
    return info.isFile ? infoOf(info) : null;
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

/** True when there is a folder of that name. */
export async function isStoreFolder(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isDirectory;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

/**
 * The bytes [start, end) of a file, cut at its end, and its facts at the moment of opening; null when there is none.
 * Facts and bytes belong together: files of a store never change once they have their name.
 */
export async function readStoreFile(
  path: string,
  range: (info: StoreFileInfo) => { readonly start: number; readonly end: number },
  signal?: AbortSignal,
): Promise<{ readonly info: StoreFileInfo; readonly bytes: Uint8Array<ArrayBuffer> } | null> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path, { read: true });
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
  using _closed = file;
  const stat = await file.stat();
  if (!stat.isFile) return null;
  const info = infoOf(stat);
  const { start, end } = range(info);
  const bytes = new Uint8Array(Math.max(0, Math.min(end, info.sizeBytes) - start));
  if (start > 0) await file.seek(start, Deno.SeekMode.Start);
  for (let filled = 0; filled < bytes.length;) {
    signal?.throwIfAborted();
    const count = await file.read(bytes.subarray(filled, filled + PIECE_BYTES));
    if (count === null) throw new Error(`file ${path} ended after ${start + filled} bytes`);
    filled += count;
  }
  return { info, bytes };
}

/** Writes a new file, never an existing one, and makes its content (not yet its name) durable. */
export async function writeStoreFile(
  path: string,
  parts: readonly Uint8Array[],
  signal?: AbortSignal,
): Promise<StoreFileInfo> {
  using file = await Deno.open(path, { write: true, createNew: true, mode: 0o600 });
  for (const part of parts) {
    for (let written = 0; written < part.length;) {
      signal?.throwIfAborted();
      written += await file.write(part.subarray(written, written + PIECE_BYTES));
    }
  }
  await file.sync();
  return infoOf(await file.stat());
}

/** Gives `from` the second name `to`, atomically and never over an existing one (link(2)). */
export async function linkStoreFile(from: string, to: string): Promise<"linked" | "exists" | "missing"> {
  try {
    await Deno.link(from, to);
    return "linked";
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return "exists";
    if (error instanceof Deno.errors.NotFound) return "missing";
    throw error;
  }
}

/** Moves `from` over `to`, atomically. */
export async function renameStoreFile(from: string, to: string): Promise<void> {
  await Deno.rename(from, to);
}

/** Removes a file or an empty folder; false when it was not there or the folder is not empty. */
export async function removeStoreEntry(path: string): Promise<boolean> {
  try {
    await Deno.remove(path);
    return true;
  } catch (error) {
    if (isMissing(error) || fileFault(error) === "not-a-folder") return false;
    throw error;
  }
}

/** Makes one folder, for this user alone (it holds what databases hold); false when it was there already. */
export async function makeStoreFolder(path: string): Promise<boolean> {
  try {
    await Deno.mkdir(path, { mode: 0o700 });
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return false;
    throw error;
  }
}

/** Makes the names in a folder durable. */
export async function syncStoreFolder(path: string): Promise<void> {
  await syncFolder(path);
}
