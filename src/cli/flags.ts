/** The options of a command as the configuration's topmost layer. */

import type { ConfigFlags, NamedPath } from "../config/mod.ts";
import { type Options, usageError } from "./context.ts";

const TEXT_FLAGS = [
  "directory",
  "bucket",
  "endpoint",
  "region",
  "prefix",
  "encryptionKeyFile",
  "checkpointInterval",
  "restore",
  "onConflict",
  "leaseTtl",
  "listen",
  "dataDir",
  "restart",
  "timeoutStop",
  "shutdownBudget",
  "config",
] as const satisfies readonly (keyof ConfigFlags)[];

/** What was given on the command line and nothing else; the configuration checks the values. */
export function configFlags(options: Options, command: readonly string[] = []): ConfigFlags {
  const texts = TEXT_FLAGS.map((name) => [name, options.text(name)]).filter(([, value]) =>
    value !== undefined
  );
  const files = options.list("files").map((text) => namedPath(text, "--files"));
  const database = options.list("database").map((text) => namedPath(text, "--database"));
  return {
    ...Object.fromEntries(texts),
    ...(files.length === 0 ? {} : { files }),
    ...(database.length === 0 ? {} : { database }),
    ...(options.negated("leaseWait") ? { leaseWait: false } : {}),
    ...(command.length === 0 ? {} : { command }),
  };
}

/** `[NAME=]PATH`. A path whose first part holds "=" can be given with "./" before it. */
export function namedPath(text: string, flag: string): NamedPath {
  const [, name, path] = /^([^/=]+)=(.*)$/s.exec(text) ?? [null, null, text];
  if (path === undefined || path === "") throw usageError(`read ${flag}: want [NAME=]PATH, got no path`);
  return name === null || name === undefined ? { path } : { name, path };
}
