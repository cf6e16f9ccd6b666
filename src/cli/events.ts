/** `state-manager events`: what happened, oldest first, and with `-f` what happens. */

import { dataDirAt } from "../manager/data_dir.ts";
import { fileMode } from "../platform/environment.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { type JsonObject, type ManagerClient, openClient } from "./client.ts";
import type { Context, ExitCode, Options } from "./context.ts";
import { say, usageError } from "./context.ts";
import { findDataDirOf } from "./data_dir.ts";
import { count, printable, size, timeLeft } from "./text.ts";

/** So many of the last ones, when nothing is said of them. */
const DEFAULT_TAIL = 100;
const FOLLOWED_TAIL = 10;
const PAGE = 1000;
/** Longer than any. */
const KIND_WIDTH = 14;

interface HistoryPage {
  readonly events: readonly JsonObject[];
  readonly next_after: string | null;
}

export async function showEvents(context: Context, options: Options): Promise<ExitCode> {
  try {
    return await showOfManager(context, options);
  } catch (error) {
    if (!isError(error, "manager-unreachable") || options.any("url")) throw error;
    const { catalog } = dataDirAt(findDataDirOf(context, options));
    if (await fileMode(catalog) === null) throw error;
    throw new StateManagerError("manager-unreachable", error.message, {
      hint: `${error.hint ?? ""}; while none runs, what happened is in a SQLite file: ` +
        `sqlite3 ${catalog} 'SELECT * FROM events'`,
      cause: error,
    });
  }
}

async function showOfManager(context: Context, options: Options): Promise<ExitCode> {
  using client = await openClient(context, options);
  const print = printerFor(context, options);
  if (!options.flag("follow")) {
    for (const event of await lastEvents(client, options)) print({ type: "event", ...event });
    return 0;
  }
  let after: string | null = null;
  try {
    // What comes between these two questions is in the answer of the second, or behind that of the first.
    const { events: [newest] } = await client.get<HistoryPage>("/history?limit=1");
    const shown = await lastEvents(client, options);
    for (const event of shown) print({ type: "event", ...event });
    after = idOf(shown.at(-1)) ?? idOf(newest);
  } catch (error) {
    if (!isError(error, "local-io")) throw error;
    say(context, options, "The history is out of order: this is what comes from now on.");
  }
  const query = kindsOf(options);
  if (after !== null) query.set("after", after);
  for await (const event of client.lines(`/events?${query}`)) print(event);
  return 0;
}

function idOf(event: JsonObject | undefined): string | null {
  return typeof event?.["id"] === "string" ? event["id"] : null;
}

function kindsOf(options: Options): URLSearchParams {
  const query = new URLSearchParams();
  for (const kind of options.list("kind")) query.append("kind", kind);
  return query;
}

/** Oldest first. */
async function lastEvents(client: ManagerClient, options: Options): Promise<JsonObject[]> {
  const wanted = tailOf(options);
  const query = kindsOf(options);
  if (options.flag("follow")) query.delete("kind", "progress"); // it is never kept
  for (const name of ["since", "until"]) {
    const value = options.text(name);
    if (value !== undefined) query.set(name, value);
  }
  const found: JsonObject[] = [];
  if (options.list("kind").length > 0 && !query.has("kind")) return found;
  while (found.length < wanted) {
    query.set("limit", String(Math.min(PAGE, wanted - found.length)));
    const page = await client.get<HistoryPage>(`/history?${query}`);
    found.push(...page.events);
    if (page.next_after === null) break;
    query.set("after", page.next_after);
  }
  return found.reverse();
}

function tailOf(options: Options): number {
  const text = options.text("tail");
  if (text === "all") return Infinity;
  if (text !== undefined && !/^\d{1,9}$/.test(text)) {
    throw usageError("read --tail: want a number of events, or all");
  }
  if (text !== undefined) return Number(text);
  if (options.text("since") !== undefined) return Infinity;
  return options.flag("follow") ? FOLLOWED_TAIL : DEFAULT_TAIL;
}

function printerFor({ terminal }: Context, options: Options): (event: JsonObject) => void {
  return function print(event) {
    const type = event["type"];
    if (type === "heartbeat") return;
    if (options.flag("json")) return terminal.out(JSON.stringify(event) + "\n");
    if (type === "gap") {
      const { events } = event;
      const missed = typeof events === "number" ? count(events, "event") : "some events";
      return terminal.err(`state-manager: ${missed} missing here\n`);
    }
    // Ten lines a checkpoint would drown the rest.
    if (type === "progress" && !options.list("kind").includes("progress")) return;
    terminal.out(printable(type === "progress" ? progressLine(event) : eventLine(event)) + "\n");
  };
}

function eventLine({ time, kind, summary, detail }: JsonObject): string {
  const reason = typeof detail === "object" && detail !== null ? (detail as JsonObject)["reason"] : null;
  const why = typeof reason === "string" && reason !== "" ? ` (${reason})` : "";
  return `${String(time)}  ${String(kind).padEnd(KIND_WIDTH)} ${String(summary)}${why}`;
}

function progressLine(event: JsonObject): string {
  const number = (name: string) => typeof event[name] === "number" ? event[name] : null;
  const [total, left] = [number("total_bytes"), number("seconds_left")];
  const done = size(number("bytes") ?? 0);
  return [
    `${"progress".padEnd(KIND_WIDTH)} ${String(event["work"])}`,
    event["state"] === "running" ? String(event["phase"]) : String(event["state"]),
    `${number("entries") ?? 0} entries`,
    total === null ? done : `${done} of ${size(total)}`,
    ...(left === null ? [] : [`${timeLeft(left)} left`]),
  ].join(", ");
}
