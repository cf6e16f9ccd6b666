/** Runs one command of a table to its exit code. What it needs is imported late: children come through here, too, and want none of it. */

import type { CommandSpec } from "./command_options.ts";
import type { Context, ExitCode } from "./context.ts";

/** Shells say 128 + SIGPIPE when the reader of a pipe went away. */
const READER_GONE = 141;

/** One command of a table in the given surroundings; what it throws is told and becomes the exit code. */
export async function runCommandOf(
  loadCommands: () => Promise<readonly CommandSpec[]>,
  argv: readonly string[],
  context: Context,
): Promise<ExitCode> {
  const { OutputClosed } = await import("../platform/terminal.ts");
  try {
    const { runProgram } = await import("./program.ts");
    return await runProgram(argv, context, await loadCommands());
  } catch (error) {
    if (error instanceof OutputClosed) return READER_GONE;
    return await tellError(error, argv, context);
  }
}

/** Terminal, clock, environment, folder and signals of this process. */
export async function systemContext(): Promise<Context> {
  const [{ systemClock }, { systemRandom }, { systemTerminal }, { environmentVariables, currentFolder }] =
    await Promise
      .all([
        import("../platform/clock.ts"),
        import("../platform/random.ts"),
        import("../platform/terminal.ts"),
        import("../platform/environment.ts"),
      ]);
  return {
    terminal: systemTerminal(),
    clock: systemClock(),
    random: systemRandom(),
    environment: environmentVariables(),
    folder: currentFolder(),
    interrupts: async (action) => (await import("./interrupts.ts")).interrupts(action),
  };
}

async function tellError(error: unknown, argv: readonly string[], { terminal }: Context): Promise<ExitCode> {
  const [{ errorText }, { errorJson }, { exitCodeOf }, { wantsJson }] = await Promise.all([
    import("./text.ts"),
    import("./error_json.ts"),
    import("../platform/errors.ts"),
    import("./program.ts"),
  ]);
  try {
    terminal.err(wantsJson(argv) ? errorJson(error) : errorText(error));
  } catch {
    // Nobody listens; the exit code still tells.
  }
  return exitCodeOf(error);
}
