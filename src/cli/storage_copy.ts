/**
 * `state-manager storage copy`: a whole repository into another store, straight from store to store. A manager may go on
 * writing the source.
 */

import { type Config, INJECTED_VARIABLES, loadConfig } from "../config/mod.ts";
import { layoutOf } from "../database/mod.ts";
import { copyRepository, type CopyResult, storeOptions } from "../manager/mod.ts";
import { isError } from "../platform/errors.ts";
import { ownPid } from "../platform/proc.ts";
import { machineName } from "../platform/self.ts";
import { openStore, type OpenStoreOptions } from "../storage/mod.ts";
import { configuredStoreOptions } from "./configured_store.ts";
import { type Context, type ExitCode, Options, say, usageError } from "./context.ts";
import { configFlags } from "./flags.ts";
import { showProgress } from "./progress.ts";
import { count, json, size } from "./text.ts";

type Variables = Readonly<Record<string, string>>;

const STORAGE = "STATE_MANAGER_STORAGE_";
const TO = "STATE_MANAGER_TO_";
const SECRETS = ["ACCESS_KEY", "SECRET_KEY", "SESSION_TOKEN"] as const;

export async function copyStorage(context: Context, options: Options): Promise<ExitCode> {
  const { clock, random } = context;
  const from = await configuredStoreOptions(context, options);
  const to = await targetOptions(context, options, from);
  refuseSamePlace(from, to);
  const dryRun = options.flag("dryRun");
  await using stack = new AsyncDisposableStack();
  const open = (settings: OpenStoreOptions, plain = false) => {
    const store = openStore(settings, { clock, random, plain });
    stack.defer(() => store.close());
    return store;
  };
  const source = { store: open(from), layout: layoutOf(from) } as const;
  // The lease reads back by itself and needs to see every single outcome: no retries below it.
  const target = { store: open(to), plain: open(to, true), layout: layoutOf(to) } as const;
  const progress = showProgress(context, options);
  stack.defer(() => progress.done());
  const result = await copyRepository({
    source,
    target,
    clock,
    random,
    dryRun,
    signal: dryRun ? new AbortController().signal : context.interrupts("storage copy"),
    info: { command: "storage copy", host: machineName(), pid: String(ownPid()) },
    onProgress: (done, of) =>
      progress.onEvent({
        type: "progress",
        phase: "copy",
        entries: done.objects,
        bytes: done.bytes,
        total_bytes: of.bytes,
      }),
    onWaiting: () => say(context, options, "waiting: an earlier copy to there may still be under way"),
  });
  progress.done();
  tell(context, options, { ...result, to: target.store.description });
  return 0;
}

function tell(
  context: Context,
  options: Options,
  { source: { repo, head }, all, copied, rounds, to }: CopyResult & { readonly to: string },
): void {
  const dryRun = options.flag("dryRun");
  if (options.flag("json")) {
    const document = {
      type: "complete",
      dry_run: dryRun,
      repo_id: repo.repo_id,
      name: repo.name,
      head: head === null ? null : { epoch: head.epoch, seq: head.seq, checkpoints: head.checkpoints.length },
      objects: all.objects,
      bytes: all.bytes,
      copied_objects: copied.objects,
      copied_bytes: copied.bytes,
      rounds,
    };
    // One document, unless lines of progress came before it.
    context.terminal.out(dryRun ? json(document) : JSON.stringify(document) + "\n");
    return;
  }
  const amount = `${count(copied.objects, "object")} (${size(copied.bytes)}) of ${all.objects} (${
    size(all.bytes)
  })`;
  context.terminal.out(
    `${dryRun ? "would copy" : "copied"} ${amount} of repository "${repo.name}" to ${to}\n`,
  );
  if (dryRun) return;
  say(
    context,
    options,
    `A manager there needs the same name ("${repo.name}"). Prove the copy: checkpoint verify --all with the options of its store.`,
  );
}

/** As a configuration would have it, so that all is checked as there. Secrets come by variables only. */
async function targetOptions(
  { environment, folder }: Context,
  options: Options,
  from: OpenStoreOptions,
): Promise<OpenStoreOptions> {
  const [directory, bucket] = [options.text("toDirectory"), options.text("toBucket")];
  if ((directory === undefined) === (bucket === undefined)) {
    throw usageError("storage copy: say where to: --to-directory, or --to-bucket and --to-endpoint");
  }
  const given = {
    directory,
    bucket,
    endpoint: options.text("toEndpoint"),
    region: options.text("toRegion"),
    prefix: options.text("toPrefix"),
  };
  let config: Config | null;
  try {
    ({ config } = await loadConfig({
      environment: bucket === undefined ? {} : targetVariables(environment, from),
      flags: configFlags(new Options(given)),
      dataDir: "/nonexistent/state-manager", // no configuration file is the target's
      folder,
    }));
  } catch (error) {
    if (!isError(error, "config-invalid")) throw error;
    throw usageError(
      `storage copy: where it is to go is not clear: ${error.details.map(({ detail }) => detail).join("; ")}`,
      "--to-endpoint is needed beside --to-bucket, and STATE_MANAGER_TO_ACCESS_KEY and …_SECRET_KEY where the source has none",
    );
  }
  if (config === null) throw usageError("storage copy: say where to: --to-directory, or --to-bucket");
  return storeOptions(config.storage);
}

/** The source's where it has them, else what the environment has; STATE_MANAGER_TO_… over both. */
function targetVariables(environment: Variables, from: OpenStoreOptions): Record<string, string> {
  const pick = (names: readonly string[]) =>
    names.flatMap((name) => {
      const value = environment[name];
      return value ? [[name, value] as const] : [];
    });
  const variables: Record<string, string> = Object.fromEntries(pick(INJECTED_VARIABLES));
  const secretNames = (prefix: string) =>
    SECRETS.flatMap((name) => [`${prefix}${name}`, `${prefix}${name}_FILE`]);
  if (from.kind === "s3") {
    variables[`${STORAGE}ENDPOINT`] = from.endpoint;
    variables[`${STORAGE}REGION`] = from.region;
    variables[`${STORAGE}FORCE_PATH_STYLE`] = String(from.forcePathStyle);
    if (from.caFile) variables[`${STORAGE}CA_FILE`] = from.caFile;
  } else {
    const others = ["ENDPOINT", "REGION", "FORCE_PATH_STYLE", "CA_FILE"].map((name) => STORAGE + name);
    Object.assign(variables, Object.fromEntries(pick(others)));
  }
  const own = pick(secretNames(TO));
  if (own.length > 0) {
    delete variables["AWS_SESSION_TOKEN"]; // of other keys
    for (const [name, value] of own) variables[STORAGE + name.slice(TO.length)] = value;
  } else if (from.kind === "s3") {
    const { accessKey, secretKey, sessionToken } = from.credentials();
    delete variables["AWS_SESSION_TOKEN"];
    variables[`${STORAGE}ACCESS_KEY`] = accessKey.reveal();
    variables[`${STORAGE}SECRET_KEY`] = secretKey.reveal();
    if (sessionToken !== null) variables[`${STORAGE}SESSION_TOKEN`] = sessionToken.reveal();
  } else Object.assign(variables, Object.fromEntries(pick(secretNames(STORAGE))));
  return variables;
}

/** A repository inside of another is refused everywhere, and copying one to itself means nothing. */
function refuseSamePlace(from: OpenStoreOptions, to: OpenStoreOptions): void {
  const [a, b] = [placeOf(from), placeOf(to)];
  if (a.store !== b.store || !(a.path.startsWith(b.path) || b.path.startsWith(a.path))) return;
  throw usageError("storage copy: source and target are one place, or one lies inside of the other");
}

function placeOf(store: OpenStoreOptions): { readonly store: string; readonly path: string } {
  const prefix = store.keyPrefix ?? "";
  if (store.kind === "directory") {
    return { store: "", path: `${store.directory}/${prefix === "" ? "" : `${prefix}/`}` };
  }
  return {
    store: `${new URL(store.endpoint).origin} ${store.bucket}`,
    path: prefix === "" ? "" : `${prefix}/`,
  };
}
