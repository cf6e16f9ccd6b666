/** The data dir that a command means, by the same rules as the manager's own start. */

import { findDataDir } from "../config/mod.ts";
import { inContainer, isRoot } from "../platform/environment.ts";
import type { Context, Options } from "./context.ts";

export function findDataDirOf({ environment, folder }: Context, options: Options): string {
  const dataDir = options.text("dataDir");
  const flags = dataDir === undefined ? {} : { dataDir };
  return findDataDir(flags, environment, { isRoot: isRoot(), inContainer: inContainer(), folder });
}
