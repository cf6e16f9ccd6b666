/** `state-manager` alone and `state-manager run -- COMMAND…`: from options to the manager. */

import { type CommandAction, usageError } from "./context.ts";
import { configFlags } from "./flags.ts";
import { runManager } from "./serve.ts";

export const serve: CommandAction = async function serve(_context, options) {
  return await runManager(configFlags(options), "serve");
};

export const run: CommandAction = async function run(_context, options, args) {
  if (args.length === 0) {
    throw usageError("run: there is no command", "state-manager run [options] -- COMMAND…");
  }
  return await runManager(configFlags(options, args), "run");
};
