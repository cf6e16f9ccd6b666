/** Names of what the manager keeps in its data folder, and the record of how the last run ended. */

import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import { ensureFolder, readTextIfPresent, removeIfPresent, writeFileAtomically } from "../platform/files.ts";
import { type FolderLock, lockFolder } from "../platform/folder_lock.ts";

export interface DataDir {
  readonly path: string;
  readonly lineage: string;
  readonly swapJournal: string;
  readonly releasedFlag: string;
  readonly exitRecord: string;
  readonly lock: string;
  readonly guardLock: string;
  readonly units: string;
  readonly cache: string;
  readonly scratch: string;
  readonly stale: string;
  readonly catalog: string;
  readonly socket: string;
}

/** The names below one data folder; nothing is made yet. */
export function dataDirAt(path: string): DataDir {
  const at = (name: string) => `${path}/${name}`;
  return {
    path,
    lineage: at("lineage.json"),
    swapJournal: at("swap.json"),
    releasedFlag: at("released"),
    exitRecord: at("exit.json"),
    lock: at("manager.lock"),
    guardLock: at("guard.lock"),
    units: at("units.json"),
    cache: at("cache"),
    scratch: at("scratch"),
    stale: at("stale"),
    catalog: at("catalog.db"),
    socket: at("control.sock"),
  };
}

/**
 * Makes the data folder and takes its lock, so that two managers never share one.
 * Errors: `data-dir-unwritable` (78), `busy` (75) when another manager is alive in it.
 */
export async function openDataDir(
  path: string,
): Promise<{ dir: DataDir; lock: FolderLock }> {
  const dir = dataDirAt(path);
  const hint = "make it writable for this user, or choose another with --data-dir or STATE_MANAGER_DATA_DIR";
  let lock: FolderLock | null;
  try {
    await ensureFolder(path, 0o700);
    lock = lockFolder(dir.lock);
    await writeFileAtomically(`${path}/.writable`, "");
    await removeIfPresent(`${path}/.writable`);
    await ensureFolder(dir.cache, 0o700);
    await removeIfPresent(dir.scratch); // whatever an earlier run left half done there is garbage by definition
    await ensureFolder(dir.scratch, 0o700);
  } catch (error) {
    if (isError(error, "disk-full")) throw error;
    throw new StateManagerError(
      "data-dir-unwritable",
      `open data folder ${path}: cannot be written`,
      {
        hint,
        cause: error,
      },
    );
  }
  if (lock === null) {
    throw new StateManagerError(
      "busy",
      `open data folder ${path}: another manager uses it`,
      {
        hint: "stop the other one, or give each its own --data-dir",
      },
    );
  }
  return { dir, lock };
}

/** Keeps why the process ended, since exit codes 75 and 78 may be the program's own. Best effort: never throws. */
export async function writeExitRecord(
  path: string,
  code: number,
  reason: unknown,
  wallMs: number,
): Promise<void> {
  const error = reason instanceof Error ? asStateManagerError(reason) : null;
  const record = {
    exit_code: code,
    time: new Date(wallMs).toISOString(),
    reason: error?.message ?? (typeof reason === "string" ? reason : null),
    code: error?.code ?? null,
    hint: error?.hint ?? null,
  };
  await writeFileAtomically(path, JSON.stringify(record, null, 1) + "\n").catch(
    () => {},
  );
}

/** True while `POST /release-lease` is in force, also after a restart of the manager. */
export async function isReleased(dir: DataDir): Promise<boolean> {
  return await readTextIfPresent(dir.releasedFlag) !== null;
}

export async function setReleased(
  dir: DataDir,
  released: boolean,
): Promise<void> {
  if (released) {
    await writeFileAtomically(dir.releasedFlag, "released by request\n");
  } else await removeIfPresent(dir.releasedFlag);
}
