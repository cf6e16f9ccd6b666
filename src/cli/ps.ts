/** `state-manager ps`: the processes, one a line. */

import { type JsonObject, openClient } from "./client.ts";
import type { Context, ExitCode, Options } from "./context.ts";
import { json, table } from "./text.ts";

export async function listProcesses(context: Context, options: Options): Promise<ExitCode> {
  using client = await openClient(context, options);
  const answer = await client.get<{ readonly processes: readonly JsonObject[] }>("/processes");
  context.terminal.out(options.flag("json") ? json(answer) : processTable(answer.processes));
  return 0;
}

export function processTable(processes: readonly JsonObject[]): string {
  const text = (value: unknown) => value === null || value === undefined ? "-" : String(value);
  const rows = processes.map((process) => [
    text(process["name"]),
    process["state"] === "running" && process["ready"] === false ? "not ready" : text(process["state"]),
    text(process["wanted"]),
    text(process["pid"]),
    text(process["restarts"]),
    text(process["started"]),
    exitText(process["last_exit"]),
    text(process["reason"] ?? process["probe_failure"]),
  ]);
  return table(["NAME", "STATE", "WANTED", "PID", "RESTARTS", "STARTED", "LAST EXIT", "REASON"], rows);
}

function exitText(exit: unknown): string {
  if (typeof exit !== "object" || exit === null) return "-";
  const cause = exit as JsonObject;
  if (cause["kind"] === "signal") return String(cause["signal"]);
  return cause["kind"] === "exit" ? `code ${cause["code"]}` : `not started (${cause["code"]})`;
}
