/** The effective configuration: parsed, defaults applied, units resolved. The keys are the contract's in camelCase. */

import type { Secret } from "../platform/secret.ts";
import type { CronSpec } from "../platform/cron.ts";
import type { LogLevel } from "../platform/log.ts";
import type { ForwardedSignals } from "../platform/signals.ts";

export interface Config {
  /** Name of the repository: `name`, else the last part of the prefix, else "default". */
  readonly name: string;
  readonly storage: StorageConfig;
  /** Order of start; resolved: every name is known. */
  readonly stacks: readonly string[];
  readonly processes: Readonly<Record<string, ProcessConfig>>;
  readonly files: Readonly<Record<string, FilesConfig>>;
  readonly databases: Readonly<Record<string, DatabaseConfig>>;
  readonly checkpoint: CheckpointConfig;
  readonly restore: RestoreConfig;
  readonly lease: LeaseConfig;
  readonly catalog: { readonly path: string | null };
  readonly server: ServerConfig;
  readonly shutdown: {
    readonly budgetMs: number;
    readonly flushReserveMs: number;
    /** What the operator says that the platform grants; null: nothing. */
    readonly platformGraceMs: number | null;
    /** They stop the manager besides SIGTERM, SIGINT and SIGQUIT. */
    readonly signals: readonly Deno.Signal[];
  };
  readonly log: { readonly format: "text" | "json" | "auto"; readonly level: LogLevel };
}

export type StorageConfig =
  & { readonly keyPrefix: string; readonly envDir: string | null }
  & (
    | { readonly kind: "directory"; readonly directory: string }
    | {
      readonly kind: "s3";
      readonly bucket: string;
      readonly endpoint: string;
      readonly region: string;
      readonly accessKey: Secret;
      readonly secretKey: Secret;
      readonly sessionToken: Secret | null;
      readonly forcePathStyle: boolean;
      /** PEM file with extra roots. */
      readonly caFile: string | null;
    }
  );

export interface ProcessConfig {
  /** argv; `shell: true` is already resolved. */
  readonly command: readonly string[];
  readonly cwd: string | null;
  readonly env: Readonly<Record<string, string>>;
  /** Files of variables, read at each start, under `env`. */
  readonly envFiles: readonly string[];
  readonly execution: {
    readonly user: string | null;
    readonly group: string | null;
    readonly umask: number | null;
    readonly nice: number | null;
    /** null: unlimited. */
    readonly limits: Readonly<Record<string, number | null>>;
  };
  /** Names of the manager's variables that this process gets; AWS_* and STATE_MANAGER_* only by naming them here. */
  readonly envFrom: readonly string[];
  /** Null: none. */
  readonly schedule: CronSpec | null;
  /** Null: none. */
  readonly watch: {
    readonly paths: readonly string[];
    /** Patterns of names, at any depth. */
    readonly exclude: readonly string[];
    /** Paths that never count: our own folders and the logs. */
    readonly ignore: readonly string[];
  } | null;
  /** Null: none. */
  readonly memoryLimit: {
    readonly warnBytes: number;
    readonly maxBytes: number;
    readonly forMs: number;
  } | null;
  readonly dependsOn: Readonly<Record<string, "started" | "ready" | "completed" | "succeeded">>;
  /** Those of `dependsOn` that it restarts with. */
  readonly restartWith: readonly string[];
  readonly restart: "always" | "on-failure" | "no";
  readonly restartDelayMs: number;
  readonly restartMaxDelayMs: number;
  readonly startLimit: {
    readonly burst: number;
    readonly intervalMs: number;
    /** Null: none, it is failed. */
    readonly rearmMs: number | null;
  };
  readonly timeoutStopMs: number;
  readonly stopSignal: Deno.Signal;
  readonly stopMode: "group" | "mixed";
  /** argv; null: none. */
  readonly stopCommand: readonly string[] | null;
  readonly finishCommand: readonly string[] | null;
  /** Exit codes and names of signals. */
  readonly successExit: readonly (number | Deno.Signal)[];
  readonly noRestartOn: readonly (number | Deno.Signal)[];
  readonly essential: boolean;
  readonly probes: ProbesConfig;
  /** Time to become ready; null: no limit. */
  readonly timeoutStartMs: number | null;
  readonly forwardSignals: ForwardedSignals;
  readonly reloadSignal: Deno.Signal | null;
  readonly logs: LogsConfig;
  /** It owns our stdin, stdout, stderr and terminal. */
  readonly interactive: boolean;
}

export interface LogsConfig {
  /** null: no file. */
  readonly path: string | null;
  /** Infinity: never rotated. */
  readonly maxSizeBytes: number;
  /** In all, the one that is written among them. */
  readonly maxFiles: number;
  /** Of files that are rotated away. */
  readonly compression: "none" | "zstd";
  readonly policy: "block" | "drop";
  readonly rateLimit: { readonly linesPerSecond: number; readonly burst: number } | null;
  readonly passThrough: boolean;
  /** null: as the command wants it. */
  readonly format: "plain" | "prefix" | "json" | null;
}

/** null: none. */
export interface ProbesConfig {
  readonly startup: ProbeConfig | null;
  readonly readiness: ProbeConfig | null;
  readonly liveness: ProbeConfig | null;
}

export interface ProbeConfig {
  readonly check: ProbeCheckConfig;
  readonly initialDelayMs: number;
  readonly periodMs: number;
  readonly timeoutMs: number;
  readonly failureThreshold: number;
  readonly successThreshold: number;
}

export type ProbeCheckConfig =
  | {
    readonly kind: "http";
    readonly host: string;
    readonly port: number;
    readonly path: string;
    readonly headers: Readonly<Record<string, string>>;
  }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "exec"; readonly command: readonly string[] }
  /** A line that holds these, one after the other. */
  | { readonly kind: "log"; readonly pieces: readonly string[] }
  | { readonly kind: "notify"; readonly watchdogMs: number | null; readonly socket: boolean };

export interface FilesConfig {
  readonly path: string;
  readonly exclude: readonly string[];
  readonly excludeCaches: boolean;
  readonly includeDatabases: boolean;
}

export interface DatabaseConfig {
  /** The file; with a pattern the folder of the files. */
  readonly path: string;
  /** Null: one file. Else the files of the folder that this glob means (platform/name_pattern.ts), each by itself. */
  readonly pattern: string | null;
  readonly syncIntervalMs: number;
  readonly snapshotIntervalMs: number;
  readonly retentionMs: number;
  /** 0: none. */
  readonly drillIntervalMs: number;
  readonly journal: "follow" | "convert" | "snapshot";
  /** Of a restored file; null: as recorded. */
  readonly owner: { readonly uid: number; readonly gid: number | null } | null;
  readonly mode: number | null;
}

export interface CheckpointConfig {
  /** 0: none by time. */
  readonly intervalMs: number;
  /** Instead of the interval; null: none. */
  readonly schedule: CronSpec | null;
  readonly onStop: boolean;
  readonly consistency: "live" | "freeze" | "hooks";
  readonly captureLimitMs: number;
  /** argv, for "hooks"; null: none. */
  readonly before: readonly string[] | null;
  readonly after: readonly string[] | null;
  readonly hookTimeoutMs: number;
  readonly verify: VerifyConfig;
  readonly keep: KeepConfig;
  /** How strongly files are compressed (src/checkpoint/compression.ts). */
  readonly compression: "auto" | "fast" | "max" | "off";
  /** Bytes per second; 0: no limit. */
  readonly uploadLimit: number;
  readonly downloadLimit: number;
  /** File with the key that the repository is encrypted by; null: it is not encrypted. */
  readonly encryptionKeyFile: string | null;
}

export interface VerifyConfig {
  /** 0: none by schedule. */
  readonly intervalMs: number;
  /** Of the packs that each run reads; 0: their footers alone. */
  readonly percent: number;
}

/** Which checkpoints stay (src/checkpoint/keep_rules.ts). */
export interface KeepConfig {
  readonly last: number;
  readonly hourly: number;
  readonly daily: number;
  readonly weekly: number;
  readonly monthly: number;
  /** 0: no rule. */
  readonly withinMs: number;
  /** `name` or `name=value`. */
  readonly labels: readonly string[];
}

export interface RestoreConfig {
  /** "latest", "none", a checkpoint id or ordinal, or an RFC 3339 time. */
  readonly onStart: string;
  readonly onConflict: "refuse" | "bucket" | "local";
  readonly orphans: "stop" | "keep";
}

export interface LeaseConfig {
  readonly mode: "required" | "none";
  readonly ttlMs: number;
  readonly renewMs: number;
  /** true: wait for ever; false: give up at once (exit 75); a number: milliseconds. */
  readonly wait: boolean | number;
  readonly onUnreachable: "freeze" | "stop";
  readonly handOver: "on_request" | "never";
  readonly standbyReady: boolean;
}

export interface TokenConfig {
  readonly name: string;
  readonly scope: "read" | "write";
  /** Lower-case hex SHA-256 of the token; the token itself is never kept. */
  readonly sha256: string;
}

export interface ServerConfig {
  readonly listen: { readonly hostname: string; readonly port: number };
  /** Path of the unix socket; null: in the data dir. */
  readonly socket: string | null;
  readonly tokens: readonly TokenConfig[];
  readonly tls: { readonly certFile: string; readonly keyFile: string } | null;
  readonly behindTlsProxy: boolean;
}
