/** What every command gets: the terminal, the clock, the environment, the signals, and its own arguments in typed form. */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { Random } from "../platform/random.ts";
import type { Terminal } from "../platform/terminal.ts";

export interface Context {
  readonly terminal: Terminal;
  readonly clock: Clock;
  readonly random: Random;
  readonly environment: Readonly<Record<string, string>>;
  /** Where relative paths begin. */
  readonly folder: string;
  /**
   * Signals that ask the command for an end, as an AbortSignal: `action` is what they end. Only the process's own command
   * may take them, since they are taken for good.
   */
  readonly interrupts: (action: string) => AbortSignal;
}

/** Exit code of the process. */
export type ExitCode = number;

export type CommandAction = (
  context: Context,
  options: Options,
  args: readonly string[],
) => Promise<ExitCode>;

/** Options as the parser left them, by camelCase name. The command table says which exist; a wrong name is our bug. */
export class Options {
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(values: Readonly<Record<string, unknown>>) {
    this.#values = values;
  }

  text(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === "string" ? value : undefined;
  }

  flag(name: string): boolean {
    return this.#values[name] === true;
  }

  /** True when `--no-<name>` was given. */
  negated(name: string): boolean {
    return this.#values[name] === false;
  }

  list(name: string): readonly string[] {
    const value = this.#values[name];
    return Array.isArray(value) ? value.map(String) : [];
  }

  /** The same, without all others. */
  only(names: readonly string[]): Options {
    return new Options(
      Object.fromEntries(Object.entries(this.#values).filter(([name]) => names.includes(name))),
    );
  }

  /** True when any of these was given. */
  any(...names: readonly string[]): boolean {
    return names.some((name) => this.#values[name] !== undefined);
  }
}

/** Wrong usage: exit 64. */
export function usageError(message: string, hint?: string): StateManagerError {
  return new StateManagerError("usage", message, hint === undefined ? {} : { hint });
}

/** Talk, unless `--quiet` or `--json` asked for none. */
export function say(context: Context, options: Options, text: string): void {
  if (!options.flag("quiet") && !options.flag("json")) context.terminal.err(text + "\n");
}

/**
 * Asks before anything is overwritten or taken away. Without a person to ask, only `--yes` goes on: a script that
 * destroys must say so.
 */
export async function confirm(context: Context, options: Options, question: string): Promise<void> {
  if (options.flag("yes")) return;
  if (!context.terminal.canAsk) {
    throw usageError(`${question} There is no terminal to ask on`, "give --yes to go on without a question");
  }
  const answer = (await context.terminal.ask(`${question} [y/N] `))?.trim().toLowerCase();
  if (answer === "y" || answer === "yes") return;
  throw new StateManagerError("cancelled", "nothing was done: the question was not answered with yes");
}
