/** `state-manager logs`: what processes said, and with `-f` what they say. */

import { prefixOf } from "../supervisor/mod.ts";
import { type JsonObject, type ManagerClient, openClient } from "./client.ts";
import type { Context, ExitCode, Options } from "./context.ts";
import { usageError } from "./context.ts";

interface Told {
  readonly process: string;
  readonly event: JsonObject;
}

/** Prints lines as they come; they may be pieces of lines of several processes. */
class LinePrinter {
  readonly #context: Context;
  readonly #options: Options;
  readonly #prefixes: ReadonlyMap<string, string>;
  /** Process and stream of the line that is not finished; null: none. */
  #unfinished: string | null = null;

  constructor(context: Context, options: Options, names: readonly string[]) {
    this.#context = context;
    this.#options = options;
    const colors = context.terminal.outHasColor;
    const text = (name: string) => names.length === 1 ? "" : new TextDecoder().decode(prefixOf(name, colors));
    this.#prefixes = new Map(names.map((name) => [name, text(name)]));
  }

  print({ process, event }: Told): void {
    const { terminal } = this.#context;
    const type = event["type"];
    if (this.#options.flag("json")) {
      if (type !== "heartbeat") terminal.out(JSON.stringify({ process, ...event }) + "\n");
      return;
    }
    if (type === "gap") terminal.err(`state-manager: ${event["lines"]} lines of ${process} dropped\n`);
    if (type !== "line") return;
    const source = `${process} ${event["stream"]}`;
    const goesOn = this.#unfinished === source && event["part"] !== undefined && event["part"] !== 0;
    const start = this.#unfinished !== null && !goesOn ? "\n" : "";
    const time = this.#options.flag("timestamps") ? `${event["time"]} ` : "";
    const head = goesOn ? "" : `${this.#prefixes.get(process) ?? ""}${time}`;
    const isPartial = event["partial"] === true;
    terminal.out(`${start}${head}${event["text"]}${isPartial ? "" : "\n"}`);
    this.#unfinished = isPartial ? source : null;
  }

  end(): void {
    if (this.#unfinished !== null) this.#context.terminal.out("\n");
  }
}

export async function showLogs(
  context: Context,
  options: Options,
  args: readonly string[],
): Promise<ExitCode> {
  using client = await openClient(context, options);
  const names = args.length > 0 ? [...new Set(args)] : await processNames(client);
  const query = queryOf(options);
  const printer = new LinePrinter(context, options, names);
  const read = async (name: string, tell: (told: Told) => void) => {
    const lines = client.lines(`/processes/${encodeURIComponent(name)}/logs?${query}`);
    for await (const event of lines) tell({ process: name, event });
  };
  if (options.flag("follow")) {
    await Promise.all(names.map((name) => read(name, (told) => printer.print(told))));
  } else {
    const all: Told[] = [];
    await Promise.all(names.map((name) => read(name, (told) => all.push(told))));
    // Stable: lines of one process with the same time stay in their order.
    all.sort((a, b) => timeOf(a) < timeOf(b) ? -1 : timeOf(a) > timeOf(b) ? 1 : 0);
    for (const told of all) printer.print(told);
  }
  printer.end();
  return 0;
}

function timeOf({ event }: Told): string {
  return String(event["time"] ?? "");
}

async function processNames(client: ManagerClient): Promise<string[]> {
  const answer = await client.get<{ readonly processes: readonly JsonObject[] }>("/processes");
  return answer.processes.map((process) => String(process["name"]));
}

function queryOf(options: Options): URLSearchParams {
  const query = new URLSearchParams();
  if (options.flag("follow")) query.set("follow", "true");
  const tail = options.text("tail");
  if (tail !== undefined && tail !== "all" && !/^\d{1,9}$/.test(tail)) {
    throw usageError("read --tail: want a number of lines, or all");
  }
  for (const name of ["tail", "since", "stream", "text"]) {
    const value = options.text(name);
    if (value !== undefined) query.set(name, value);
  }
  return query;
}
