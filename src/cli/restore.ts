/** `state-manager restore`: through the running manager, or with `--to` straight from the store into a new folder. */

import { parseCheckpointReference } from "../checkpoint/mod.ts";
import { parseTime } from "../server/mod.ts";
import { tellFileWarnings } from "./checkpoint_create.ts";
import { type JsonObject, openClient } from "./client.ts";
import { confirm, type Context, type ExitCode, type Options, usageError } from "./context.ts";
import { showProgress } from "./progress.ts";
import { namesStore } from "./store_options.ts";
import { size } from "./text.ts";

export type Target = { readonly checkpoint: string } | { readonly at: string; readonly atMs: number };

export async function restore(
  context: Context,
  options: Options,
  args: readonly string[],
): Promise<ExitCode> {
  const target = targetOf(options, args);
  const to = options.text("to");
  if (options.flag("salvage")) {
    if (to === undefined) throw usageError("restore --salvage: say where to with --to DIR");
    const { salvage } = await import("./salvage.ts");
    return await salvage(context, options, target, to);
  }
  if (to !== undefined) {
    const { restoreOffline } = await import("./restore_offline.ts");
    return await restoreOffline(context, options, target, to);
  }
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
  // Into a folder of its own nothing can be overwritten: the newest is what is meant.
  if (given.length === 0 && at === undefined && options.text("to") !== undefined) {
    return { checkpoint: "latest" };
  }
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
  const files = options.list("files");
  const databases = options.list("databases");
  const names = [...files, ...databases];
  const body = {
    ...("at" in target ? { at: target.at } : target),
    ...(files.length === 0 ? {} : { files }),
    ...(databases.length === 0 ? {} : { databases }),
    consistent: options.flag("consistent"),
  };
  const what = names.length === 0 ? "all files and databases" : names.join(", ");
  return await restoreByManager(context, options, body, what);
}

/** Asks, then has the running manager restore what `body` says; `what` it replaces, for the question. */
export async function restoreByManager(
  context: Context,
  options: Options,
  body: JsonObject,
  what: string,
): Promise<ExitCode> {
  const dryRun = options.flag("dryRun");
  using client = await openClient(context, options);
  await client.get("/"); // an unreachable manager is told before a person is asked
  if (!dryRun) await confirm(context, options, `This stops all processes and replaces ${what}. Go on?`);
  const request = { ...body, dry_run: dryRun, safety: !options.negated("safety") };
  const progress = showProgress(context, options);
  let result: JsonObject;
  try {
    result = await client.stream("/restore", request, progress.onEvent);
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
