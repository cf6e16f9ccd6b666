/** `state-manager checkpoint create`. */

import { type JsonObject, openClient } from "./client.ts";
import { type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { showProgress } from "./progress.ts";
import { count, printable, size } from "./text.ts";

/** Some files could not be read: the checkpoint is there, without them. */
const PARTIAL = 2;

export async function createCheckpoint(context: Context, options: Options): Promise<ExitCode> {
  const labels = Object.fromEntries(options.list("label").map(parseLabel));
  using client = await openClient(context, options);
  const progress = showProgress(context, options);
  let result: JsonObject;
  try {
    result = await client.stream(
      "/checkpoint",
      { comment: options.text("comment") ?? "", labels },
      progress.onEvent,
    );
  } finally {
    progress.done();
  }
  const checkpoint = result["checkpoint"] as JsonObject;
  const totals = result["totals"] as JsonObject;
  if (!options.flag("json")) context.terminal.out(`v${checkpoint["n"]}  ${checkpoint["id"]}\n`);
  const unchanged = result["unchanged"] === true ? "Nothing had changed: this is the current one. " : "";
  say(
    context,
    options,
    `${unchanged}${count(Number(totals["entries"]), "entry").replace("entrys", "entries")}, ` +
      `${size(Number(totals["bytes"]))}, sent ${size(Number(totals["bytes_transferred"]))} ` +
      `in ${String(totals["duration_seconds"])} s`,
  );
  return tellFileWarnings(context, options, result);
}

/** Tells the files that were left out; the exit code is 2 when there are any. */
export function tellFileWarnings(context: Context, options: Options, result: JsonObject): ExitCode {
  const total = Number(result["file_warnings_total"] ?? 0);
  if (total === 0) return 0;
  const warnings = result["file_warnings"] as readonly JsonObject[];
  if (!options.flag("json")) {
    for (const { root, path, reason } of warnings) {
      context.terminal.err(`warning: ${printable(`${root}: ${path}: ${reason}`)}\n`);
    }
    context.terminal.err(`${count(total, "file")} with warnings\n`);
  }
  return PARTIAL;
}

/** `NAME=VALUE`. */
export function parseLabel(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at < 1) throw usageError("read --label: want NAME=VALUE");
  return [text.slice(0, at), text.slice(at + 1)];
}
