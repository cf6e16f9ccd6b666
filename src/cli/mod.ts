/**
 * The command line: `main(argv)` gives the exit code and never throws. Children of this program (`__archive`,
 * `__database`, `__exec`, `__follow`, `__guard`) are told apart before anything else is loaded, since they start often and must
 * start fast.
 */

import type { Context, ExitCode } from "./context.ts";

/** Shells say 128 + SIGPIPE when the reader of a pipe went away. */
const READER_GONE = 141;

export async function main(argv: readonly string[]): Promise<ExitCode> {
  if (argv[0] === "__exec") {
    const { execMain } = await import("../platform/exec_helper.ts");
    return execMain(argv.slice(1));
  }
  if (argv[0] === "__archive") {
    const { archiverMain } = await import("../checkpoint/mod.ts");
    return await archiverMain();
  }
  if (argv[0] === "__follow") {
    const { followerMain } = await import("../database/follow_child.ts");
    return await followerMain();
  }
  if (argv[0] === "__database") {
    const { databaseMain } = await import("../database/database_child.ts");
    return await databaseMain();
  }
  if (argv[0] === "__guard" && argv[1] !== undefined) {
    const { guardMain } = await import("../supervisor/guard.ts");
    return guardMain(argv[1]);
  }
  return await runCommand(argv, await systemContext());
}

/** One command in the given surroundings; what it throws is told and becomes the exit code. */
export async function runCommand(argv: readonly string[], context: Context): Promise<ExitCode> {
  const { OutputClosed } = await import("../platform/terminal.ts");
  try {
    const { runProgram } = await import("./program.ts");
    return await runProgram(argv, context);
  } catch (error) {
    if (error instanceof OutputClosed) return READER_GONE;
    return await tellError(error, argv, context);
  }
}

async function systemContext(): Promise<Context> {
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
  };
}

async function tellError(error: unknown, argv: readonly string[], { terminal }: Context): Promise<ExitCode> {
  const [{ errorJson, errorText }, { exitCodeOf }] = await Promise.all([
    import("./text.ts"),
    import("../platform/errors.ts"),
  ]);
  const own = argv.includes("--") ? argv.slice(0, argv.indexOf("--")) : argv;
  try {
    terminal.err(own.includes("--json") ? errorJson(error) : errorText(error));
  } catch {
    // Nobody listens; the exit code still tells.
  }
  return exitCodeOf(error);
}
