/**
 * `state-manager restore --to DIR`: disaster recovery on a fresh machine. It takes no lease and changes nothing in the
 * store; if it is interrupted, an unfinished folder is left and nothing else.
 */

import type { CheckpointRecord } from "../checkpoint/types.ts";
import { findCheckpoint, openCipher, parseInnerPath, planRestore, restoreTo } from "../checkpoint/mod.ts";
import type { ReadEnvironment, RestoreToRequest } from "../checkpoint/mod.ts";
import { StateManagerError } from "../platform/errors.ts";
import { isEmptyFolder } from "../platform/folder.ts";
import { checkpointView, plannedRootView, totalsView } from "../server/views.ts";
import { tellFileWarnings } from "./checkpoint_create.ts";
import type { JsonObject } from "./client.ts";
import { type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { openRepositoryOffline } from "./offline.ts";
import { progressEvent, showProgress } from "./progress.ts";
import { type Target, tellIfToCome } from "./restore_target.ts";
import { fetchText, planText } from "./restore_plan.ts";
import { printable, size } from "./text.ts";

/** Differences in the JSON of a dry run. */
const PLANNED_PATHS = 1_000_000;

export async function restoreOffline(
  context: Context,
  options: Options,
  target: Target,
  to: string,
): Promise<ExitCode> {
  await using source = await openSource(context, options, target, to);
  const { record, head, names, folder } = source;
  const paths = pathsOf(options, names);
  const { progress, environment } = source.begin();
  const dryRun = options.flag("dryRun");
  const request = { record, indexes: head.indexes, names, folder, ...(paths === null ? {} : { paths }) };
  let result: JsonObject;
  try {
    result = {
      source: checkpointView(record),
      files: names,
      folder,
      dry_run: dryRun,
      ...await (dryRun ? planned(request, environment) : restored(request, environment)),
    };
  } finally {
    progress.done();
  }
  if (options.flag("json")) context.terminal.out(JSON.stringify({ type: "complete", ...result }) + "\n");
  else {
    const verb = dryRun ? "would restore" : "restored";
    const totals = result["totals"] as JsonObject;
    const bytes = size(Number(totals["bytes"])) + (dryRun ? fetchText(totals) : "");
    context.terminal.out(
      `${verb} v${record.n} ${record.id}, ${bytes}, into ${folder}\n${planText(result["plan"])}`,
    );
    for (const name of names) say(context, options, `  ${folder}/${name}`);
    if (options.list("files").length === 0 && paths === null) tellDatabases(context, options, record);
  }
  return tellFileWarnings(context, options, result);
}

/** One who rescues a machine must not take the files for all that there is. */
function tellDatabases(context: Context, options: Options, { n, databases }: CheckpointRecord): void {
  for (const [name, { txid }] of Object.entries(databases ?? {})) {
    const command = `state-manager db restore ${printable(name)} --checkpoint v${n} --to FILE`;
    say(
      context,
      options,
      `  not in it: the replicated database ${printable(name)}, at TXID ${txid}: ${command}`,
    );
  }
}

async function restored(work: RestoreToRequest, environment: ReadEnvironment): Promise<JsonObject> {
  const { totals, warnings } = await restoreTo(work, environment);
  return { totals: totalsView(totals), file_warnings: warnings, file_warnings_total: warnings.length };
}

/** Nothing is there before: every entry would be new. */
async function planned(
  { names, folder, paths, ...work }: RestoreToRequest,
  environment: ReadEnvironment,
): Promise<JsonObject> {
  const part = paths === undefined ? {} : { paths };
  const roots = (names ?? []).map((name) => ({ name, into: folder, ...part }));
  const { totals, roots: plan } = await planRestore({ ...work, roots, paths: PLANNED_PATHS }, environment);
  return {
    totals: totalsView(totals),
    plan: plan.map(plannedRootView),
    file_warnings: [],
    file_warnings_total: 0,
  };
}

/** What a restore into a new folder reads, and where to. Nothing is ever overwritten, so there is nothing to ask about. */
export async function openSource(context: Context, options: Options, target: Target, to: string) {
  const folder = to.startsWith("/") ? to : `${context.folder}/${to}`;
  if (!await isEmptyFolder(folder)) {
    throw usageError("restore --to: the folder is not empty", "name a new or an empty folder");
  }
  if ("atMs" in target) tellIfToCome(context, options, target.atMs);
  await using opening = new AsyncDisposableStack();
  const { head, store, isNear, cipher } = opening.use(await openRepositoryOffline(context, options));
  const record = findCheckpoint(head, target);
  const names = namesOf(options, Object.keys(record.files));
  const begin = () => {
    const progress = showProgress(context, options);
    const environment: ReadEnvironment = {
      store,
      isNear,
      cipher: openCipher(cipher.forWorker(), context.random), // as its Workers do it: by the system's library
      clock: context.clock,
      cacheFolder: null,
      signal: new AbortController().signal, // an interrupt ends the process; what was written is an unfinished new folder
      onProgress: (value) => progress.onEvent(progressEvent(value)),
    };
    return { progress, environment };
  };
  const opened = opening.move();
  return { record, head, names, folder, begin, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

/** Null: all of each root. With several roots it must be said which one the paths are of. */
function pathsOf(options: Options, names: readonly string[]): readonly string[] | null {
  const paths = options.list("path");
  if (paths.length === 0) return null;
  if (names.length !== 1) {
    throw usageError("restore --path: say of which files", `add --files NAME, one of ${names.join(", ")}`);
  }
  return paths.map(parseInnerPath);
}

/** Of the files roots that the checkpoint holds, those that are wanted. */
function namesOf(options: Options, known: readonly string[]): readonly string[] {
  const wanted = options.list("files");
  const unknown = wanted.find((name) => !known.includes(name));
  if (unknown === undefined) return wanted.length === 0 ? known : wanted;
  throw new StateManagerError("invalid-request", `restore: the checkpoint holds no files named ${unknown}`, {
    hint: `it holds ${known.join(", ")}`,
  });
}
