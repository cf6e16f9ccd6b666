/**
 * Small local files: configuration, markers, journals. Everything here is asynchronous and durable where it says so.
 * The archiver's hot paths (ns times, raw names, holes) are in libc_files.ts; nothing here may be used for those.
 */

import { isError, StateManagerError } from "./errors.ts";

/** Error of a local file operation with the advice that fits its cause; `action` is "write /path". */
export function localFileError(action: string, error: unknown): StateManagerError {
  if (isError(error)) return error;
  const text = error instanceof Error ? error.message : String(error);
  const cause = { cause: error };
  if (/os error 28|os error 122|ENOSPC|EDQUOT|No space left/.test(text)) {
    return new StateManagerError("disk-full", `${action}: no space left`, {
      hint: "free space on that disk, then try again",
      ...cause,
    });
  }
  if (error instanceof Deno.errors.PermissionDenied || /os error 30|EROFS/.test(text)) {
    return new StateManagerError("local-io", `${action}: not permitted`, {
      hint: "give this user the right to do it, or choose another folder",
      ...cause,
    });
  }
  return new StateManagerError("local-io", `${action}: ${text}`, cause);
}

/** The file's text, or null when there is none. */
export async function readTextIfPresent(path: string): Promise<string | null> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return null;
    throw localFileError(`read ${path}`, error);
  }
}

/** Makes the names in `path` durable: a rename, link or unlink there survives a power cut afterwards. */
export async function syncFolder(path: string): Promise<void> {
  using folder = await Deno.open(path, { read: true });
  await folder.sync();
}

/** Makes `path` and its parents; durable only after `syncFolder` of the parent. An existing one keeps its mode. */
export async function ensureFolder(path: string, mode = 0o755): Promise<void> {
  try {
    await Deno.mkdir(path, { recursive: true, mode });
  } catch (error) {
    throw localFileError(`make folder ${path}`, error);
  }
}

let temporaryCount = 0;

/**
 * Writes `content` so that a reader, and a crash at any instruction, sees the old file or the new one, never a part:
 * temporary file, fsync, rename, fsync of the folder. If we die before the rename, only a `.tmp` file is left.
 */
export async function writeFileAtomically(
  path: string,
  content: string | Uint8Array,
  options: { readonly mode?: number } = {},
): Promise<void> {
  const mode = options.mode ?? 0o600;
  const temporary = `${path}.${Deno.pid}.${++temporaryCount}.tmp`;
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  try {
    {
      using file = await Deno.open(temporary, { write: true, createNew: true, mode });
      let written = 0;
      while (written < bytes.length) written += await file.write(bytes.subarray(written));
      await file.sync();
    }
    await Deno.chmod(temporary, mode); // the umask took bits away
    await Deno.rename(temporary, path);
    await syncFolder(path.slice(0, path.lastIndexOf("/")) || "/");
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    throw localFileError(`write ${path}`, error);
  }
}

/**
 * Writes `content` so that a reader, and a crash of this process at any instruction, sees the old file or the new one.
 * Not durable, and cheap: after a crash of the *machine* the file may be old, empty or gone. One writer at a time.
 */
export async function replaceFileUnsynced(path: string, content: string): Promise<void> {
  const temporary = `${path}.tmp`;
  try {
    await Deno.writeTextFile(temporary, content, { mode: 0o600 });
    await Deno.rename(temporary, path);
  } catch (error) {
    throw localFileError(`write ${path}`, error);
  }
}

/** Removes a file or folder with all in it; what is not there is fine. */
export async function removeIfPresent(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw localFileError(`remove ${path}`, error);
  }
}

/** The file's bytes, or null when there is none. */
export async function readBytesIfPresent(path: string): Promise<Uint8Array<ArrayBuffer> | null> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return null;
    throw localFileError(`read ${path}`, error);
  }
}

/** Names in a folder, in no order; none when there is no such folder. */
export async function listFolder(path: string): Promise<string[]> {
  try {
    return await Array.fromAsync(Deno.readDir(path), (entry) => entry.name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw localFileError(`list ${path}`, error);
  }
}
