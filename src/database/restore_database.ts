/**
 * Restores a database into a new file, straight from the store: it takes no lease and changes nothing there. Files of
 * the plan are applied one after the other, the newest page wins, everything is verified, and the result is checked by
 * SQLite before it is anybody's. If we die, an unfinished file is left under the stage's name, which the next restore
 * to the same place removes; any error removes it at once.
 */

import { isError, StateManagerError } from "../platform/errors.ts";
import { ensureFolder, parentOf, removeIfPresent, syncFolder } from "../platform/files.ts";
import { AT_CWD, isErrno, pathBytes, renameAt, statIfPresent } from "../platform/libc_files.ts";
import { stagePathOf } from "./database_swap.ts";
import { KeptPieces } from "./kept_pieces.ts";
import { checkDatabase } from "./restore_check.ts";
import { PlanOutdated } from "./restore_fetch.ts";
import { incomplete, RestoredFile } from "./restore_file.ts";
import { PLAN_TRIES, planFiles, RestoreRun, sizesOf } from "./restore_run.ts";
import type {
  RestoreEnvironment,
  RestorePlan,
  RestoreRequest,
  RestoreResult,
  RestoreSource,
} from "./restore_types.ts";

/** The plan, with what its objects say of the sizes. */
export async function planDatabaseRestore(
  source: RestoreSource,
  environment: RestoreEnvironment,
): Promise<RestorePlan> {
  for (let tries = 1;; tries++) {
    try {
      const { plan: files } = await planFiles(source, environment);
      const { last, databaseBytes } = await sizesOf(files, environment);
      const fetchBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
      const { maxTxid: txid, timestampMs } = last;
      return { txid, timestampMs, databaseBytes, fetchBytes, files };
    } catch (error) {
      if (!(error instanceof PlanOutdated)) throw error;
      if (tries === PLAN_TRIES) throw error.cause;
    }
  }
}

/**
 * Builds the file of the request: complete, checked and durable, its name included, when this resolves, gone when it
 * rejects. Errors: `not-found`, `data-damaged`, `object-not-found`, `disk-full`, those of the store, LibcError.
 */
export async function restoreDatabase(
  request: RestoreRequest,
  environment: RestoreEnvironment,
): Promise<RestoreResult> {
  await ensureFolder(parentOf(request.file));
  await removeDatabaseFiles(request.file); // what a crash left
  const pieces = new KeptPieces(piecesOf(request.file));
  if (!request.resumable) await pieces.end();
  try {
    const result = await build(request, environment, pieces);
    await pieces.end();
    await syncFolder(parentOf(request.file));
    return result;
  } catch (error) {
    // The first error is the one that tells.
    await removeDatabaseFiles(request.file).catch(() => {});
    const goesOn = isError(error) && (error.retryable || error.code === "cancelled");
    if (!goesOn) await pieces.end().catch(() => {});
    throw error instanceof PlanOutdated ? error.cause : error;
  }
}

/** The same for a file that must not exist: it gets its name, durably, when all is well. */
export async function restoreDatabaseTo(
  request: RestoreRequest,
  environment: RestoreEnvironment,
): Promise<RestoreResult> {
  const { file } = request;
  checkFree(file);
  const stage = stagePathOf(file);
  const result = await restoreDatabase({ ...request, file: stage }, environment);
  try {
    checkFree(file); // a `-wal` that came meanwhile would be taken for the new database's own
    renameToFree(stage, file);
  } catch (error) {
    await removeDatabaseFiles(stage).catch(() => {});
    throw error;
  }
  await syncFolder(parentOf(file));
  return result;
}

/** Throws unless nothing has the name of the database or of one of its companions. */
export function checkFree(file: string): void {
  const taken = ["", "-wal", "-shm", "-journal"].map((suffix) => file + suffix)
    .find((path) => statIfPresent(AT_CWD, pathBytes(path)) !== null);
  if (taken === undefined) return;
  throw new StateManagerError(
    "usage",
    `restore database: ${taken} is there already, nothing is overwritten`,
    {
      hint: "name a new file, or move the old database with its -wal, -shm and -journal away first",
    },
  );
}

function renameToFree(from: string, to: string): void {
  const [source, target] = [pathBytes(from), pathBytes(to)];
  try {
    renameAt(AT_CWD, source, AT_CWD, target, "no-replace");
  } catch (error) {
    // A file system that cannot promise it: nothing was there a moment ago.
    if (!isErrno(error, "EINVAL", "ENOSYS", "EOPNOTSUPP")) throw error;
    renameAt(AT_CWD, source, AT_CWD, target, "replace");
  }
}

async function removeDatabaseFiles(file: string): Promise<void> {
  for (const suffix of ["", "-wal", "-shm", "-journal"]) await removeIfPresent(file + suffix);
}

/** What interrupted restores left beside a database that needs none now. */
export async function removeInterrupted(live: string): Promise<void> {
  const stage = stagePathOf(live);
  await removeDatabaseFiles(stage);
  await removeIfPresent(piecesOf(stage));
}

function piecesOf(file: string): string {
  return `${file}.pieces`;
}

async function build(
  request: RestoreRequest,
  environment: RestoreEnvironment,
  pieces: KeptPieces,
): Promise<RestoreResult> {
  const { file, owner, mode } = request;
  using target = new RestoredFile(file);
  const run = new RestoreRun(request, environment, { target, pieces });
  await run.applyAll();
  const missing = target.missingPage();
  if (missing !== null) throw incomplete(missing, target.commit);
  const warnings = target.finish(owner, mode);
  run.tellProgress("check");
  const checked = checkDatabase(file, request.check);
  environment.signal.throwIfAborted();
  const notRun = checked.outcome === "not-run" ? [`not checked by SQLite: ${checked.reason}`] : [];
  return run.result(checked.outcome, [...warnings, ...notRun]);
}
