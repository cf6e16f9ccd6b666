/**
 * Opens a session: the store, proven; the repository, ours; the lease, taken; the head, taken over.
 * The order matters: nothing but the probe's own unique keys is written before the prefix is known to be ours, and
 * the head is taken over (which fences every earlier holder) before anything local is decided or changed.
 */

import {
  Archiver,
  type Cipher,
  configuredKey,
  GC_GRACE_MS,
  HeadSession,
  type Hold,
  openRepository,
  readHead,
  repositoryCipher,
  SCANS_FOLDER,
} from "../checkpoint/mod.ts";
import type { FilesRoot, Head, RepositoryRecord } from "../checkpoint/types.ts";
import type { StoreCredentials } from "../config/mod.ts";
import type { Config, StorageConfig } from "../config/types.ts";
import { fixedLease, type Lease, LeaseHolder, NO_LEASE_WARNING } from "../lease/mod.ts";
import type { LeaseEvent, LeaseMemory, LeaseStatus, LeaseTerm } from "../lease/types.ts";
import { type CatalogEvent, DatabaseChildren, layoutOf } from "../database/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { log } from "../platform/log.ts";
import type { Random } from "../platform/random.ts";
import { openStore, type OpenStoreOptions, probeStore } from "../storage/mod.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { childWatches } from "../supervisor/mod.ts";
import { Browser } from "./browser.ts";
import { Checkpointer } from "./checkpointer.ts";
import type { CheckpointInProgress, CheckpointResult, PruneResult } from "./control.ts";
import type { DataDir } from "./data_dir.ts";
import { DatabaseStart, repairDatabases } from "./database_start.ts";
import { DatabaseFiles } from "./database_files.ts";
import { Databases } from "./databases.ts";
import { LineageFile } from "./lineage.ts";
import type { WorkName, WorkStep } from "./event_hub.ts";
import { Repairer } from "./repairer.ts";
import { Pruner } from "./pruner.ts";
import type { RunGuard } from "./run_guard.ts";
import { runTerm } from "./term.ts";
import { NO_FACTS } from "./term_rules.ts";
import { StorageMeter } from "./storage_meter.ts";
import { Verifier } from "./verifier.ts";
import { withDatabases } from "./verify_databases.ts";
import { repairSteps, rootSteps, termFacts } from "./term_steps.ts";

export interface Opened {
  readonly store: ObjectStore;
  readonly repo: RepositoryRecord;
  readonly lease: Lease;
  readonly term: LeaseTerm;
  readonly head: HeadSession;
  readonly archiver: Archiver;
  readonly checkpointer: Checkpointer;
  readonly pruner: Pruner;
  readonly repairer: Repairer;
  readonly databases: Databases;
  readonly verifier: Verifier;
  readonly browser: Browser;
  readonly meter: StorageMeter;
  readonly lineage: LineageFile;
  readonly roots: readonly FilesRoot[];
  readonly warnings: readonly string[];
  close(): Promise<void>;
}

export interface OpeningOptions {
  readonly config: Config;
  readonly dir: DataDir;
  readonly clock: Clock;
  readonly random: Random;
  readonly hostname: string;
  readonly pid: number;
  readonly holder: string;
  readonly credentials: () => StoreCredentials | null;
  readonly guard: RunGuard;
  readonly leaseMemory: LeaseMemory;
  /** The term before was handed over on request, and nobody has asked for it back since. Read at each use. */
  readonly yielded: () => boolean;
  /** Keeps the programs still for a checkpoint that is made while they run. */
  readonly hold: (databases: Databases, signal: AbortSignal) => (Hold & AsyncDisposable) | null;
  /** Called for each checkpoint whose content is fixed. */
  readonly onCaptured: (checkpoint: CheckpointInProgress) => void;
  /** Called for each checkpoint that became durable. */
  readonly onCheckpoint: (result: CheckpointResult) => void;
  /** Called after each prune that ended well. */
  readonly onPruned: (result: PruneResult) => void;
  /** Aborts the wait. */
  readonly signal: AbortSignal;
  readonly onLeaseEvent: (event: LeaseEvent) => void;
  readonly onWaiting: (reason: string | null) => void;
  /** Called with the store's description before the first request to it. */
  readonly onStore: (description: string) => void;
  readonly onLease: (status: () => LeaseStatus | null) => void;
  readonly record: (event: CatalogEvent) => void;
  /** How far long work is. Left out: nobody asks. */
  readonly onWork?: (work: WorkName, step: WorkStep) => void;
  /** When the holder fences itself, by the monotonic clock; null: not known. */
  readonly fenceAtMs: () => number | null;
  /** Somebody with a larger token has written to a database. */
  readonly onDatabasesFenced: (error: StateManagerError) => void;
}

const logger = log("open");
/** Of the machine's clock to the store's. */
const WARNED_SKEW_MS = 60_000;

/** Pause between tries while the store is out of reach: grows to this. */
const LONGEST_PAUSE_MS = 10_000;
const FIRST_PAUSE_MS = 500;
/** One round of probe and repository check. */
const OPEN_TIMEOUT_MS = 30_000;

/** The store options for one configuration, for this process and (as JSON over a pipe) for the archiver. */
export function storeOptions(
  storage: StorageConfig,
  current: () => StoreCredentials | null = () => null,
): OpenStoreOptions {
  if (storage.kind === "directory") {
    return {
      kind: "directory",
      directory: storage.directory,
      keyPrefix: storage.keyPrefix,
    };
  }
  const { accessKey, secretKey, sessionToken } = storage;
  return {
    kind: "s3",
    bucket: storage.bucket,
    endpoint: storage.endpoint,
    region: storage.region,
    credentials: () => current() ?? { accessKey, secretKey, sessionToken },
    forcePathStyle: storage.forcePathStyle,
    caFile: storage.caFile,
    keyPrefix: storage.keyPrefix,
  };
}

/** `POST /config`'s check of key and store before anything is kept. */
export async function probeConfiguredStore(
  config: Config,
  options: { readonly clock: Clock; readonly random: Random },
): Promise<void> {
  await configuredKey(config.checkpoint.encryptionKeyFile);
  const store = openStore(storeOptions(config.storage), options);
  try {
    await probeStore(store, {
      ...options,
      large: hasDatabases(config),
      signal: AbortSignal.timeout(OPEN_TIMEOUT_MS),
    });
  } finally {
    await store.close();
  }
}

/** The files roots that `stacks` names, with what inside them is never read nor deleted. */
export function filesRoots(config: Config, dir: DataDir): FilesRoot[] {
  const all = config.stacks.includes("files");
  const own = [
    dir.path,
    ...(config.storage.kind === "directory" ? [config.storage.directory] : []),
    // Replicated commit by commit instead, and brought back by themselves.
    ...Object.values(databasesOf(config)).flatMap(({ path, pattern }) => pattern === null ? [path] : []),
  ];
  return Object.entries(config.files)
    .filter(([name]) => all || config.stacks.includes(name))
    .map(([name, files]) => ({
      name,
      path: files.path,
      excludePaths: own.filter((path) => path === files.path || path.startsWith(files.path + "/")),
      exclude: [...files.exclude, ...replicatedIn(files.path, config)],
      excludeCaches: files.excludeCaches,
      includeDatabases: files.includeDatabases,
    }));
}

/** Of a database folder inside a files root: what its pattern means, and what SQLite keeps beside it. */
function replicatedIn(root: string, config: Config): string[] {
  return Object.values(databasesOf(config)).flatMap(({ path, pattern }) => {
    const isInside = path === root || path.startsWith(`${root}/`);
    if (pattern === null || !isInside) return [];
    return ["", "-wal", "-shm", "-journal"].map((suffix) => `${path.slice(root.length)}/${pattern}${suffix}`);
  });
}

/** The databases that `stacks` names. */
export function databasesOf({ databases, stacks }: Config): Config["databases"] {
  const all = stacks.includes("databases");
  return Object.fromEntries(Object.entries(databases).filter(([name]) => all || stacks.includes(name)));
}

/** Their larger files are uploads in parts: there, too, the store must keep its conditions. */
export function hasDatabases(config: Config): boolean {
  return Object.keys(databasesOf(config)).length > 0;
}

/** Runs `attempt` until it succeeds, fails for good, or `lease.wait` is over; each failure is told. */
async function whileUnreachable<T>(
  options: OpeningOptions,
  attempt: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { clock, config, signal, random } = options;
  const { wait } = config.lease;
  const endMs = wait === true ? Infinity : clock.monotonicMs() + (wait === false ? 0 : wait);
  let pauseMs = FIRST_PAUSE_MS;
  while (true) {
    try {
      return await attempt(
        AbortSignal.any([signal, AbortSignal.timeout(OPEN_TIMEOUT_MS)]),
      );
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      const temporary = isError(
        error,
        "store-unreachable",
        "outcome-unknown",
        "store-full",
        "timeout",
        "cancelled",
      ) ||
        (error instanceof DOMException && error.name === "TimeoutError");
      if (!temporary) throw error;
      const message = error instanceof Error ? error.message : String(error);
      if (clock.monotonicMs() + pauseMs > endMs) {
        if (isError(error)) throw error;
        throw new StateManagerError(
          "store-unreachable",
          `open store: ${message}`,
          { cause: error },
        );
      }
      options.onWaiting(`store: ${message}`);
      logger.warn("store out of reach, trying again", {
        error: message,
        pause_ms: Math.round(pauseMs),
      });
      await clock.sleep(pauseMs * (0.5 + random.float() / 2), { signal });
      pauseMs = Math.min(LONGEST_PAUSE_MS, pauseMs * 2);
    }
  }
}

function leaseFor(
  options: OpeningOptions,
  plain: ObjectStore,
  head: Head | null,
): Lease {
  const { config, clock, random } = options;
  const tokenFloor = head?.epoch ?? 0;
  if (config.lease.mode === "none") {
    logger.warn(NO_LEASE_WARNING);
    return fixedLease({
      highestToken: tokenFloor,
      random,
      onEvent: options.onLeaseEvent,
    });
  }
  return new LeaseHolder({
    store: plain,
    clock,
    random,
    ttlMs: config.lease.ttlMs,
    renewMs: config.lease.renewMs,
    tokenFloor,
    memory: options.leaseMemory,
    handOver: {
      answer: config.lease.handOver === "on_request",
      get ask() {
        return mayAsk(options);
      },
    },
    info: {
      host: options.hostname,
      pid: String(options.pid),
      manager: options.holder,
    },
    onEvent: options.onLeaseEvent,
  });
}

/**
 * One that has yielded does not ask back by itself: two replicas that were started by mistake would go on for ever. Nor
 * after a restart, which may be a platform's. A person asks for it by `acquire-lease`.
 */
function mayAsk({ config, yielded }: OpeningOptions): boolean {
  return config.lease.handOver === "on_request" && !yielded();
}

/** Takes the head over, in the order of start_rules.ts: from then on every earlier holder is fenced. */
async function takeOver(
  options: Pick<Opened, "store" | "repo" | "lease" | "lineage" | "roots"> & {
    readonly config: Config;
    readonly cipher: Cipher;
    readonly token: number;
    readonly writer: string;
  },
): Promise<HeadSession> {
  const { store, repo, cipher, lease, lineage, roots, token, writer } = options;
  const head = new HeadSession(store, {
    repo,
    cipher,
    token,
    writer,
    assertHeld: async () => {
      await lease.confirmHeld();
      lease.assertHeld();
    },
  });
  await runTerm("open", termFacts(options, token, null), {
    ...rootSteps(roots),
    "write-marker": ({ change }) => lineage.apply(change),
    "read-head": async () => ({ head: await head.look() }),
    "take-over-head": async () => {
      await head.takeOver();
      return { head: head.head, previous: head.previous };
    },
  });
  return head;
}

function databasesFor(
  options: OpeningOptions,
  { settings, store, repo, lease, head, lineage }:
    & Pick<Opened, "store" | "repo" | "lease" | "head" | "lineage">
    & { readonly settings: OpenStoreOptions },
): Databases {
  const { config, clock, dir, guard } = options;
  const watchChild = childWatches({ name: "follower", runId: guard.runId, units: guard.units });
  const databases = databasesOf(config);
  const layout = layoutOf(settings);
  const children = new DatabaseChildren({
    store: settings,
    clock,
    watchChild: childWatches({ name: "database", runId: guard.runId, units: guard.units }),
    onRestore: (step) =>
      options.onWork?.(
        "database-restore",
        typeof step === "string" ? step : { ...step, entries: step.files },
      ),
  });
  const files = new DatabaseFiles({ head, clock });
  return new Databases({
    config: databases,
    files,
    start: new DatabaseStart({
      config: databases,
      restore: config.restore,
      repo,
      token: head.token,
      recorded: (name) => files.recorded(name),
      previousEpoch: () => head.previous?.epoch ?? null,
      lineage,
      dir,
      store,
      layout,
      children,
      clock,
      assertHeld: async () => {
        await lease.confirmHeld();
        lease.assertHeld();
      },
      record: options.record,
    }),
    record: options.record,
    children,
    layout,
    scratchFolder: `${dir.scratch}/databases`,
    store: settings,
    token: head.token,
    dataFolder: dir.path,
    clock,
    watchChild,
    fenceAtMs: config.lease.mode === "none" ? () => Number.MAX_SAFE_INTEGER : options.fenceAtMs,
    kept: () => {
      const { checkpoints, intent } = head.head;
      return intent === null ? checkpoints : [...checkpoints, { databases: intent.databases ?? {} }];
    },
    onFenced: options.onDatabasesFenced,
  });
}

function warnOfClock(store: ObjectStore, clock: Clock): void {
  const aheadMs = clock.wallMs() - (store.clockMs() ?? clock.wallMs());
  if (Math.abs(aheadMs) < WARNED_SKEW_MS) return;
  logger.warn(
    "this machine's clock is not the store's: checkpoints and commits bear wrong times; set it (NTP)",
    {
      ahead_seconds: Math.round(aheadMs / 1000),
    },
  );
}

/** Opens everything; on failure all that was opened is closed and the lease, if taken, given back. */
export async function openSession(options: OpeningOptions): Promise<Opened> {
  const { config, dir, clock, random, signal } = options;
  const stack = new AsyncDisposableStack();
  try {
    const lineage = new LineageFile(dir.lineage);
    if (await lineage.load()) {
      logger.warn(
        "lineage marker damaged: local data counts as of unknown origin",
        { path: dir.lineage },
      );
    }
    await runTerm("repair", { ...NO_FACTS, marker: lineage.marker }, repairSteps(dir.swapJournal, lineage));
    await repairDatabases({ dir, lineage });
    const settings = storeOptions(config.storage, options.credentials);
    const store = openStore(settings, { clock, random });
    stack.defer(() => store.close());
    options.onStore(store.description);
    // The lease does its own read-back and needs to see every single outcome: no retries below it.
    const plain = openStore(settings, { clock, random, plain: true });
    stack.defer(() => plain.close());

    const key = await configuredKey(config.checkpoint.encryptionKeyFile);
    const { repo, cipher, head: seen } = await whileUnreachable(
      options,
      async (attempt) => {
        await probeStore(store, { clock, random, large: hasDatabases(config), signal: attempt });
        const repo = await openRepository(store, {
          name: config.name,
          random,
          key,
          signal: attempt,
        });
        const cipher = await repositoryCipher(repo, key, random);
        return { repo, cipher, head: await readHead(store, { cipher, signal: attempt }) };
      },
    );

    warnOfClock(store, clock);
    const lease = leaseFor(options, plain, seen?.head ?? null);
    options.onLease(() => lease.status);
    stack.use(lease);
    const term = await lease.acquire({ wait: config.lease.wait, signal });
    // Only while opening: an open session releases by itself, in its place in the order of the stop.
    let isOpen = false;
    stack.defer(async () => {
      if (!isOpen) await lease.release({ timeoutMs: RELEASE_AFTER_FAILURE_MS }).catch(() => {});
    });

    const roots = filesRoots(config, dir);
    const head = await takeOver({
      config,
      store,
      repo,
      cipher,
      lease,
      lineage,
      roots,
      token: term.token,
      writer: `${options.holder}.${term.token}`,
    });

    const { compression, uploadLimit, downloadLimit } = config.checkpoint;
    const archiver = new Archiver({
      compression,
      rates: { upload: uploadLimit, download: downloadLimit },
      store: settings,
      cipher,
      dir,
      clock,
      watchChild: childWatches({ name: "archiver", runId: options.guard.runId, units: options.guard.units }),
      onWork: (operation, step) => {
        const work = WORK_OF[operation];
        if (work !== null) options.onWork?.(work, step);
      },
    });
    stack.defer(() => archiver.close());
    const databases = databasesFor(options, { settings, store, repo, lease, head, lineage });
    stack.defer(() => databases.close());
    const checkpointer = new Checkpointer({
      archiver,
      head,
      lease,
      place: { config, repo, lineage, roots },
      databases: ({ signal }) => databases.positions(signal),
      goneDatabases: (names, { signal }) => databases.gone(names, signal),
      hold: (signal) => options.hold(databases, signal),
      onCaptured: options.onCaptured,
      clock,
      random,
      log: log("checkpoint"),
      onFinished: (result) => {
        databases.renewPins();
        options.onCheckpoint(result);
      },
    });
    const verifier = new Verifier({
      verify: async (request, work) => {
        const before = head.head;
        const result = await archiver.verify({ ...request, head: before }, work);
        const { checkpoint, level, percent } = request;
        return await withDatabases(result, {
          depth: { level, percent },
          records: before.checkpoints.filter(({ id }) => checkpoint === null || id === checkpoint),
          verify: (request) => databases.verify(request, work),
          listed: () => Promise.resolve(new Set(head.head.checkpoints.map(({ id }) => id))),
        });
      },
      head: () => head.head,
      settings: config.checkpoint.verify,
      clock,
      record: options.record,
    });
    stack.defer(() => verifier.stop());
    const pruner = new Pruner({
      archiver,
      store,
      head,
      lease,
      checkpointer,
      keep: config.checkpoint.keep,
      graceMs: GC_GRACE_MS,
      clock,
      log: log("prune"),
      onChanged: () => databases.renewPins(),
      onFinished: options.onPruned,
    });
    const repairer = new Repairer({
      archiver,
      head,
      lease,
      checkpointer,
      scansFolder: `${dir.cache}/${SCANS_FOLDER}`,
      record: options.record,
    });
    const meter = new StorageMeter({ store, clock, record: options.record });
    stack.defer(() => meter.stop());
    isOpen = true;
    const opened = stack.move();
    return {
      store,
      repo,
      lease,
      term,
      head,
      archiver,
      checkpointer,
      pruner,
      repairer,
      databases,
      verifier,
      browser: new Browser({ archiver, head: () => head.head }),
      meter,
      lineage,
      roots,
      warnings: config.lease.mode === "none" ? [NO_LEASE_WARNING] : [],
      close: () => opened.disposeAsync(),
    };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

const RELEASE_AFTER_FAILURE_MS = 2000;
/** As it is called where somebody hears of its progress; null: short. */
const WORK_OF = {
  create: "checkpoint",
  stage: "restore",
  verify: "verify",
  repair: "repair",
  collect: "prune",
  sweep: "prune",
  plan: null,
  compose: null,
  files: null,
  diff: null,
} as const satisfies Record<string, WorkName | null>;
