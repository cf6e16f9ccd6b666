/** The store that options, environment or configuration file name, opened without a manager. */

import { loadConfig } from "../config/mod.ts";
import { storeOptions } from "../manager/opening.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { OpenStoreOptions } from "../storage/mod.ts";
import type { Context, Options } from "./context.ts";
import { findDataDirOf } from "./data_dir.ts";
import { configFlags } from "./flags.ts";
import { STORE_OPTIONS } from "./store_options.ts";

/** A repository as options, environment or configuration file name it. */
export interface ConfiguredPlace {
  readonly store: OpenStoreOptions;
  /** Null: none is named. */
  readonly encryptionKeyFile: string | null;
}

/** Errors: `config-invalid` when nothing names a store or what names it is wrong. */
export async function configuredPlace(context: Context, options: Options): Promise<ConfiguredPlace> {
  const { config } = await loadConfig({
    environment: context.environment,
    flags: configFlags(options.only(STORE_OPTIONS)),
    dataDir: findDataDirOf(context, options),
    folder: context.folder,
  });
  if (config === null) {
    throw new StateManagerError("config-invalid", "open the store: nothing says where it is", {
      hint: "give --directory, or --bucket and --endpoint with --prefix, or --config",
    });
  }
  const { encryptionKeyFile } = config.checkpoint;
  return { store: storeOptions(config.storage), encryptionKeyFile };
}

/** The store alone. Errors as `configuredPlace`. */
export async function configuredStoreOptions(context: Context, options: Options): Promise<OpenStoreOptions> {
  return (await configuredPlace(context, options)).store;
}
