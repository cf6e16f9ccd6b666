/**
 * A restore in place with no manager: this process holds the data folder and the lease for as long as it takes, and
 * starts none of the configured programs. Interrupted at any point, it leaves what the next start finishes or drops.
 */

import { type ConfigFlags, loadConfig, type LoadedConfig } from "../config/mod.ts";
import type { Config } from "../config/types.ts";
import { type CatalogEvent, type CatalogOptions, openCatalog } from "../database/mod.ts";
import {
  beginRun,
  dataDirAt,
  type LongWork,
  openDataDir,
  planOnce,
  restoreOnce,
  type RestoreRequest,
  type RestoreResult,
  storeOptions,
} from "../manager/mod.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { raiseFileLimit } from "../platform/libc_process.ts";
import { configureLog, flushLog, log } from "../platform/log.ts";
import { ownPid } from "../platform/proc.ts";
import { keepAliveOnErrors, machineName } from "../platform/self.ts";
import { parseRestoreBody, restoreResultView } from "../server/mod.ts";
import { openStore } from "../storage/mod.ts";
import type { JsonObject } from "./client.ts";
import { confirm, type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { findDataDirOf } from "./data_dir.ts";
import { configFlags } from "./flags.ts";
import { explained } from "./named_place.ts";
import { progressEvent, showProgress } from "./progress.ts";
import { type InPlaceRestore, tellRestored } from "./restore_in_place.ts";
import { STORE_OPTIONS } from "./store_options.ts";

/** What the configuration takes from these commands' options; `files` means names here. */
const CONFIG_OPTIONS = [...STORE_OPTIONS, "onConflict", "leaseWait"];
/** Secrets in files may change while it runs. */
const CREDENTIALS_CHECK_MS = 15_000;
/** Longest wait for the history: a catalog takes some tens of milliseconds to open. */
const HISTORY_MS = 3_000;
/** Longest wait for our own log at the end. */
const FLUSH_MS = 500;

const logger = log("restore");

/** `unreachable`: why no manager was asked, for one who meant one. */
export async function restoreAlone(
  context: Context,
  options: Options,
  { body, what, places }: InPlaceRestore,
  unreachable: StateManagerError,
): Promise<ExitCode> {
  const { clock } = context;
  const loaded = await loadFor(context, options, places);
  const { config } = loaded;
  if (config === null) throw unreachable; // nothing names a store either
  for (const warning of loaded.warnings) say(context, options, `warning: ${warning}`);
  const dataDir = findDataDirOf(context, options);
  const request = parseRestoreBody(body, clock.wallMs());
  const { signal } = new AbortController(); // until something is changed an interrupt ends the process
  const plan = await planHere(context, { loaded, config, dataDir }, request, signal);
  if (!request.dryRun) {
    await confirm(
      context,
      options,
      `No manager runs on ${dataDir}: this takes the lease and replaces ${what}. Go on?`,
    );
  }
  const result = request.dryRun
    ? plan
    : await restoreHere(context, options, { loaded, config, dataDir }, asPlanned(request, plan));
  const view = restoreResultView(result);
  if (options.flag("json")) context.terminal.out(JSON.stringify({ type: "complete", ...view }) + "\n");
  return tellRestored(context, options, view);
}

async function planHere(
  context: Context,
  { config, dataDir }: Here,
  request: RestoreRequest,
  signal: AbortSignal,
): Promise<RestoreResult> {
  const { clock, random } = context;
  try {
    return await planOnce({ config, dir: dataDirAt(dataDir), clock, random }, request, { signal });
  } catch (error) {
    const place = storeOptions(config.storage);
    const store = openStore(place, context);
    try {
      throw await explained(error, store, place, context);
    } finally {
      await store.close();
    }
  }
}

/** The checkpoint that was planned with, and shown: what starting takes in may make another one the latest. */
function asPlanned(request: RestoreRequest, { source }: RestoreResult): RestoreRequest {
  if (source === null || !("checkpoint" in request.target)) return request;
  return { ...request, target: { checkpoint: source.id } };
}

/** Error: `usage` when the options name another store than that of the manager which runs on the data folder. */
export async function refuseOtherStore(
  context: Context,
  options: Options,
  manager: JsonObject,
): Promise<void> {
  const { config } = await loadFor(context, options, {});
  const theirs = manager["storage"] as JsonObject | null;
  if (config === null || theirs === null) return; // its own state says what it is up to
  const store = openStore(storeOptions(config.storage), context);
  const { description } = store;
  await store.close();
  if (description === theirs["description"] && config.storage.keyPrefix === theirs["key_prefix"]) {
    return;
  }
  throw usageError(
    `restore: the manager that runs on ${findDataDirOf(context, options)} keeps another store, ${
      theirs["description"]
    }`,
    "leave the options of the store out, or name another --data-dir",
  );
}

function loadFor(
  context: Context,
  options: Options,
  places: Pick<ConfigFlags, "files" | "database">,
): Promise<LoadedConfig> {
  return loadConfig({
    environment: context.environment,
    flags: { ...configFlags(options.only(CONFIG_OPTIONS)), ...places },
    dataDir: findDataDirOf(context, options),
    folder: context.folder,
  });
}

interface Here {
  readonly loaded: LoadedConfig;
  readonly config: Config;
  readonly dataDir: string;
}

async function restoreHere(
  context: Context,
  options: Options,
  { loaded, config, dataDir }: Here,
  request: RestoreRequest,
): Promise<RestoreResult> {
  const { clock, random } = context;
  configureLog({ format: options.flag("json") ? "json" : "text", level: "warn" });
  keepAliveOnErrors((error) =>
    logger.error("unexpected error, going on", { error: asStateManagerError(error) })
  );
  raiseFileLimit();
  const signal = context.interrupts("restore");
  const progress = showProgress(context, options);
  const work: LongWork = { signal, onProgress: (value) => progress.onEvent(progressEvent(value)) };
  const history: CatalogEvent[] = [];
  const rotation = setInterval(() => void loaded.refreshCredentials().catch(() => {}), CREDENTIALS_CHECK_MS);
  const { dir, lock } = await openDataDir(dataDir);
  try {
    const run = await beginRun({ dir, lock }, { clock, random, environment: context.environment, signal });
    try {
      return await restoreOnce(
        {
          ...run,
          config,
          dir,
          clock,
          random,
          credentials: () => loaded.currentCredentials(),
          hostname: machineName(),
          pid: ownPid(),
          record: (event) => history.push({ ...event, atMs: clock.wallMs() }),
          onWaiting: (reason) => {
            if (reason !== null) say(context, options, `waiting: ${reason}`);
          },
        },
        request,
        work,
      );
    } finally {
      await run.guard.end();
      await keepHistory(history, { path: config.catalog.path ?? dir.catalog, clock });
    }
  } finally {
    lock.release();
    clearInterval(rotation);
    progress.done();
    await flushLog(FLUSH_MS);
  }
}

/** Into the catalog of the manager that this data folder is of. Nothing depends on it, so it comes last. */
async function keepHistory(
  events: readonly CatalogEvent[],
  place: Pick<CatalogOptions, "path" | "clock">,
): Promise<void> {
  if (events.length === 0) return;
  const catalog = openCatalog({ ...place, log: log("catalog") });
  for (const event of events) catalog.record(event);
  await catalog.close(HISTORY_MS);
}
