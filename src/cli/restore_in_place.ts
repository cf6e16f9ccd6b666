/**
 * A restore in place: by the manager that runs on the data folder, or where none does by this very process, which then
 * takes the lease for it (restore_alone.ts).
 */

import type { ConfigFlags } from "../config/mod.ts";
import { isError, type StateManagerError } from "../platform/errors.ts";
import { tellFileWarnings } from "./checkpoint_create.ts";
import { type JsonObject, type ManagerClient, openClient } from "./client.ts";
import { confirm, type Context, type ExitCode, type Options, usageError } from "./context.ts";
import { showProgress } from "./progress.ts";
import { fetchText, planText } from "./restore_plan.ts";
import { namesStore } from "./store_options.ts";
import { printable, size } from "./text.ts";

export interface InPlaceRestore {
  /** Of `POST /restore`, without what the options of every restore say. */
  readonly body: JsonObject;
  /** What it replaces, for the question. */
  readonly what: string;
  /** Paths that the command line names: what the configuration does not say. */
  readonly places: Pick<ConfigFlags, "files" | "database">;
}

export async function restoreInPlace(
  context: Context,
  options: Options,
  restore: InPlaceRestore,
): Promise<ExitCode> {
  if (options.any("url") && namesStore(options)) {
    throw usageError(
      "restore: --url names a manager, which has its own store",
      "leave --url out, or the options of the store",
    );
  }
  const body = {
    ...restore.body,
    dry_run: options.flag("dryRun"),
    safety: !options.negated("safety"),
  };
  using client = await openClient(context, options);
  const status = await statusOf(client, options);
  if ("unreachable" in status) {
    const { restoreAlone } = await import("./restore_alone.ts");
    return await restoreAlone(context, options, { ...restore, body }, status.unreachable);
  }
  if (namesStore(options)) {
    const { refuseOtherStore } = await import("./restore_alone.ts");
    await refuseOtherStore(context, options, status.manager);
  }
  return await restoreByManager(context, options, client, { ...restore, body });
}

/** Where a person named the manager it must be there; else one that is not is no error yet. */
async function statusOf(
  client: ManagerClient,
  options: Options,
): Promise<{ readonly manager: JsonObject } | { readonly unreachable: StateManagerError }> {
  try {
    return { manager: await client.get("/") };
  } catch (error) {
    if (!isError(error, "manager-unreachable") || options.any("url")) throw error;
    return { unreachable: error };
  }
}

async function restoreByManager(
  context: Context,
  options: Options,
  client: ManagerClient,
  { body, what }: InPlaceRestore,
): Promise<ExitCode> {
  if (!options.flag("dryRun")) {
    await confirm(context, options, `This stops all processes and replaces ${what}. Go on?`);
  }
  const progress = showProgress(context, options);
  let result: JsonObject;
  try {
    result = await client.stream("/restore", body, progress.onEvent);
  } finally {
    progress.done();
  }
  return tellRestored(context, options, result);
}

/** `result` as `POST /restore` answers it; with `--json` it is out already. */
export function tellRestored(context: Context, options: Options, result: JsonObject): ExitCode {
  if (!options.flag("json")) context.terminal.out(resultText(result));
  return tellFileWarnings(context, options, result);
}

function resultText(result: JsonObject): string {
  const name = (value: unknown) => `v${(value as JsonObject)["n"]} ${(value as JsonObject)["id"]}`;
  const totals = result["totals"] as JsonObject | null;
  // Where no files come back the checkpoint says nothing: a database may go to another state than it names.
  const hasFiles = result["source"] !== null && (result["files"] as readonly unknown[]).length > 0;
  const bytes = totals === null || !hasFiles ? "" : `, ${size(Number(totals["bytes"]))}`;
  const states = statesText(result["databases"]);
  const what = !hasFiles ? states : name(result["source"]) + (states === "" ? "" : ` (${states})`);
  if (result["checkpoint"] === null) {
    return `would restore ${what}${bytes}${hasFiles ? fetchText(totals) : ""}\n${planText(result["plan"])}`;
  }
  const safety = result["safety"] === null ? "" : `; what was there before is ${name(result["safety"])}`;
  return `restored ${what} as ${name(result["checkpoint"])}${bytes}${safety}\n`;
}

function statesText(databases: unknown): string {
  return Object.entries(databases as JsonObject)
    .map(([name, txid]) => `${printable(name)} to TXID ${String(txid)}`).join(", ");
}
