/** Names of what the manager keeps in its data folder, and the record of how the last run ended. */

import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import {
  ensureFolder,
  readTextIfPresent,
  removeIfPresent,
  sweepTemporaries,
  syncFolder,
  writeFileAtomically,
} from "../platform/files.ts";
import { type FolderLock, lockFolder } from "../platform/folder_lock.ts";
import { type LocalFiles, systemFiles } from "../platform/local_files.ts";

export interface DataDir {
  readonly path: string;
  readonly lineage: string;
  readonly swapJournal: string;
  readonly databaseSwapJournal: string;
  readonly releasedFlag: string;
  readonly yieldedFlag: string;
  readonly leaseMemory: string;
  readonly exitRecord: string;
  readonly lock: string;
  readonly guardLock: string;
  readonly units: string;
  readonly cache: string;
  readonly scratch: string;
  readonly stale: string;
  readonly crashes: string;
  readonly logTimes: string;
  readonly notify: string;
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
    databaseSwapJournal: at("swap-databases.json"),
    releasedFlag: at("released"),
    yieldedFlag: at("yielded"),
    leaseMemory: at("lease-memory.json"),
    exitRecord: at("exit.json"),
    lock: at("manager.lock"),
    guardLock: at("guard.lock"),
    units: at("units.json"),
    cache: at("cache"),
    scratch: at("scratch"),
    stale: at("stale"),
    crashes: at("crashes"),
    logTimes: at("log-times"),
    notify: at("notify"),
    catalog: at("catalog.db"),
    socket: at("control.sock"),
  };
}

/**
 * Makes the data folder and takes its lock, so that two managers never share one.
 * Errors: `data-dir-unwritable` (78; also where its file system gives no locks), `busy` (75) when another manager is alive in it.
 */
export async function openDataDir(
  path: string,
): Promise<{ dir: DataDir; lock: FolderLock }> {
  const dir = dataDirAt(path);
  let lock: FolderLock | null = null;
  const hint = "make it writable for this user, or choose another with --data-dir or STATE_MANAGER_DATA_DIR";
  try {
    await ensureFolder(path, 0o700);
    lock = lockFolder(dir.lock);
    if (lock === null) throw inUse(path); // before anything is removed: it is the other one's
    await sweepTemporaries(path);
    await writeFileAtomically(`${path}/.writable`, "");
    await removeIfPresent(`${path}/.writable`);
    await ensureFolder(dir.cache, 0o700);
  } catch (error) {
    lock?.release();
    if (isError(error, "disk-full", "busy", "data-dir-unwritable")) throw error;
    throw new StateManagerError(
      "data-dir-unwritable",
      `open data folder ${path}: cannot be written`,
      {
        hint,
        cause: error,
      },
    );
  }
  return { dir, lock };
}

function inUse(path: string): StateManagerError {
  return new StateManagerError("busy", `open data folder ${path}: another manager uses it`, {
    hint: "stop the other one, or give each its own --data-dir",
  });
}

/**
 * An empty scratch folder: whatever an earlier run left half done there is garbage by definition. Only once nothing of
 * that run is alive, which might still write there.
 */
export async function clearScratch(dir: DataDir, files: LocalFiles = systemFiles): Promise<void> {
  await removeIfPresent(dir.scratch, files);
  await ensureFolder(dir.scratch, 0o700, files);
}

/** Keeps why the process ended, since exit codes 75 and 78 may be the program's own. Best effort: never throws. */
export async function writeExitRecord(
  path: string,
  code: number,
  reason: unknown,
  wallMs: number,
  files: LocalFiles = systemFiles,
): Promise<void> {
  const error = reason instanceof Error ? asStateManagerError(reason) : null;
  const record = {
    exit_code: code,
    time: new Date(wallMs).toISOString(),
    reason: error?.message ?? (typeof reason === "string" ? reason : null),
    code: error?.code ?? null,
    hint: error?.hint ?? null,
  };
  await writeFileAtomically(path, JSON.stringify(record, null, 1) + "\n", { files }).catch(
    () => {},
  );
}

/** True while `POST /release-lease` is in force, also after a restart of the manager. */
export function isReleased(dir: DataDir, files: LocalFiles = systemFiles): Promise<boolean> {
  return isFlagSet(dir.releasedFlag, files);
}

export function setReleased(dir: DataDir, released: boolean, files: LocalFiles = systemFiles): Promise<void> {
  return setFlag(dir, dir.releasedFlag, released ? "released by request" : null, files);
}

/** True from a hand-over on request until the next term of our own: one that yielded does not ask back. */
export function hasYielded(dir: DataDir, files: LocalFiles = systemFiles): Promise<boolean> {
  return isFlagSet(dir.yieldedFlag, files);
}

export function setYielded(dir: DataDir, yielded: boolean, files: LocalFiles = systemFiles): Promise<void> {
  return setFlag(dir, dir.yieldedFlag, yielded ? "handed over on request" : null, files);
}

async function isFlagSet(path: string, files: LocalFiles): Promise<boolean> {
  return await readTextIfPresent(path, files) !== null;
}

/** Durable in both directions. */
async function setFlag(dir: DataDir, path: string, text: string | null, files: LocalFiles): Promise<void> {
  if (text !== null) return await writeFileAtomically(path, text + "\n", { files });
  await removeIfPresent(path, files);
  await syncFolder(dir.path, files);
}
