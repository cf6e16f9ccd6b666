/**
 * A restore in place where no manager runs: a session without programs. The lease is taken, local state is made right as
 * every start does, then the same steps as of a running manager bring the old state back as new history, and the lease
 * is given back. If we die on the way, the head has an intent or not, and a swap its journal: the next start, here or
 * elsewhere, finishes it or knows nothing of it.
 */

import { configuredKey, planRestore, readHead, readRepository, repositoryCipher } from "../checkpoint/mod.ts";
import type { ArchiveProgress, Head } from "../checkpoint/types.ts";
import type { Config } from "../config/types.ts";
import { layoutOf, listDatabaseNames, planDatabaseRestore, type RestoreTarget } from "../database/mod.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { randomHex } from "../platform/random.ts";
import { openStore } from "../storage/mod.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { LongWork, RestoreRequest, RestoreResult } from "./control.ts";
import type { DataDir } from "./data_dir.ts";
import { findDatabases } from "./database_names.ts";
import { finishedIntent } from "./head_changes.ts";
import { releaseLease, StopBudget } from "./last_state.ts";
import { PLANNED_PATHS, planTargets } from "./restorer.ts";
import { databasesOf, filesRoots, storeOptions } from "./opening.ts";
import { checkRequest, type RestoreScope, sourceOf, wantedOf } from "./restore_request.ts";
import type { SessionOptions } from "./session_types.ts";
import { Tenure } from "./tenure.ts";
import { txidsOf } from "./term_machine.ts";

export interface RestoreOnceOptions extends
  Pick<
    SessionOptions,
    | "config"
    | "dir"
    | "clock"
    | "random"
    | "credentials"
    | "hostname"
    | "pid"
    | "guard"
    | "leaseMemory"
    | "record"
  > {
  /** What is waited for; null: for nothing any more. */
  readonly onWaiting: (reason: string | null) => void;
}

export interface PlanOnceOptions extends Pick<RestoreOnceOptions, "config" | "clock" | "random"> {
  readonly dir: DataDir;
}

/**
 * Resolves when the old state is in place, in the bucket as its newest one, and the lease is given back. The caller holds
 * the data folder. Errors: those of a start (`lease-held-elsewhere`, `origin-unknown`, `config-invalid` …) and of a
 * restore; `work.signal` ends it at any point.
 */
export async function restoreOnce(
  options: RestoreOnceOptions,
  request: RestoreRequest,
  work: LongWork,
): Promise<RestoreResult> {
  const { clock, random, onWaiting } = options;
  const stop = work.signal ?? new AbortController().signal;
  const config = { ...options.config, lease: leaseForOnce(options.config.lease) };
  const tenure = new Tenure({
    ...options,
    config,
    holder: randomHex(random),
    yielded: () => false,
    persistYielded: () => Promise.resolve(),
    onState: (state, reason) => onWaiting(state === "waiting" ? reason : null),
    onFenced: () => {}, // nothing runs
    onSuspended: () => {}, // every write asks for the lease: it may come back
    onRenewed: () => {},
    onAsked: () => {},
    hold: () => null,
  });
  try {
    try {
      return await restoreIn(tenure, request, { ...work, signal: stop });
    } finally {
      const { opened } = tenure;
      const budget = new StopBudget(clock, config.shutdown);
      if (stop.aborted) budget.begin();
      if (opened !== null && !tenure.fenced.aborted) await releaseLease(opened, budget);
    }
  } catch (error) {
    tenure.fenced.throwIfAborted(); // the release told whose the lease is: what failed may have failed for this
    throw withConsequence(asStateManagerError(error), tenure);
  } finally {
    await tenure.close();
  }
}

async function restoreIn(
  tenure: Tenure,
  request: RestoreRequest,
  work: LongWork & { readonly signal: AbortSignal },
): Promise<RestoreResult> {
  const { opened, restorer } = await tenure.open(work.signal);
  const signal = AbortSignal.any([work.signal, tenure.fenced]);
  await restorer.check(request);
  // Commits that never left this machine are in the bucket before anything is replaced, under a slot of our own term.
  await opened.databases.follow(signal);
  const result = await restorer.restore(request, { ...work, signal });
  await opened.databases.finish(signal);
  return result;
}

/** The next start may have work to do: said where the head has it. */
function withConsequence(error: StateManagerError, { opened }: Tenure): StateManagerError {
  const begun = opened?.head.head.intent ?? null;
  if (begun === null) return error;
  return new StateManagerError(error.code, `${error.message}; the restore has begun`, {
    hint: "the next start, or this command once more, finishes it; nothing of it is lost",
    details: error.details,
    cause: error,
  });
}

/**
 * Nobody's programs are stopped for this: no hand-over is asked for. A lease that a dead holder left is waited for, the
 * time that it takes to see that; the lease of a living one is not.
 */
function leaseForOnce(lease: Config["lease"]): Config["lease"] {
  const deadHolderMs = lease.ttlMs * TTL_WITH_DRIFT + LOOKS_MS;
  return { ...lease, handOver: "never", wait: lease.wait === true ? deadHolderMs : lease.wait };
}

/** More than the drift that a contender allows for. */
const TTL_WITH_DRIFT = 1.1;
/** A few looks, and a slow store. */
const LOOKS_MS = 5000;

/**
 * What `restoreOnce` would bring back, as the bucket is now, with `dryRun` also how much; nothing is locked or changed.
 * Errors: those of `checkRequest` and of the store.
 */
export async function planOnce(
  options: PlanOnceOptions,
  request: RestoreRequest,
  work: LongWork & { readonly signal: AbortSignal },
): Promise<RestoreResult> {
  const { clock, config, random } = options;
  const store = openStore(storeOptions(config.storage), { clock, random });
  try {
    const key = await configuredKey(config.checkpoint.encryptionKeyFile);
    const repo = await readRepository(store, work); // tells a wrong place and a format that is too new
    const cipher = await repositoryCipher(repo, key, random);
    const state = await readHead(store, { ...work, cipher });
    if (state === null) throw noHead();
    const head = finishedIntent(state.head); // as whoever takes the lease finds it
    const scope = await scopeOf(options, head, store);
    await checkRequest(request, scope, work.signal);
    const source = sourceOf(request, scope);
    const { names, paths, databases } = await wantedOf(source, request, scope, work.signal);
    if (names.length + Object.keys(databases).length === 0) throw nothingHere();
    const onProgress = (progress: ArchiveProgress) => work.onProgress?.(progress);
    const environment = { store, cipher, clock, cacheFolder: null, signal: work.signal, onProgress };
    const roots = filesRoots(config, options.dir).filter(({ name }) => names.includes(name));
    // A path that is not there is told before the lease is asked for.
    const plan = source !== null && (request.dryRun || request.paths !== null)
      ? await planRestore({
        record: source,
        indexes: head.indexes,
        roots: planTargets(roots, paths),
        paths: PLANNED_PATHS,
      }, environment)
      : null;
    return {
      source,
      checkpoint: null,
      safety: null,
      files: names,
      databases: txidsOf(databases),
      totals: request.dryRun ? plan?.totals ?? null : null,
      plan: request.dryRun ? plan?.roots ?? [] : null,
      warnings: [],
    };
  } finally {
    await store.close();
  }
}

async function scopeOf(
  { clock, config, dir }: PlanOnceOptions,
  head: Head,
  store: ObjectStore,
): Promise<RestoreScope> {
  const layout = layoutOf(config.storage);
  const found = await findDatabases(databasesOf(config), await listDatabaseNames(store));
  const plan = async (name: string, target: RestoreTarget, signal = new AbortController().signal) => {
    const environment = { store, clock, signal, onProgress: () => {} };
    const { txid } = await planDatabaseRestore({ place: { layout, name }, target }, environment);
    return { txid };
  };
  return {
    head,
    roots: filesRoots(config, dir).map(({ name }) => name),
    hasDatabase: (name) => found.some((each) => each.name === name),
    positionAt: (name, atMs, signal) => plan(name, { kind: "before", beforeMs: atMs + 1 }, signal),
    checkPoint: async (name, txid, signal) => void await plan(name, { kind: "txid", txid }, signal),
  };
}

function noHead(): StateManagerError {
  return new StateManagerError(
    "checkpoint-not-found",
    "read the head: the repository has no checkpoint yet",
    {
      hint: "check the prefix, or make a checkpoint first",
    },
  );
}

function nothingHere(): StateManagerError {
  return new StateManagerError(
    "config-invalid",
    "restore: nothing that the checkpoint holds has a place here",
    {
      hint:
        "name a configuration with --config, or places with --files NAME=PATH and --databases NAME=PATH; " +
        "or add --to DIR to restore into a folder",
    },
  );
}
