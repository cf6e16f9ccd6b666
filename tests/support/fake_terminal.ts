/** A terminal that keeps what is printed and answers what the test says. */

import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import type { Terminal } from "../../src/platform/terminal.ts";
import { runCommand } from "../../src/cli/mod.ts";

const machineClock = systemClock();

export interface CommandResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface CommandOptions {
  readonly environment?: Readonly<Record<string, string>>;
  readonly folder?: string;
  /** What the person types; left out: there is no person. */
  readonly answer?: string;
  readonly input?: string;
  /** Asks the command for an end, as a signal to its process would; left out: nobody does. */
  readonly interrupt?: AbortSignal;
}

/** Runs one command line inside this process. */
export async function command(
  argv: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  let out = "";
  let err = "";
  const terminal: Terminal = {
    out: (text) => void (out += text),
    outBytes: (bytes) => void (out += new TextDecoder("latin1").decode(bytes)),
    err: (text) => void (err += text),
    canAsk: options.answer !== undefined,
    errIsTerminal: false,
    outHasColor: false,
    ask: (question) => {
      err += question;
      return Promise.resolve(options.answer ?? null);
    },
    readAll: () => Promise.resolve(options.input ?? ""),
  };
  const code = await runCommand(argv, {
    terminal,
    clock: machineClock,
    random: systemRandom(),
    environment: options.environment ?? {},
    folder: options.folder ?? "/nowhere",
    interrupts: () => options.interrupt ?? new AbortController().signal,
  });
  return { code, out, err };
}
