/** `state-manager version`. */

import { buildInfo } from "../platform/build_info.ts";
import type { Context, ExitCode, Options } from "./context.ts";
import { json } from "./text.ts";

export function printVersion({ terminal }: Context, options: Options): Promise<ExitCode> {
  const info = buildInfo();
  terminal.out(options.flag("json") ? json(info) : `state-manager ${info.version} (${info.build})\n`);
  return Promise.resolve(0);
}
