/** `state-manager checkpoint edit`, `pin` and `unpin`: through the running manager, which holds the lease. */

import { parseCheckpointReference } from "../checkpoint/mod.ts";
import { parseLabel } from "./checkpoint_create.ts";
import { type JsonObject, openClient } from "./client.ts";
import { type CommandAction, type Context, type ExitCode, type Options, usageError } from "./context.ts";
import { json } from "./text.ts";

export async function editCheckpoint(
  context: Context,
  options: Options,
  [text = ""]: readonly string[],
): Promise<ExitCode> {
  const comment = options.text("comment");
  const labels: Record<string, string | null> = Object.fromEntries([
    ...options.list("removeLabel").map((name) => [name, null] as const),
    ...options.list("label").map(parseLabel),
  ]);
  if (comment === undefined && Object.keys(labels).length === 0) {
    throw usageError(
      "checkpoint edit: say what to change",
      "--comment TEXT, --label NAME=VALUE, --remove-label NAME",
    );
  }
  const notes = { ...(comment === undefined ? {} : { comment }), labels };
  return await annotate(context, options, text, notes);
}

export function pinAction(verb: "pin" | "unpin"): CommandAction {
  return (context, options, [text = ""]) => annotate(context, options, text, { pinned: verb === "pin" });
}

async function annotate(
  context: Context,
  options: Options,
  text: string,
  notes: JsonObject,
): Promise<ExitCode> {
  const reference = parseCheckpointReference(text);
  if (reference === null) throw usageError("read the checkpoint: want an id, an ordinal (3 or v3) or latest");
  using client = await openClient(context, options);
  const changed = await client.patch(`/checkpoints/${reference}`, notes);
  context.terminal.out(options.flag("json") ? json(changed) : `v${changed["n"]}  ${changed["id"]}\n`);
  return 0;
}
