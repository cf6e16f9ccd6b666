/** Flags of the command line as one more layer of the configuration: the topmost. */

import { StateManagerError } from "../platform/errors.ts";
import { normalizePath } from "./schema_values.ts";
import type { KeyPath } from "./problems.ts";

/** `--files data=/srv/data`; without a name it is the path's last part. */
export interface NamedPath {
  readonly name?: string;
  readonly path: string;
}

/** The options of `run` and of the bare server, as texts: they are checked like everything else. */
export interface ConfigFlags {
  readonly directory?: string;
  readonly bucket?: string;
  readonly endpoint?: string;
  readonly region?: string;
  readonly prefix?: string;
  readonly encryptionKeyFile?: string;
  readonly files?: readonly NamedPath[];
  readonly database?: readonly NamedPath[];
  readonly checkpointInterval?: string;
  readonly restore?: string;
  readonly onConflict?: string;
  /** false: `--no-lease-wait`. */
  readonly leaseWait?: boolean;
  readonly leaseTtl?: string;
  readonly listen?: string;
  readonly dataDir?: string;
  /** For `run`; its default there is "no". */
  readonly restart?: string;
  /** For `run`: the command has our standard input, output and terminal. */
  readonly interactive?: boolean;
  readonly timeoutStop?: string;
  readonly shutdownBudget?: string;
  /** The configuration file. */
  readonly config?: string;
  /** What follows `--`; it makes the one process of `run`. */
  readonly command?: readonly string[];
}

/** One key that a flag or variable sets. */
export interface Setting {
  readonly path: KeyPath;
  readonly value: unknown;
  /** `--bucket`, `STATE_MANAGER_STORAGE_BUCKET`. */
  readonly source: string;
}

/** A name from a path or a program: its last part without extension, what a name may not hold as "-". */
export function nameFromPath(path: string): string {
  const last = path.replace(/\/+$/, "").split("/").at(-1) ?? "";
  const stem = last.replace(/(?!^)\.[^.]*$/, "");
  return stem.replace(/[^A-Za-z0-9_-]/g, "-").replace(/^[-_]+/, "").slice(0, 63) || "data";
}

function absolute(path: string, folder: string): string {
  return normalizePath(path.startsWith("/") ? path : `${folder}/${path}`);
}

function namedPaths(
  list: readonly NamedPath[],
  flag: string,
  folder: string,
): Record<string, { path: string }> {
  const named = new Map<string, { path: string }>();
  for (const { name: given, path } of list) {
    const name = given ?? nameFromPath(path);
    if (named.has(name)) {
      throw new StateManagerError(
        "usage",
        `read ${flag}: got the name "${name}" twice, wanted different names`,
        {
          hint: `name each one: ${flag} NAME=PATH`,
        },
      );
    }
    named.set(name, { path: absolute(path, folder) });
  }
  return Object.fromEntries(named);
}

/** HUP, USR1 and USR2 are the program's business when it is the only one. */
const PASSED_ON = ["SIGHUP", "SIGUSR1", "SIGUSR2"];

/** What the flags set. `folder` is what relative paths start from. Error: `usage` for two equal names. */
export function flagSettings(flags: ConfigFlags, folder: string): Setting[] {
  const settings: Setting[] = [];
  const set = (source: string, path: string, value: unknown) => {
    if (value !== undefined) settings.push({ source, path: path.split("."), value });
  };
  set("--directory", "storage.directory", flags.directory && absolute(flags.directory, folder));
  set("--bucket", "storage.bucket", flags.bucket);
  set("--endpoint", "storage.endpoint", flags.endpoint);
  set("--region", "storage.region", flags.region);
  set("--prefix", "storage.key_prefix", flags.prefix);
  const keyFile = flags.encryptionKeyFile && absolute(flags.encryptionKeyFile, folder);
  set("--encryption-key-file", "checkpoint.encryption_key_file", keyFile);
  if (flags.files?.length) set("--files", "files", namedPaths(flags.files, "--files", folder));
  if (flags.database?.length) {
    set("--database", "databases", namedPaths(flags.database, "--database", folder));
  }
  set("--checkpoint-interval", "checkpoint.interval", flags.checkpointInterval);
  set("--restore", "restore.on_start", flags.restore);
  set("--on-conflict", "restore.on_conflict", flags.onConflict);
  set("--no-lease-wait", "lease.wait", flags.leaseWait);
  set("--lease-ttl", "lease.ttl", flags.leaseTtl);
  set("--listen", "server.listen", flags.listen);
  set("--timeout-stop", "supervisor.timeout_stop", flags.timeoutStop);
  set("--shutdown-budget", "shutdown.budget", flags.shutdownBudget);
  const [program] = flags.command ?? [];
  if (flags.command !== undefined && program !== undefined) {
    const process = {
      command: [...flags.command],
      restart: flags.restart ?? "no",
      essential: true,
      forward_signals: PASSED_ON,
      interactive: flags.interactive ?? false,
    };
    set("COMMAND", "processes", { [nameFromPath(program)]: process });
  }
  return settings;
}
