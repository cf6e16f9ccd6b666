/** The parser, made from a command table by commander. */

import { Command, CommanderError, Option } from "commander";
import { type CommandSpec, GROUPS, type OptionSpec } from "./command_options.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { type Context, type ExitCode, Options, usageError } from "./context.ts";
import { errorJson } from "./error_json.ts";
import { versionText } from "./version.ts";

const EXIT_CODES = `
Exit codes: 0 ok · 1 failure · 2 partial · 64 usage · 65 data damaged · 69 manager or store unreachable
            70 bug · 74 last state not saved · 75 lease held elsewhere or lost · 77 not allowed
            78 configuration · 130 interrupted. As "run": the command's own code, 128+n for a signal.`;

/** Wrong usage (sysexits.h). */
const USAGE = 64;

/** Runs the command of `commands` that `argv` names. Errors of the command pass through; those of usage are told here. */
export async function runProgram(
  argv: readonly string[],
  context: Context,
  commands: readonly CommandSpec[],
): Promise<ExitCode> {
  let exitCode: ExitCode = 0;
  const program = buildProgram({
    context,
    wantsJson: wantsJson(argv),
    commands,
    onExit: (code) => exitCode = code,
  });
  try {
    await program.parseAsync(withStandards(argv), { from: "user" });
    return exitCode;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? 0 : USAGE; // help and version end with 0; all else the parser has told
  }
}

/** `state-manager [options]` is the server, and a group alone is its standard command. */
export function withStandards(argv: readonly string[]): string[] {
  const [first, second] = argv;
  const isOption = (word: string | undefined) => word === undefined || word.startsWith("-");
  const isHelp = (word: string | undefined) => word === "-h" || word === "--help";
  if (first === undefined) return ["serve"];
  if (isOption(first) && !isHelp(first) && first !== "-V" && first !== "--version") return ["serve", ...argv];
  const group = Object.hasOwn(GROUPS, first) ? GROUPS[first] : undefined;
  if (group !== undefined && isOption(second) && !isHelp(second)) {
    return [first, group.standard, ...argv.slice(1)];
  }
  return [...argv];
}

/** Whether errors are to be JSON; what follows `--` is another program's. */
export function wantsJson(argv: readonly string[]): boolean {
  return (argv.includes("--") ? argv.slice(0, argv.indexOf("--")) : argv).includes("--json");
}

interface Surroundings {
  readonly context: Context;
  readonly wantsJson: boolean;
}

function buildProgram(
  { commands, onExit, ...around }: Surroundings & {
    readonly commands: readonly CommandSpec[];
    readonly onExit: (code: ExitCode) => void;
  },
): Command {
  const program = new Command("state-manager")
    .description("The init for stateful programs in disposable containers. Alone it starts the manager.")
    .version(versionText(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand(false)
    .addHelpText("after", EXIT_CODES);
  const loadAndRun = async (spec: CommandSpec, args: readonly string[], values: Record<string, unknown>) => {
    const action = await spec.load();
    try {
      onExit(await action(around.context, new Options(values), args));
    } catch (error) {
      throw withHelp(error, spec);
    }
  };
  prepare(program, around).enablePositionalOptions();
  const groups = new Map<string, Command>();
  for (const spec of commands) {
    const [first = "", second] = spec.name.split(" ");
    const parent = second === undefined ? program : groups.get(first) ?? addGroup(program, first, around);
    if (second !== undefined) groups.set(first, parent);
    const command = parent.command(second ?? first, { hidden: spec.hidden === true });
    describe(prepare(command, around), spec);
    command.action(async () => await loadAndRun(spec, command.args, command.opts()));
  }
  return program;
}

/** Wrong usage that has no hint of its own: the help says what is right. */
function withHelp(error: unknown, { name }: CommandSpec): unknown {
  if (!isError(error, "usage") || error.hint !== undefined) return error;
  const { message, details, cause } = error;
  return new StateManagerError("usage", message, { hint: `state-manager ${name} --help`, details, cause });
}

function addGroup(program: Command, name: string, around: Surroundings): Command {
  const group = prepare(program.command(name), around).description(GROUPS[name]?.text ?? "");
  return group.helpCommand(false);
}

/** Talk goes to our terminal, and the parser never ends the process by itself. */
function prepare(command: Command, { context: { terminal }, wantsJson }: Surroundings): Command {
  return command.exitOverride().configureOutput({
    writeOut: (text) => terminal.out(text),
    writeErr: (text) => terminal.err(text),
    getOutHasColors: () => terminal.outHasColor,
    getErrHasColors: () => terminal.outHasColor,
    outputError: (text, write) => {
      const message = text.replace(/^error: /, "").trimEnd();
      const hint = `${pathOf(command)} --help`;
      write(
        wantsJson ? errorJson(usageError(message, hint)) : `state-manager: ${message}\n  hint: ${hint}\n`,
      );
    },
  });
}

function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

function describe(command: Command, spec: CommandSpec): void {
  command.description(spec.text);
  if (spec.arguments !== undefined) command.arguments(spec.arguments);
  if (spec.passThrough === true) command.passThroughOptions();
  for (const option of spec.options) command.addOption(optionOf(option));
  if (spec.examples !== undefined) {
    const lines = spec.examples.map((example) => `  $ state-manager ${example}`);
    command.addHelpText("after", `\nExamples:\n${lines.join("\n")}`);
  }
}

function optionOf(spec: OptionSpec): Option {
  const option = new Option(spec.flags, spec.text);
  if (spec.choices !== undefined) option.choices(spec.choices);
  if (spec.repeatable === true) {
    option.argParser((value: string, earlier: string[] | undefined) => [...(earlier ?? []), value]);
  }
  return option;
}
