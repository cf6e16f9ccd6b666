/** From checked values to the configuration in force: defaults, in one place, and what one key means for another. */

import type { HostPlatform } from "../platform/host_platform.ts";
import { Secret } from "../platform/secret.ts";
import { backoffSpanMs } from "./backoff.ts";
import { checkTogether } from "./checks.ts";
import { parseListen } from "./listen.ts";
import type { Problem } from "./problems.ts";
import type { ParsedConfig } from "./schema.ts";
import type { ParsedLogs } from "./schema_logs.ts";
import { probesOf, timeoutStartOf } from "./probes.ts";
import type { ParsedProcess } from "./schema_process.ts";
import { resolveStacks } from "./stacks.ts";
import type {
  Config,
  DatabaseConfig,
  FilesConfig,
  KeepConfig,
  LeaseConfig,
  LogsConfig,
  ProcessConfig,
  ServerConfig,
  StorageConfig,
  TokenConfig,
} from "./types.ts";

/** Docker kills after 10 s; one second of that is the kernel's and the runtime's. */
const SHUTDOWN_BUDGET_MS = 9000;
const LAST_SECOND_MS = 1000;
const LEAST_BUDGET_MS = 1000;
const FLUSH_RESERVE_MS = 3000;
const TIMEOUT_STOP_MS = 90_000;
const RESTART_DELAY_MS = 1000;
const RESTART_MAX_DELAY_MS = 30_000;
const START_LIMIT = { burst: 10, intervalMs: 300_000 };
/** What editors and version control write beside the files that somebody changed. */
const WATCH_EXCLUDE = [".git", ".hg", ".*.sw?", "*~", ".*~", ".#*", "4913", ".sm-*"];
/** A peak is over sooner, a leak is not. */
const MEMORY_FOR_MS = 15_000;
const MEMORY_WARN_PART = 0.9;
/** A program that stands still longer than this is missed: clients give up. */
const CAPTURE_LIMIT_MS = 5000;
const HOOK_TIMEOUT_MS = 30_000;
const CHECKPOINT_INTERVAL_MS = 300_000;
const KEEP = { last: 10, hourly: 24, daily: 7, weekly: 5, monthly: 6 };
/** Litestream's. */
const SYNC_INTERVAL_MS = 1000;
const DAY_MS = 86_400_000;
/** Of all packs each day: every one is read in fifty days, at the price of so many downloads. */
const VERIFY_PERCENT = 2;
/** A week of a quiet program, fifty megabytes of any. */
const LOG_FILES = { maxSizeBytes: 10 * 1024 * 1024, maxFiles: 5 };
const LEASE_TTL_MS = 30_000;
const LEASE_RENEW_MS = 8000;
const DEFAULT_REGION = "us-east-1";
const DEFAULT_LISTEN = "127.0.0.1:8080";

/** What the configuration says besides the file's keys. */
export interface Surroundings {
  readonly dataDir: string;
  /** The tokens, their files already read. */
  readonly tokens: readonly TokenConfig[];
  /** Who will stop the manager; null: not known. */
  readonly platform: HostPlatform | null;
}

export interface Effective {
  /** Null when no storage is given, or something is wrong. */
  readonly config: Config | null;
  /** Needed by an unconfigured manager too. */
  readonly server: ServerConfig;
  readonly log: Config["log"];
  readonly problems: Problem[];
  readonly warnings: string[];
}

function definedOf<T>(map: Readonly<Record<string, T | undefined>>): Record<string, T> {
  const entries = Object.entries(map).filter((entry): entry is [string, T] => entry[1] !== undefined);
  return Object.fromEntries(entries);
}

function memoryLimitOf(parsed: ParsedProcess["memory_limit"]): ProcessConfig["memoryLimit"] {
  if (parsed === undefined || parsed.max === 0) return null;
  const { max, warn, for: forMs = MEMORY_FOR_MS } = parsed;
  return { maxBytes: max, warnBytes: warn ?? Math.floor(max * MEMORY_WARN_PART), forMs };
}

function processOf(
  parsed: ParsedProcess,
  all: ParsedConfig,
  { lone, ownPaths }: { readonly lone: boolean; readonly ownPaths: readonly string[] },
): ProcessConfig {
  // What starts for a reason of its own is not started again when it ended, and its failure is not the end of all.
  const hasCause = parsed.schedule !== undefined || parsed.watch !== undefined;
  const restartDelayMs = parsed.restart_delay ?? all.supervisor?.restart_delay ?? RESTART_DELAY_MS;
  const restartMaxDelayMs = parsed.restart_max_delay ?? Math.max(RESTART_MAX_DELAY_MS, restartDelayMs);
  const burst = parsed.start_limit?.burst ?? START_LIMIT.burst;
  // A default that could never be reached with these delays would be no limit: it grows with them.
  const span = backoffSpanMs(restartDelayMs, restartMaxDelayMs, burst);
  const intervalMs = parsed.start_limit?.interval ?? Math.max(START_LIMIT.intervalMs, Math.ceil(1.5 * span));
  const { command } = parsed;
  const probes = probesOf(parsed.probes);
  return {
    command: typeof command === "string" ? ["/bin/sh", "-c", command] : command,
    cwd: parsed.cwd ?? null,
    env: parsed.env ?? {},
    envFiles: parsed.env_file ?? [],
    execution: {
      user: parsed.user ?? null,
      group: parsed.group ?? null,
      umask: parsed.umask ?? null,
      nice: parsed.nice ?? null,
      limits: definedOf(parsed.limits ?? {}),
    },
    envFrom: parsed.env_from ?? [],
    schedule: parsed.schedule ?? null,
    watch: parsed.watch === undefined ? null : {
      paths: parsed.watch.paths,
      exclude: [...WATCH_EXCLUDE, ...(parsed.watch.exclude ?? [])],
      ignore: ownPaths,
    },
    memoryLimit: memoryLimitOf(parsed.memory_limit),
    ...dependenciesOf(parsed.depends_on ?? {}),
    restart: parsed.restart ?? (hasCause ? "no" : "always"),
    restartDelayMs,
    restartMaxDelayMs,
    startLimit: { burst, intervalMs, rearmMs: parsed.start_limit?.rearm ?? null },
    timeoutStopMs: parsed.timeout_stop ?? all.supervisor?.timeout_stop ?? TIMEOUT_STOP_MS,
    stopSignal: parsed.stop_signal ?? "SIGTERM",
    stopMode: parsed.stop_mode ?? "group",
    stopCommand: hookOf(parsed.stop_command),
    finishCommand: hookOf(parsed.finish_command),
    successExit: parsed.success_exit ?? [],
    noRestartOn: parsed.no_restart_on ?? [],
    essential: parsed.essential ??
      (lone && (!hasCause || parsed.restart === "always")),
    probes,
    timeoutStartMs: timeoutStartOf(parsed.timeout_start, probes),
    forwardSignals: parsed.forward_signals ?? {},
    reloadSignal: parsed.reload_signal ?? null,
    logs: logsOf(parsed.logs ?? {}),
    interactive: parsed.interactive ?? false,
  };
}

function dependenciesOf(
  parsed: NonNullable<ParsedProcess["depends_on"]>,
): Pick<ProcessConfig, "dependsOn" | "restartWith"> {
  const entries = Object.entries(parsed);
  return {
    dependsOn: Object.fromEntries(entries.map(([name, { condition }]) => [name, condition])),
    restartWith: entries.flatMap(([name, { restart_with: together }]) => together === true ? [name] : []),
  };
}

function logsOf(parsed: ParsedLogs): LogsConfig {
  const { path = null, max_size: size = LOG_FILES.maxSizeBytes, rate_limit: rate } = parsed;
  return {
    path,
    maxSizeBytes: size === 0 ? Infinity : size,
    maxFiles: parsed.max_files ?? LOG_FILES.maxFiles,
    compression: parsed.compression ?? "none",
    policy: parsed.policy ?? "block",
    rateLimit: rate === undefined
      ? null
      : { linesPerSecond: rate.lines_per_second, burst: rate.burst ?? 10 * rate.lines_per_second },
    passThrough: parsed.pass_through ?? path === null,
    format: parsed.format ?? null,
  };
}

function processesOf(parsed: ParsedConfig, dataDir: string): Record<string, ProcessConfig> {
  const entries = Object.entries(parsed.processes ?? {});
  const written = [parsed.storage?.directory, ...entries.map(([, { logs }]) => logs?.path)];
  const ownPaths = [dataDir, ...written.filter((path) => path !== undefined)];
  const context = { lone: entries.length === 1, ownPaths };
  return Object.fromEntries(entries.map(([name, process]) => [name, processOf(process, parsed, context)]));
}

function filesOf(parsed: ParsedConfig): Record<string, FilesConfig> {
  return Object.fromEntries(
    Object.entries(parsed.files ?? {}).map(([name, files]) => [name, {
      path: files.path,
      exclude: files.exclude ?? [],
      excludeCaches: files.exclude_caches ?? false,
      includeDatabases: files.include_databases ?? true,
    }]),
  );
}

function databasesOf(parsed: ParsedConfig): Record<string, DatabaseConfig> {
  return Object.fromEntries(
    Object.entries(parsed.databases ?? {}).map(([name, database]) => [name, {
      path: database.path,
      pattern: database.pattern ?? null,
      syncIntervalMs: database.sync_interval ?? SYNC_INTERVAL_MS,
      snapshotIntervalMs: database.snapshot_interval ?? DAY_MS,
      retentionMs: database.retention ?? DAY_MS,
      drillIntervalMs: database.drill_interval ?? DAY_MS,
      journal: database.journal ?? "follow",
      owner: database.owner ?? null,
      mode: database.mode ?? null,
    }]),
  );
}

/** Null: no storage is given. Missing credentials are a problem, each by its own key. */
function storageOf(parsed: ParsedConfig, problems: Problem[]): StorageConfig | null {
  const storage = parsed.storage ?? {};
  const common = { keyPrefix: storage.key_prefix ?? "", envDir: storage.env_dir ?? null };
  if (storage.directory !== undefined) {
    if (storage.bucket !== undefined) {
      problems.push({
        at: ["storage", "directory"],
        detail: "got both directory and bucket, wanted one of them",
      });
    }
    return { ...common, kind: "directory", directory: storage.directory };
  }
  if (storage.bucket === undefined) {
    if (storage.endpoint !== undefined || storage.key_prefix !== undefined) {
      problems.push({ at: ["storage"], detail: "got neither bucket nor directory, wanted one of them" });
    }
    return null;
  }
  const wantSecret = (key: "access_key" | "secret_key", variable: string): Secret => {
    const secret = storage[key];
    if (secret === undefined) {
      problems.push({
        at: ["storage", key],
        detail: `got nothing, wanted it here, in ${variable} or in env_dir`,
      });
    }
    return secret ?? new Secret("");
  };
  const region = storage.region ?? DEFAULT_REGION;
  return {
    ...common,
    kind: "s3",
    bucket: storage.bucket,
    endpoint: storage.endpoint ?? `https://s3.${region}.amazonaws.com`,
    region,
    accessKey: wantSecret("access_key", "AWS_ACCESS_KEY_ID"),
    secretKey: wantSecret("secret_key", "AWS_SECRET_ACCESS_KEY"),
    sessionToken: storage.session_token ?? null,
    forcePathStyle: storage.force_path_style ?? true,
    caFile: storage.ca_file ?? null,
  };
}

function leaseOf(parsed: ParsedConfig): LeaseConfig {
  const lease = parsed.lease ?? {};
  const ttlMs = lease.ttl ?? LEASE_TTL_MS;
  return {
    mode: lease.mode ?? "required",
    ttlMs,
    // A shorter TTL alone must still leave room for two tries.
    renewMs: lease.renew ?? Math.min(LEASE_RENEW_MS, Math.round(ttlMs * LEASE_RENEW_MS / LEASE_TTL_MS)),
    wait: lease.wait ?? true,
    onUnreachable: lease.on_unreachable ?? "freeze",
    handOver: lease.hand_over ?? "on_request",
    standbyReady: lease.standby_ready ?? false,
  };
}

function serverOf(parsed: ParsedConfig, tokens: readonly TokenConfig[], problems: Problem[]): ServerConfig {
  const server = parsed.server ?? {};
  const listen = parseListen(server.listen ?? DEFAULT_LISTEN);
  if (listen === null) {
    problems.push({
      at: ["server", "listen"],
      detail: "got what is no address, wanted HOST:PORT, [IPv6]:PORT, :PORT or PORT",
    });
  }
  return {
    listen: listen ?? { hostname: "127.0.0.1", port: 8080 },
    socket: server.socket ?? null,
    tokens,
    tls: server.tls === undefined ? null : { certFile: server.tls.cert, keyFile: server.tls.key },
    behindTlsProxy: server.behind_tls_proxy ?? false,
  };
}

function hookOf(command: string | readonly string[] | undefined): readonly string[] | null {
  if (command === undefined) return null;
  return typeof command === "string" ? ["/bin/sh", "-c", command] : command;
}

function keepOf(parsed: NonNullable<ParsedConfig["checkpoint"]>["keep"]): KeepConfig {
  return {
    last: parsed?.last ?? KEEP.last,
    hourly: parsed?.hourly ?? KEEP.hourly,
    daily: parsed?.daily ?? KEEP.daily,
    weekly: parsed?.weekly ?? KEEP.weekly,
    monthly: parsed?.monthly ?? KEEP.monthly,
    withinMs: parsed?.within ?? 0,
    labels: parsed?.labels ?? [],
  };
}

function shutdownOf(parsed: ParsedConfig): Config["shutdown"] {
  const platformGraceMs = parsed.shutdown?.platform_grace ?? null;
  // A default that the platform was said not to grant would be no default.
  const grantedMs = platformGraceMs === null
    ? Infinity
    : Math.max(platformGraceMs - LAST_SECOND_MS, platformGraceMs / 2, LEAST_BUDGET_MS);
  const budgetMs = parsed.shutdown?.budget ?? Math.min(SHUTDOWN_BUDGET_MS, grantedMs);
  const flushReserveMs = parsed.shutdown?.flush_reserve ??
    Math.min(FLUSH_RESERVE_MS, Math.round(budgetMs / 3));
  return { budgetMs, flushReserveMs, platformGraceMs, signals: parsed.shutdown?.signals ?? [] };
}

/** The configuration in force, or everything that is wrong with it. */
export function effectiveConfig(parsed: ParsedConfig, surroundings: Surroundings): Effective {
  const problems: Problem[] = [];
  const warnings: string[] = [];
  const storage = storageOf(parsed, problems);
  const server = serverOf(parsed, surroundings.tokens, problems);
  const log = { format: parsed.log?.format ?? "auto", level: parsed.log?.level ?? "info" } as const;
  const processes = processesOf(parsed, surroundings.dataDir);
  const files = filesOf(parsed);
  const stacks = resolveStacks(parsed, problems, warnings);
  const prefixName = (storage?.keyPrefix ?? "").split("/").at(-1) ?? "";
  const shaped: Config = {
    name: parsed.name ?? (prefixName === "" ? "default" : prefixName),
    storage: storage ?? { kind: "directory", directory: "/", keyPrefix: "", envDir: null },
    stacks,
    processes,
    files,
    databases: databasesOf(parsed),
    checkpoint: {
      intervalMs: parsed.checkpoint?.interval ??
        (parsed.checkpoint?.schedule === undefined ? CHECKPOINT_INTERVAL_MS : 0),
      schedule: parsed.checkpoint?.schedule ?? null,
      onStop: parsed.checkpoint?.on_stop ?? true,
      consistency: parsed.checkpoint?.consistency ?? "live",
      captureLimitMs: parsed.checkpoint?.capture_limit ?? CAPTURE_LIMIT_MS,
      before: hookOf(parsed.checkpoint?.before),
      after: hookOf(parsed.checkpoint?.after),
      hookTimeoutMs: parsed.checkpoint?.hook_timeout ?? HOOK_TIMEOUT_MS,
      verify: {
        intervalMs: parsed.checkpoint?.verify?.interval ?? DAY_MS,
        percent: parsed.checkpoint?.verify?.percent ?? VERIFY_PERCENT,
      },
      keep: keepOf(parsed.checkpoint?.keep),
      compression: parsed.checkpoint?.compression ?? "auto",
      uploadLimit: parsed.checkpoint?.upload_limit ?? 0,
      downloadLimit: parsed.checkpoint?.download_limit ?? 0,
      encryptionKeyFile: parsed.checkpoint?.encryption_key_file ?? null,
    },
    restore: {
      onStart: parsed.restore?.on_start ?? "latest",
      onConflict: parsed.restore?.on_conflict ?? "refuse",
      orphans: parsed.restore?.orphans ?? "stop",
    },
    lease: leaseOf(parsed),
    catalog: { path: parsed.catalog?.path ?? null },
    server,
    shutdown: shutdownOf(parsed),
    log,
  };
  checkTogether(parsed, shaped, {
    dataDir: surroundings.dataDir,
    platform: surroundings.platform,
    configured: storage !== null,
    problems,
    warnings,
  });
  const config = storage === null || problems.length > 0 ? null : shaped;
  return { config, server, log, problems, warnings };
}
