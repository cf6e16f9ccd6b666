/**
 * Small local files: configuration, markers, journals. Everything here is asynchronous and durable where it says so.
 * The archiver's hot paths (ns times, raw names, holes) are in libc_files.ts; nothing here may be used for those.
 */

import { osErrorOf } from "./errno.ts";
import { isError, StateManagerError } from "./errors.ts";
import { isMissing, type LocalFiles, systemFiles, type WritableFile } from "./local_files.ts";

const ENOSPC = 28;
const EROFS = 30;
const EDQUOT = 122;

/** Error of a local file operation with the advice that fits its cause; `action` is "write /path". */
export function localFileError(action: string, error: unknown): StateManagerError {
  if (isError(error)) return error;
  const text = error instanceof Error ? error.message : String(error);
  const cause = { cause: error };
  const number = osErrorOf(error);
  if (number === ENOSPC || number === EDQUOT || /ENOSPC|EDQUOT|No space left/.test(text)) {
    return new StateManagerError("disk-full", `${action}: no space left`, {
      hint: "free space on that disk, then try again",
      ...cause,
    });
  }
  if (error instanceof Deno.errors.PermissionDenied || number === EROFS || /EROFS/.test(text)) {
    return new StateManagerError("local-io", `${action}: not permitted`, {
      hint: "give this user the right to do it, or choose another folder",
      ...cause,
    });
  }
  return new StateManagerError("local-io", `${action}: ${text}`, {
    hint: "check that disk (the kernel's log, its mount), then try again",
    ...cause,
  });
}

/** The whole file's bytes, or null when there is none. */
export async function readBytesIfPresent(
  path: string,
  files: LocalFiles = systemFiles,
): Promise<Uint8Array<ArrayBuffer> | null> {
  try {
    using file = await files.open(path);
    let bytes = new Uint8Array((await file.facts()).sizeBytes + 1); // one more: the end is seen by the first read
    let filled = 0;
    for (;;) {
      const count = await file.read(bytes.subarray(filled), filled);
      if (count === null) return bytes.subarray(0, filled);
      filled += count;
      if (filled < bytes.length) continue;
      const longer = new Uint8Array(bytes.length * 2); // it grew, or has no size, as in /proc
      longer.set(bytes);
      bytes = longer;
    }
  } catch (error) {
    if (isMissing(error)) return null;
    throw localFileError(`read ${path}`, error);
  }
}

/** The file's text, or null when there is none. */
export async function readTextIfPresent(
  path: string,
  files: LocalFiles = systemFiles,
): Promise<string | null> {
  const bytes = await readBytesIfPresent(path, files);
  return bytes === null ? null : new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** Makes the names in `path` durable: a rename, link or unlink there survives a power cut afterwards. */
export async function syncFolder(path: string, files: LocalFiles = systemFiles): Promise<void> {
  try {
    await files.syncFolder(path);
  } catch (error) {
    throw localFileError(`sync folder ${path}`, error);
  }
}

/** Folder of an absolute path without a slash at its end. */
export function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/")) || "/";
}

/** Makes `path` and its parents; those that it makes are durable. An existing one keeps its mode. */
export async function ensureFolder(
  path: string,
  mode = 0o755,
  files: LocalFiles = systemFiles,
): Promise<void> {
  try {
    await makeFolders(path.replace(/(?<=.)\/+$/, ""), mode, files);
  } catch (error) {
    throw localFileError(`make folder ${path}`, error);
  }
}

async function makeFolders(path: string, mode: number, files: LocalFiles): Promise<void> {
  try {
    if ((await files.stat(path)).kind === "folder") return;
  } catch (error) {
    if (!isMissing(error)) throw error;
    if (parentOf(path) !== path) await makeFolders(parentOf(path), mode, files);
  }
  try {
    await files.makeFolder(path, mode);
  } catch (error) {
    // Made by somebody else at this moment; anything but a folder stays an error.
    if ((await files.stat(path).catch(() => null))?.kind !== "folder") throw error;
  }
  try {
    await files.syncFolder(parentOf(path));
  } catch (error) {
    if (!(error instanceof Deno.errors.PermissionDenied)) throw error; // may be entered and written, not read
  }
}

let temporaryCount = 0;

/** Writes all of `bytes`; a write may take fewer at a time. */
async function writeAll(file: WritableFile, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
}

/**
 * A new file for a write of ours. Its name is ours alone while we live; what one that was killed left under it (in a
 * container every manager has the same process id) must not fail the next one.
 */
export async function createTemporary(path: string, mode: number, files: LocalFiles): Promise<WritableFile> {
  try {
    return await files.create(path, mode);
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    await files.remove(path);
    return await files.create(path, mode);
  }
}

/**
 * Writes `content` so that a reader, and a crash at any instruction, sees the old file or the new one, never a part:
 * temporary file, fsync, rename, fsync of the folder. If we die before the rename, only a `.tmp` file is left. Pieces are
 * written one after the other.
 */
export async function writeFileAtomically(
  path: string,
  content: string | Uint8Array | readonly Uint8Array[],
  options: { readonly mode?: number; readonly files?: LocalFiles } = {},
): Promise<void> {
  const { mode = 0o600, files = systemFiles } = options;
  const temporary = `${path}.${Deno.pid}.${++temporaryCount}.tmp`;
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  try {
    {
      using file = await createTemporary(temporary, mode, files);
      for (const piece of bytes instanceof Uint8Array ? [bytes] : bytes) await writeAll(file, piece);
      await file.sync();
    }
    await files.changeMode(temporary, mode); // the umask took bits away
    await files.rename(temporary, path);
    await files.syncFolder(parentOf(path));
  } catch (error) {
    await files.remove(temporary).catch(() => {});
    throw localFileError(`write ${path}`, error);
  }
}

/**
 * Writes `content` so that a reader, and a crash of this process at any instruction, sees the old file or the new one.
 * Not durable, and cheap: after a crash of the *machine* the file may be old, empty or gone. One writer at a time.
 */
export async function replaceFileUnsynced(
  path: string,
  content: string,
  files: LocalFiles = systemFiles,
): Promise<void> {
  const temporary = `${path}.tmp`;
  try {
    {
      using file = await createTemporary(temporary, 0o600, files);
      await writeAll(file, new TextEncoder().encode(content));
    }
    await files.rename(temporary, path);
  } catch (error) {
    throw localFileError(`write ${path}`, error);
  }
}

/** Tells this very file from every copy that is mounted beside it; null when there is none or it cannot be told. */
export async function fileIdentity(path: string): Promise<string | null> {
  try {
    const { dev, ino } = await Deno.stat(path);
    return ino === null ? null : `${dev}:${ino}`;
  } catch {
    return null;
  }
}

/** Removes a file or folder with all in it; what is not there is fine. Durable only after `syncFolder`. */
export async function removeIfPresent(path: string, files: LocalFiles = systemFiles): Promise<void> {
  try {
    await files.removeTree(path);
  } catch (error) {
    if (isMissing(error)) return;
    throw localFileError(`remove ${path}`, error);
  }
}

/** Removes what killed processes left of their writes in `folder`, where nobody else writes now. */
export async function sweepTemporaries(folder: string, files: LocalFiles = systemFiles): Promise<void> {
  for (const name of await listFolder(folder, files)) {
    if (/\.\d+\.\d+\.tmp$/.test(name)) await removeIfPresent(`${folder}/${name}`, files);
  }
}

/** Names in a folder, in no order; none when there is no such folder. */
export async function listFolder(path: string, files: LocalFiles = systemFiles): Promise<string[]> {
  try {
    return (await files.list(path)).map((entry) => entry.name);
  } catch (error) {
    if (isMissing(error)) return [];
    throw localFileError(`list ${path}`, error);
  }
}

/** With all that is in it; what is not there is removed already. */
export async function removeTreeIfPresent(path: string, files: LocalFiles = systemFiles): Promise<void> {
  try {
    await files.removeTree(path);
  } catch (error) {
    if (!isMissing(error)) throw localFileError(`remove ${path}`, error);
  }
}

/** `path` without symlinks, as far as it exists: what is missing of it comes as it is. Absolute in, absolute out. */
export async function realPathOf(path: string): Promise<string> {
  try {
    return await Deno.realPath(path);
  } catch (error) {
    if (!isMissing(error)) throw localFileError(`find ${path}`, error);
  }
  const slash = path.lastIndexOf("/");
  if (slash <= 0) return path;
  const parent = await realPathOf(path.slice(0, slash));
  return `${parent === "/" ? "" : parent}/${path.slice(slash + 1)}`;
}
