/** `state-manager checkpoint rm` and `checkpoint prune`: through the running manager, which holds the lease. */

import { parseCheckpointReference } from "../checkpoint/mod.ts";
import { type JsonObject, openClient } from "./client.ts";
import { confirm, type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { showProgress } from "./progress.ts";
import { count, json, size, table } from "./text.ts";

export async function removeCheckpoints(
  context: Context,
  options: Options,
  args: readonly string[],
): Promise<ExitCode> {
  const references = args.map((text) => {
    const reference = parseCheckpointReference(text);
    if (reference === null || reference === "latest") {
      throw usageError("read the checkpoint: want an id or an ordinal (3 or v3)");
    }
    return reference;
  });
  using client = await openClient(context, options);
  const found: JsonObject[] = [];
  // Each is looked up before the first one goes: a mistyped one must not leave half of it done.
  for (const reference of references) found.push(await client.get(`/checkpoints/${reference}`));
  const names = found.map((each) => `v${each["n"]}`).join(", ");
  await confirm(context, options, `This deletes ${names} for good. Go on?`);
  const deleted: JsonObject[] = [];
  for (const { id } of found) {
    const force = options.flag("force") ? "?force=true" : "";
    const answer = await client.delete(`/checkpoints/${String(id)}${force}`);
    deleted.push(answer["deleted"] as JsonObject);
  }
  context.terminal.out(
    options.flag("json")
      ? json({ deleted })
      : deleted.map((each) => `v${each["n"]}  ${each["id"]}\n`).join(""),
  );
  say(context, options, "Deleted. Their space is freed by the next prune.");
  return 0;
}

export async function pruneCheckpoints(context: Context, options: Options): Promise<ExitCode> {
  const dryRun = options.flag("dryRun");
  using client = await openClient(context, options);
  await client.get("/"); // an unreachable manager is told before a person is asked
  if (!dryRun) {
    await confirm(
      context,
      options,
      "This deletes the checkpoints that checkpoint.keep does not want. Go on?",
    );
  }
  const progress = showProgress(context, options);
  let result: JsonObject;
  try {
    result = await client.stream("/checkpoints/prune", { dry_run: dryRun }, progress.onEvent);
  } finally {
    progress.done();
  }
  if (!options.flag("json")) context.terminal.out(planText(result));
  say(context, options, summary(result));
  return 0;
}

function planText(result: JsonObject): string {
  const rows = (result["checkpoints"] as readonly JsonObject[]).map((each) => [
    `v${each["n"]}`,
    String(each["id"]),
    String(each["time"]),
    each["kept"] === true ? "stays" : result["dry_run"] === true ? "would go" : "gone",
    (each["reasons"] as readonly string[]).join(", "),
  ]);
  return table(["N", "ID", "TIME", "", "WHY"], rows);
}

function summary(result: JsonObject): string {
  const dryRun = result["dry_run"] === true;
  const checkpoints = count(Number(result["deleted_checkpoints"]), "checkpoint");
  const storage = result["storage"] as JsonObject | null;
  const freed = storage === null ? "" : `, ${size(Number(storage["freed_bytes"]))} of packs`;
  const waiting = Number(result["waiting_objects"]);
  const later = waiting === 0
    ? ""
    : ` ${count(waiting, "object")} to be deleted when nobody can be reading them any more.`;
  return `${dryRun ? "Would free" : "Freed"} ${checkpoints}${freed}.${later}`;
}
