/** Where the data folder and the configuration file are. */

import { StateManagerError } from "../platform/errors.ts";
import type { ConfigFlags } from "./flags.ts";
import { normalizePath } from "./schema_values.ts";

export interface Place {
  readonly isRoot: boolean;
  readonly inContainer: boolean;
  /** The current folder; relative paths start there. */
  readonly folder: string;
}

/** `/var/lib/state-manager` for root in a container, else a folder beside what one works on. */
export function defaultDataDir({ isRoot, inContainer, folder }: Place): string {
  return isRoot && inContainer ? "/var/lib/state-manager" : normalizePath(`${folder}/.state-manager`);
}

function absolute(path: string, folder: string, source: string): string {
  if (/[\0\n]/.test(path)) {
    throw new StateManagerError(
      "usage",
      `read ${source}: got a path with a line break or NUL, wanted a path`,
    );
  }
  return normalizePath(path.startsWith("/") ? path : `${folder}/${path}`);
}

/** `--data-dir`, else STATE_MANAGER_DATA_DIR, else the default; absolute. */
export function findDataDir(
  flags: ConfigFlags,
  environment: Readonly<Record<string, string>>,
  place: Place,
): string {
  if (flags.dataDir) return absolute(flags.dataDir, place.folder, "--data-dir");
  const variable = environment["STATE_MANAGER_DATA_DIR"];
  return variable ? absolute(variable, place.folder, "STATE_MANAGER_DATA_DIR") : defaultDataDir(place);
}

/** `--config`, else STATE_MANAGER_CONFIG, else `config.json` in the data folder. A file that was named must exist. */
export function findConfigFile(
  flags: ConfigFlags,
  environment: Readonly<Record<string, string>>,
  dataDir: string,
  folder: string,
): { readonly path: string; readonly source: string | null } {
  if (flags.config) return { path: absolute(flags.config, folder, "--config"), source: "--config" };
  const variable = environment["STATE_MANAGER_CONFIG"];
  if (variable) {
    return { path: absolute(variable, folder, "STATE_MANAGER_CONFIG"), source: "STATE_MANAGER_CONFIG" };
  }
  return { path: normalizePath(`${dataDir}/config.json`), source: null };
}
