/** Keeps the configuration that came over the API: atomically, readable by its owner only, the previous one beside it. */

import { isError, StateManagerError } from "../platform/errors.ts";
import {
  ensureFolder,
  listFolder,
  readTextIfPresent,
  removeIfPresent,
  writeFileAtomically,
} from "../platform/files.ts";
import { type LocalFiles, systemFiles } from "../platform/local_files.ts";
import { parseJsonc } from "./jsonc.ts";

/** Previous files that are kept; more would be litter. */
const KEPT_BACKUPS = 10;

function split(path: string): { folder: string; name: string } {
  const slash = path.lastIndexOf("/");
  return { folder: path.slice(0, slash) || "/", name: path.slice(slash + 1) };
}

/** Best effort: a backup too many hurts nobody. */
async function pruneBackups(path: string, files: LocalFiles): Promise<void> {
  const { folder, name } = split(path);
  const names = (await listFolder(folder, files))
    .filter((other) => other.startsWith(`${name}.`) && /^\.\d{8}T\d{9}Z\.bak$/.test(other.slice(name.length)))
    .sort();
  for (const old of names.slice(0, Math.max(0, names.length - KEPT_BACKUPS))) {
    await removeIfPresent(`${folder}/${old}`, files);
  }
}

/**
 * Writes `raw` (in the file's own language, unexpanded) to `path`, mode 0600. If we die before the last rename the
 * previous file is still in force, at worst with a copy of itself beside it.
 * Errors: `config-unwritable`, also when a file stands there that does not parse: somebody's work is never overwritten.
 */
export async function persistConfig(
  path: string,
  raw: unknown,
  wallMs: number,
  files: LocalFiles = systemFiles,
): Promise<void> {
  try {
    await ensureFolder(split(path).folder, 0o700, files);
    const previous = await readTextIfPresent(path, files);
    if (previous !== null) {
      if (parseJsonc(previous, path).problems.length > 0) {
        throw new StateManagerError(
          "config-unwritable",
          `write ${path}: got a file that does not parse there`,
          {
            hint: "correct it or move it away; it is never overwritten",
          },
        );
      }
    }
    await writeBoth(path, previous, `${JSON.stringify(raw, null, 2)}\n`, wallMs, files);
  } catch (error) {
    throw unwritable(error);
  }
}

/** The same with the whole text; `previous` is what stands there. */
export async function writeConfigText(
  path: string,
  previous: string,
  next: string,
  wallMs: number,
  files: LocalFiles = systemFiles,
): Promise<void> {
  try {
    await writeBoth(path, previous, next, wallMs, files);
  } catch (error) {
    throw unwritable(error);
  }
}

async function writeBoth(
  path: string,
  previous: string | null,
  next: string,
  wallMs: number,
  files: LocalFiles,
): Promise<void> {
  if (previous !== null) {
    const stamp = new Date(wallMs).toISOString().replace(/[-:.]/g, "");
    await writeFileAtomically(`${path}.${stamp}.bak`, previous, { mode: 0o600, files });
    await pruneBackups(path, files).catch(() => {});
  }
  await writeFileAtomically(path, next, { mode: 0o600, files });
}

function unwritable(error: unknown): StateManagerError {
  if (isError(error, "config-unwritable", "disk-full")) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new StateManagerError("config-unwritable", `keep the configuration: ${text}`, {
    hint: "make the folder writable for this user, or name another file with --config",
    cause: error,
  });
}
