/** The configuration in force, in the file's names and units, with every secret as "***". What `GET /config` shows. */

import type { CronSpec } from "../platform/cron.ts";
import type { ForwardedSignals } from "../platform/signals.ts";
import { formatDuration } from "./duration.ts";
import { shownProbes } from "./probes.ts";
import { formatSize } from "./size.ts";
import type {
  Config,
  DatabaseConfig,
  KeepConfig,
  LogsConfig,
  ProcessConfig,
  ServerConfig,
  StorageConfig,
} from "./types.ts";

/** Stands for a value that is never shown; it is refused as a value. */
export const REDACTED = "***";

/** Leaves out what is not set, so that the answer reads like a file. */
function present(entries: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(entries).filter(([, value]) => value !== null && value !== undefined),
  );
}

function map<Value>(values: Readonly<Record<string, Value>>, change: (value: Value) => unknown) {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, change(value)]));
}

function storage(config: StorageConfig): Record<string, unknown> {
  const common = { key_prefix: config.keyPrefix, env_dir: config.envDir };
  if (config.kind === "directory") return present({ directory: config.directory, ...common });
  return present({
    bucket: config.bucket,
    endpoint: config.endpoint,
    region: config.region,
    access_key: REDACTED,
    secret_key: REDACTED,
    session_token: config.sessionToken === null ? null : REDACTED,
    force_path_style: config.forcePathStyle,
    ca_file: config.caFile,
    ...common,
  });
}

/** Values of `env` are hidden all: programs get their passwords there. */
function process(config: ProcessConfig): Record<string, unknown> {
  return present({
    command: config.command,
    cwd: config.cwd,
    env: map(config.env, () => REDACTED),
    env_file: config.envFiles,
    env_from: config.envFrom,
    ...execution(config.execution),
    schedule: schedule(config.schedule),
    watch: config.watch === null ? null : { paths: config.watch.paths, exclude: config.watch.exclude },
    memory_limit: memoryLimit(config.memoryLimit),
    depends_on: Object.fromEntries(
      Object.entries(config.dependsOn).map(([name, condition]) => [
        name,
        config.restartWith.includes(name) ? { condition, restart_with: true } : condition,
      ]),
    ),
    restart: config.restart,
    restart_delay: formatDuration(config.restartDelayMs),
    restart_max_delay: formatDuration(config.restartMaxDelayMs),
    start_limit: startLimit(config.startLimit),
    timeout_stop: formatDuration(config.timeoutStopMs),
    stop_signal: config.stopSignal,
    stop_mode: config.stopMode,
    stop_command: config.stopCommand,
    finish_command: config.finishCommand,
    success_exit: config.successExit,
    no_restart_on: config.noRestartOn,
    essential: config.essential,
    probes: shownProbes(config.probes, REDACTED),
    timeout_start: config.timeoutStartMs === null ? null : formatDuration(config.timeoutStartMs),
    forward_signals: forwarded(config.forwardSignals),
    reload_signal: config.reloadSignal,
    logs: logs(config.logs),
    interactive: config.interactive,
  });
}

function execution(config: ProcessConfig["execution"]): Record<string, unknown> {
  const { umask, limits } = config;
  return {
    user: config.user,
    group: config.group,
    umask: umask === null ? null : umask.toString(8).padStart(4, "0"),
    nice: config.nice,
    limits: map(limits, (limit) => limit ?? "unlimited"),
  };
}

function startLimit({ burst, intervalMs, rearmMs }: ProcessConfig["startLimit"]): Record<string, unknown> {
  const rearm = rearmMs === null ? {} : { rearm: formatDuration(rearmMs) };
  return { burst, interval: formatDuration(intervalMs), ...rearm };
}

function memoryLimit(limit: ProcessConfig["memoryLimit"]): Record<string, unknown> | null {
  if (limit === null) return null;
  const { maxBytes, warnBytes, forMs } = limit;
  return { max: formatSize(maxBytes), warn: formatSize(warnBytes), for: formatDuration(forMs) };
}

function shutdown(config: Config["shutdown"]): Record<string, unknown> {
  const { budgetMs, flushReserveMs, platformGraceMs, signals } = config;
  return present({
    budget: formatDuration(budgetMs),
    flush_reserve: formatDuration(flushReserveMs),
    platform_grace: platformGraceMs === null ? null : formatDuration(platformGraceMs),
    signals: signals.length === 0 ? null : signals,
  });
}

/** A list where each is passed on as it is. */
function forwarded(signals: ForwardedSignals): readonly string[] | ForwardedSignals {
  const isPlain = Object.entries(signals).every(([came, sent]) => came === sent);
  return isPlain ? Object.keys(signals) : signals;
}

function schedule(spec: CronSpec | null): Record<string, unknown> | null {
  return spec === null ? null : { cron: spec.cron, time_zone: spec.timeZone };
}

function logs(config: LogsConfig): Record<string, unknown> {
  const { maxSizeBytes, rateLimit } = config;
  return present({
    path: config.path,
    max_size: maxSizeBytes === Infinity ? 0 : formatSize(maxSizeBytes),
    max_files: config.maxFiles,
    compression: config.compression,
    policy: config.policy,
    rate_limit: rateLimit === null
      ? null
      : { lines_per_second: rateLimit.linesPerSecond, burst: rateLimit.burst },
    pass_through: config.passThrough,
    format: config.format,
  });
}

function keep({ withinMs, labels, ...counts }: KeepConfig): Record<string, unknown> {
  return { ...counts, within: formatDuration(withinMs), labels };
}

function database(config: DatabaseConfig): Record<string, unknown> {
  const { owner, mode } = config;
  return present({
    path: config.path,
    pattern: config.pattern,
    sync_interval: formatDuration(config.syncIntervalMs),
    snapshot_interval: formatDuration(config.snapshotIntervalMs),
    retention: formatDuration(config.retentionMs),
    drill_interval: formatDuration(config.drillIntervalMs),
    journal: config.journal,
    owner: owner === null ? null : owner.gid === null ? `${owner.uid}` : `${owner.uid}:${owner.gid}`,
    mode: mode === null ? null : `0${mode.toString(8)}`,
  });
}

function server(config: ServerConfig): Record<string, unknown> {
  const { hostname, port } = config.listen;
  return present({
    listen: `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`,
    socket: config.socket,
    tokens: config.tokens.map(({ name, scope }) => ({ name, scope, hash: REDACTED })),
    tls: config.tls === null ? null : { cert: config.tls.certFile, key: config.tls.keyFile },
    behind_tls_proxy: config.behindTlsProxy,
  });
}

export function redactedConfig(config: Config): Record<string, unknown> {
  const { lease } = config;
  return {
    name: config.name,
    storage: storage(config.storage),
    stacks: config.stacks,
    processes: map(config.processes, process),
    files: map(config.files, (files) => ({
      path: files.path,
      exclude: files.exclude,
      exclude_caches: files.excludeCaches,
      include_databases: files.includeDatabases,
    })),
    databases: map(config.databases, database),
    checkpoint: present({
      interval: formatDuration(config.checkpoint.intervalMs),
      schedule: schedule(config.checkpoint.schedule),
      on_stop: config.checkpoint.onStop,
      consistency: config.checkpoint.consistency,
      capture_limit: formatDuration(config.checkpoint.captureLimitMs),
      before: config.checkpoint.before,
      after: config.checkpoint.after,
      hook_timeout: formatDuration(config.checkpoint.hookTimeoutMs),
      verify: {
        interval: formatDuration(config.checkpoint.verify.intervalMs),
        percent: config.checkpoint.verify.percent,
      },
      keep: keep(config.checkpoint.keep),
      compression: config.checkpoint.compression,
      upload_limit: formatSize(config.checkpoint.uploadLimit),
      download_limit: formatSize(config.checkpoint.downloadLimit),
      encryption_key_file: config.checkpoint.encryptionKeyFile,
    }),
    restore: {
      on_start: config.restore.onStart,
      on_conflict: config.restore.onConflict,
      orphans: config.restore.orphans,
    },
    lease: {
      mode: lease.mode,
      ttl: formatDuration(lease.ttlMs),
      renew: formatDuration(lease.renewMs),
      wait: typeof lease.wait === "number" ? formatDuration(lease.wait) : lease.wait,
      on_unreachable: lease.onUnreachable,
      hand_over: lease.handOver,
      standby_ready: lease.standbyReady,
    },
    catalog: present({ path: config.catalog.path }),
    server: server(config.server),
    shutdown: shutdown(config.shutdown),
    log: { format: config.log.format, level: config.log.level },
  };
}
