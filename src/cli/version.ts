/** `state-manager version`. */

import { buildInfo } from "../platform/build_info.ts";
import type { Context, ExitCode, Options } from "./context.ts";
import { json } from "./text.ts";

export function versionText(): string {
  const { version, build } = buildInfo();
  return `state-manager ${version} (${build})`;
}

export function printVersion({ terminal }: Context, options: Options): Promise<ExitCode> {
  terminal.out(options.flag("json") ? json(buildInfo()) : versionText() + "\n");
  return Promise.resolve(0);
}
