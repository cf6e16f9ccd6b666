/** `state-manager config check|show|schema|apply|reload`. */

import { configuredKey } from "../checkpoint/mod.ts";
import { configJsonSchemaText, jsonPointer, loadConfig } from "../config/mod.ts";
import { StateManagerError } from "../platform/errors.ts";
import { readTextIfPresent } from "../platform/files.ts";
import { repeatedKeys } from "../platform/json_keys.ts";
import { type JsonObject, openClient } from "./client.ts";
import { type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { findDataDirOf } from "./data_dir.ts";
import { configFlags } from "./flags.ts";
import { json, printable } from "./text.ts";

/** As large as the API takes. */
const MAX_CONFIG_BYTES = 1024 * 1024;

/** A reload waits until no files are captured and no restore is under way; the manager has its own limit. */
const NO_LIMIT = null;

/** Throws every problem at once (exit 78). Nothing is started, nothing is asked of the store. */
export async function checkConfiguration(
  context: Context,
  options: Options,
  [file]: readonly string[],
): Promise<ExitCode> {
  if (file !== undefined && options.any("config")) {
    throw usageError("config check: name the file once", "config check FILE");
  }
  const loaded = await loadConfig({
    environment: context.environment,
    flags: { ...configFlags(options), ...(file === undefined ? {} : { config: file }) },
    dataDir: findDataDirOf(context, options),
    folder: context.folder,
  });
  const configured = loaded.config !== null;
  await configuredKey(loaded.config?.checkpoint.encryptionKeyFile ?? null);
  if (options.flag("json")) {
    context.terminal.out(json({ ok: true, file: loaded.file, configured, warnings: loaded.warnings }));
    return 0;
  }
  for (const warning of loaded.warnings) context.terminal.err(`warning: ${printable(warning)}\n`);
  context.terminal.out(configured ? `${loaded.file}: ok\n` : await unconfiguredText(loaded.file));
  return 0;
}

async function unconfiguredText(file: string): Promise<string> {
  return await readTextIfPresent(file) === null
    ? `${file}: there is no such file, and no storage is given anywhere: the manager would start unconfigured\n`
    : `${file}: ok, but no storage is given anywhere\n`;
}

export async function showConfiguration(context: Context, options: Options): Promise<ExitCode> {
  using client = await openClient(context, options);
  context.terminal.out(json(await client.get("/config")));
  return 0;
}

export function printSchema(context: Context): Promise<ExitCode> {
  context.terminal.out(configJsonSchemaText().trimEnd() + "\n");
  return Promise.resolve(0);
}

export async function reloadConfiguration(context: Context, options: Options): Promise<ExitCode> {
  using client = await openClient(context, options);
  const body = { dry_run: options.flag("dryRun"), restart: options.flag("restart") };
  const plan = await client.post("/config/reload", body, NO_LIMIT);
  context.terminal.out(options.flag("json") ? json(plan) : planText(plan));
  return 0;
}

function planText(plan: JsonObject): string {
  const names = (key: string) => (Array.isArray(plan[key]) ? plan[key] : []).map(String);
  const lines: string[] = [];
  const would = plan["dry_run"] === true ? "would be " : "";
  for (const name of names("added")) lines.push(`${name}: ${would}started`);
  for (const name of names("removed")) lines.push(`${name}: ${would}stopped`);
  const restarted = new Set(names("restarted"));
  const changed: readonly JsonObject[] = Array.isArray(plan["changed"]) ? plan["changed"] : [];
  for (const { name, live, next_start: start } of changed) {
    const keys = (value: unknown) => Array.isArray(value) ? value.join(", ") : "";
    if (keys(live) !== "") lines.push(`${name}: ${keys(live)} ${would}changed at once`);
    if (keys(start) !== "" && !restarted.has(String(name))) {
      lines.push(`${name}: ${keys(start)} from its next start on (restart ${name})`);
    }
  }
  for (const name of restarted) lines.push(`${name}: ${would}restarted`);
  for (const name of names("signalled")) lines.push(`${name}: told to reload`);
  for (const key of names("needs_manager_restart")) lines.push(`${key}: needs a restart of the manager`);
  for (const warning of names("warnings")) lines.push(`warning: ${printable(warning)}`);
  return lines.length === 0 ? "nothing changed\n" : `${lines.join("\n")}\n`;
}

export async function applyConfiguration(
  context: Context,
  options: Options,
  [file = "-"]: readonly string[],
): Promise<ExitCode> {
  const text = file === "-"
    ? await context.terminal.readAll(MAX_CONFIG_BYTES)
    : await readTextIfPresent(file);
  if (text === null) throw usageError(`config apply: there is no file ${file}`);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw new StateManagerError("malformed-json", "config apply: the input is not JSON", {
      hint:
        "comments and trailing commas are only for the configuration file; config check says where it breaks",
    });
  }
  const repeated = repeatedKeys(text).map((path) => jsonPointer(path.map(String)));
  if (repeated.length > 0) {
    throw new StateManagerError("invalid-request", "config apply: the input gives a key more than once", {
      hint: "leave one of them",
      details: repeated.map((pointer) => ({ pointer, detail: "is given more than once" })),
    });
  }
  using client = await openClient(context, options);
  const status = await client.post("/config", body);
  if (options.flag("json")) context.terminal.out(json(status));
  else say(context, options, `The manager has kept the configuration and is ${String(status["state"])}.`);
  return 0;
}
