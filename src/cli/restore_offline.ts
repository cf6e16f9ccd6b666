/**
 * `state-manager restore --to DIR`: disaster recovery on a fresh machine. It takes no lease and changes nothing in the
 * store; if it is interrupted, an unfinished folder is left and nothing else.
 */

import { findCheckpoint, planRestore, restoreTo } from "../checkpoint/mod.ts";
import type { ArchiveProgress } from "../checkpoint/types.ts";
import { StateManagerError } from "../platform/errors.ts";
import { isEmptyFolder } from "../platform/folder.ts";
import { checkpointView, totalsView } from "../server/mod.ts";
import { tellFileWarnings } from "./checkpoint_create.ts";
import type { JsonObject } from "./client.ts";
import { type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { openRepositoryOffline } from "./offline.ts";
import { progressEvent, showProgress } from "./progress.ts";
import type { Target } from "./restore.ts";
import { size } from "./text.ts";

export async function restoreOffline(
  context: Context,
  options: Options,
  target: Target,
  to: string,
): Promise<ExitCode> {
  const folder = to.startsWith("/") ? to : `${context.folder}/${to}`;
  // Nothing is ever overwritten here, so there is nothing to ask about.
  if (!await isEmptyFolder(folder)) {
    throw usageError("restore --to: the folder is not empty", "name a new or an empty folder");
  }
  await using repository = await openRepositoryOffline(context, options);
  const { head, store, cipher } = repository;
  const record = findCheckpoint(head, target);
  const names = namesOf(options, Object.keys(record.files));
  const progress = showProgress(context, options);
  const environment = {
    store,
    cipher,
    clock: context.clock,
    cacheFolder: null,
    signal: new AbortController().signal, // an interrupt ends the process; what was written is an unfinished new folder
    onProgress: (value: ArchiveProgress) => progress.onEvent(progressEvent(value)),
  };
  const request = { record, indexes: head.indexes, names, folder };
  const dryRun = options.flag("dryRun");
  let result: JsonObject;
  try {
    const { totals, warnings } = dryRun
      ? { totals: await planRestore(request, environment), warnings: [] }
      : await restoreTo(request, environment);
    result = {
      source: checkpointView(record),
      files: names,
      folder,
      dry_run: dryRun,
      totals: totalsView(totals),
      file_warnings: warnings,
      file_warnings_total: warnings.length,
    };
  } finally {
    progress.done();
  }
  if (options.flag("json")) context.terminal.out(JSON.stringify({ type: "complete", ...result }) + "\n");
  else {
    const verb = dryRun ? "would restore" : "restored";
    const bytes = size(Number((result["totals"] as JsonObject)["bytes"]));
    context.terminal.out(`${verb} v${record.n} ${record.id}, ${bytes}, into ${folder}\n`);
    for (const name of names) say(context, options, `  ${folder}/${name}`);
  }
  return tellFileWarnings(context, options, result);
}

/** Of the files roots that the checkpoint holds, those that are wanted. */
export function namesOf(options: Options, known: readonly string[]): readonly string[] {
  const wanted = options.list("files");
  const unknown = wanted.find((name) => !known.includes(name));
  if (unknown === undefined) return wanted.length === 0 ? known : wanted;
  throw new StateManagerError("invalid-request", `restore: the checkpoint holds no files named ${unknown}`, {
    hint: `it holds ${known.join(", ")}`,
  });
}
