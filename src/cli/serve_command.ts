/** `state-manager` alone and `state-manager run -- COMMAND…`: from options to the manager. */

import { type CommandAction, usageError } from "./context.ts";
import { configFlags } from "./flags.ts";
import { isAtTerminal } from "../platform/terminal.ts";
import { runManager } from "./serve.ts";

export const serve: CommandAction = async function serve(_context, options) {
  return await runManager(configFlags(options), "serve");
};

export const run: CommandAction = async function run(_context, options, args) {
  if (args.length === 0) {
    throw usageError("run: there is no command", "state-manager run [options] -- COMMAND…");
  }
  const flags = configFlags(options, args);
  // One that is to be restarted is a service: ctrl-C is to end the manager, not to make it start the command again.
  const isService = (flags.restart ?? "no") !== "no";
  const interactive = options.flag("interactive") ||
    (!options.negated("interactive") && !isService && isAtTerminal());
  return await runManager({ ...flags, interactive }, "run");
};
