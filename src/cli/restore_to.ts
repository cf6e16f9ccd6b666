/**
 * `state-manager restore --to DIR` alone: in the binary a bundle of its own, since reading the whole program would take
 * longer than bringing back a small state. Nothing in it may be imported late: the bundler then wraps every module in a
 * function, and to read them all twice takes 20 ms.
 */

import { keepHeapSmallWhereShort } from "../platform/heap.ts";
import type { CommandAction, ExitCode } from "./context.ts";
import { restoreCommand } from "./restore_command.ts";
import { restoreOffline } from "./restore_offline.ts";
import { targetOf } from "./restore_target.ts";
import { runCommandOf, systemContext } from "./run_command.ts";

/** Null: `argv` is another restore than this one; nothing was done or said. */
export async function restoreToMain(argv: readonly string[]): Promise<ExitCode | null> {
  keepHeapSmallWhereShort();
  let isOurs = true;
  const action: CommandAction = async (context, options, args) => {
    const to = options.text("to");
    isOurs = to !== undefined && !options.flag("salvage");
    return isOurs && to !== undefined
      ? await restoreOffline(context, options, targetOf(options, args), to)
      : 0;
  };
  const commands = [restoreCommand(() => Promise.resolve(action))];
  const code = await runCommandOf(() => Promise.resolve(commands), argv, systemContext());
  return isOurs ? code : null;
}
