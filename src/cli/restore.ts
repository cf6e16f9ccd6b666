/** `state-manager restore`: through the running manager, or with `--to` straight from the store into a new folder. */

import { planRestore, restoreTo } from "../checkpoint/mod.ts";
import type { ArchiveProgress } from "../checkpoint/types.ts";
import { StateManagerError } from "../platform/errors.ts";
import { isEmptyFolder } from "../platform/folder.ts";
import { checkpointView, parseCheckpointReference, parseTime, totalsView } from "../server/mod.ts";
import { tellFileWarnings } from "./checkpoint_create.ts";
import { type JsonObject, openClient, type StreamEvent } from "./client.ts";
import { confirm, type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { namesStore, openRepositoryOffline, wantedCheckpoint } from "./offline.ts";
import { showProgress } from "./progress.ts";
import { size } from "./text.ts";

type Target = { readonly checkpoint: string } | { readonly at: string; readonly atMs: number };

export async function restore(
  context: Context,
  options: Options,
  args: readonly string[],
): Promise<ExitCode> {
  const target = targetOf(options, args);
  const to = options.text("to");
  if (to !== undefined) return await restoreOffline(context, options, target, to);
  if (namesStore(options)) {
    throw usageError(
      "restore: in place only the manager can, as it holds the lease",
      "add --to DIR to restore into a folder, or leave the store's options out",
    );
  }
  return await restoreInPlace(context, options, target);
}

/** Exactly one of the argument, `--checkpoint` and `--at`. */
function targetOf(options: Options, [argument]: readonly string[]): Target {
  const given = [argument, options.text("checkpoint")].filter((text) => text !== undefined);
  const at = options.text("at");
  if (given.length + (at === undefined ? 0 : 1) !== 1) {
    throw usageError(
      "restore: say which state, once",
      "state-manager restore v3, or --at 2026-01-31T12:00:00Z",
    );
  }
  if (at !== undefined) {
    const atMs = parseTime(at);
    if (atMs === null) {
      throw usageError("read --at: want a time as in RFC 3339, with its zone: 2026-01-31T12:00:00Z");
    }
    return { at, atMs };
  }
  const checkpoint = parseCheckpointReference(given[0] ?? "");
  if (checkpoint === null) {
    throw usageError("read the checkpoint: want an id, an ordinal (3 or v3) or latest");
  }
  return { checkpoint };
}

async function restoreInPlace(context: Context, options: Options, target: Target): Promise<ExitCode> {
  const dryRun = options.flag("dryRun");
  const files = options.list("files");
  using client = await openClient(context, options);
  await client.get("/"); // an unreachable manager is told before a person is asked
  if (!dryRun) {
    const what = files.length === 0 ? "all files" : files.join(", ");
    await confirm(context, options, `This stops all processes and replaces ${what}. Go on?`);
  }
  const body = {
    ...("at" in target ? { at: target.at } : target),
    ...(files.length === 0 ? {} : { files }),
    dry_run: dryRun,
    safety: !options.negated("safety"),
  };
  const progress = showProgress(context, options);
  let result: JsonObject;
  try {
    result = await client.stream("/restore", body, progress.onEvent);
  } finally {
    progress.done();
  }
  if (!options.flag("json")) context.terminal.out(resultText(result));
  return tellFileWarnings(context, options, result);
}

function resultText(result: JsonObject): string {
  const name = (value: unknown) => `v${(value as JsonObject)["n"]} ${(value as JsonObject)["id"]}`;
  const totals = result["totals"] as JsonObject | null;
  const bytes = totals === null ? "" : `, ${size(Number(totals["bytes"]))}`;
  if (result["checkpoint"] === null) return `would restore ${name(result["source"])}${bytes}\n`;
  const safety = result["safety"] === null ? "" : `; what was there before is ${name(result["safety"])}`;
  return `restored ${name(result["source"])} as ${name(result["checkpoint"])}${bytes}${safety}\n`;
}

async function restoreOffline(
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
  const { head, store } = repository;
  const record = wantedCheckpoint(head, target);
  const names = namesOf(options, Object.keys(record.files));
  const progress = showProgress(context, options);
  const environment = {
    store,
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

function namesOf(options: Options, known: readonly string[]): readonly string[] {
  const wanted = options.list("files");
  const unknown = wanted.find((name) => !known.includes(name));
  if (unknown === undefined) return wanted.length === 0 ? known : wanted;
  throw new StateManagerError("invalid-request", `restore: the checkpoint holds no files named ${unknown}`, {
    hint: `it holds ${known.join(", ")}`,
  });
}

function progressEvent({ phase, entries, bytes, totalBytes }: ArchiveProgress): StreamEvent {
  return { type: "progress", phase, entries, bytes, total_bytes: totalBytes };
}
