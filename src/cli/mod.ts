/**
 * The command line: `main(argv)` gives the exit code and never throws. Children of this program (`__archive`,
 * `__database`, `__exec`, `__follow`, `__guard`) are told apart before anything else is loaded, since they start often and must
 * start fast.
 */

import type { Context, ExitCode } from "./context.ts";

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
  const { systemContext } = await import("./run_command.ts");
  return await runCommand(argv, systemContext());
}

/** One command in the given surroundings; what it throws is told and becomes the exit code. */
export async function runCommand(argv: readonly string[], context: Context): Promise<ExitCode> {
  const { runCommandOf } = await import("./run_command.ts");
  return await runCommandOf(async () => (await import("./command_table.ts")).COMMANDS, argv, context);
}
