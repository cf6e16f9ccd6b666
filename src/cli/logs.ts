/** `state-manager logs`: what processes said, and with `-f` what they say. */

import { isError } from "../platform/errors.ts";
import { prefixOf } from "../supervisor/mod.ts";
import { linesOfFile, logFilesOf } from "./log_files.ts";
import { type JsonObject, type ManagerClient, openClient } from "./client.ts";
import type { Context, ExitCode, Options } from "./context.ts";
import { say, usageError } from "./context.ts";

export interface Told {
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
  const query = queryOf(options);
  try {
    await showOfManager(context, options, args, query);
  } catch (unreachable) {
    const mayRead = !options.flag("follow") && !options.any("url");
    if (!isError(unreachable, "manager-unreachable") || !mayRead) throw unreachable;
    const logs = await logFilesOf(context, options, args);
    if (logs.length === 0) throw unreachable; // what was kept in memory is gone
    say(context, options, "No manager answers: this is from log files.");
    const printer = new LinePrinter(context, options, logs.map(({ name }) => name));
    await printInOrder(printer, logs.map((log) => linesOfFile(log, query, context.clock.wallMs())));
  }
  return 0;
}

async function showOfManager(
  context: Context,
  options: Options,
  args: readonly string[],
  query: URLSearchParams,
): Promise<void> {
  using client = await openClient(context, options);
  const names = args.length > 0 ? [...new Set(args)] : await processNames(client);
  const printer = new LinePrinter(context, options, names);
  const told = names.map((name) => linesOfManager(client, name, query));
  if (!options.flag("follow")) return await printInOrder(printer, told);
  await Promise.all(told.map(async (lines) => {
    for await (const line of lines) printer.print(line);
  }));
  printer.end();
}

async function* linesOfManager(
  client: ManagerClient,
  name: string,
  query: URLSearchParams,
): AsyncGenerator<Told> {
  const lines = client.lines(`/processes/${encodeURIComponent(name)}/logs?${query}`);
  for await (const event of lines) yield { process: name, event };
}

/** By time, those of one process in their order; no more of each is held than one. */
async function printInOrder(printer: LinePrinter, sources: readonly AsyncGenerator<Told>[]): Promise<void> {
  const waiting = await Promise.all(sources.map(async (source) => ({ source, next: await source.next() })));
  for (;;) {
    let first: { source: AsyncGenerator<Told>; next: IteratorYieldResult<Told> } | null = null;
    for (const { source, next } of waiting) {
      if (next.done) continue;
      if (first === null || timeOf(next.value) < timeOf(first.next.value)) first = { source, next };
    }
    if (first === null) return printer.end();
    printer.print(first.next.value);
    const { source } = first;
    for (const entry of waiting) if (entry.source === source) entry.next = await source.next();
  }
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
