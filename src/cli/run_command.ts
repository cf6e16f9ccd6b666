/** Runs one command of a table to its exit code. */

import { systemClock } from "../platform/clock.ts";
import { currentFolder, environmentVariables } from "../platform/environment.ts";
import { exitCodeOf } from "../platform/errors.ts";
import { systemRandom } from "../platform/random.ts";
import { OutputClosed, systemTerminal } from "../platform/terminal.ts";
import type { CommandSpec } from "./command_options.ts";
import type { Context, ExitCode } from "./context.ts";
import { errorJson } from "./error_json.ts";
import { interrupts } from "./interrupts.ts";
import { runProgram, wantsJson } from "./program.ts";
import { errorText } from "./text.ts";

/** Shells say 128 + SIGPIPE when the reader of a pipe went away. */
const READER_GONE = 141;

/** One command of a table in the given surroundings; what it throws is told and becomes the exit code. */
export async function runCommandOf(
  loadCommands: () => Promise<readonly CommandSpec[]>,
  argv: readonly string[],
  context: Context,
): Promise<ExitCode> {
  try {
    return await runProgram(argv, context, await loadCommands());
  } catch (error) {
    if (error instanceof OutputClosed) return READER_GONE;
    return tellError(error, argv, context);
  }
}

/** Terminal, clock, environment, folder and signals of this process. */
export function systemContext(): Context {
  return {
    terminal: systemTerminal(),
    clock: systemClock(),
    random: systemRandom(),
    environment: environmentVariables(),
    folder: currentFolder(),
    interrupts,
  };
}

function tellError(error: unknown, argv: readonly string[], { terminal }: Context): ExitCode {
  try {
    terminal.err(wantsJson(argv) ? errorJson(error) : errorText(error));
  } catch {
    // Nobody listens; the exit code still tells.
  }
  return exitCodeOf(error);
}
