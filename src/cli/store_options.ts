/** The options that name a store instead of a running manager. */

import type { Options } from "./context.ts";

/** True when the options name a store: then the manager is not asked. */
export function namesStore(options: Options): boolean {
  return options.any("config", "directory", "bucket", "endpoint", "region", "prefix");
}

/** The options of commands without a manager whose names mean the same to the configuration. */
export const STORE_OPTIONS = [
  "config",
  "dataDir",
  "directory",
  "bucket",
  "endpoint",
  "region",
  "prefix",
  "encryptionKeyFile",
];
