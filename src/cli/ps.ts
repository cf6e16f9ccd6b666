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
    reasonText(process),
  ]);
  return table(["NAME", "STATE", "WANTED", "PID", "RESTARTS", "STARTED", "LAST EXIT", "REASON"], rows);
}

function reasonText(process: JsonObject): string {
  const { reason, probe_failure: failure, next_start: next } = process;
  const start = typeof next === "string" ? `next start ${next}` : null;
  const parts = [reason ?? failure, start, waitText(process), stopText(process["stop"])];
  const known = parts.filter((part) => part !== null && part !== undefined);
  return known.length === 0 ? "-" : known.join("; ");
}

/** Who is in the way of a stop, and how long they may be. */
function stopText(stop: unknown): string | null {
  if (typeof stop !== "object" || stop === null) return null;
  const { blockers, kill, command } = stop as {
    readonly blockers?: readonly JsonObject[];
    readonly kill?: unknown;
    readonly command?: unknown;
  };
  const who = (blockers ?? []).map(blockerText).join(", ");
  const running = typeof command === "string" ? `its ${command} runs; ` : "";
  return `${running}waits for ${who === "" ? "its output" : who}${
    typeof kill === "string" ? `; killed at ${kill}` : ""
  }`;
}

/** `412 (sh, S, do_wait)`. */
export function blockerText({ pid, name, state, wchan }: JsonObject): string {
  return `${pid} (${name}, ${state}${wchan === null || wchan === undefined ? "" : `, ${wchan}`})`;
}

function waitText(process: JsonObject): string | null {
  const waits = process["waiting_for"];
  if (!Array.isArray(waits) || waits.length === 0) return null;
  return `waits for ${
    waits.map(({ name, condition, state }: JsonObject) => `${name} to be ${condition}, it is ${state}`).join(
      "; ",
    )
  }`;
}

function exitText(exit: unknown): string {
  if (typeof exit !== "object" || exit === null) return "-";
  const cause = exit as JsonObject;
  if (cause["kind"] === "signal") {
    return `${cause["signal"]}${cause["oom"] === true ? " (out of memory)" : ""}`;
  }
  return cause["kind"] === "exit" ? `code ${cause["code"]}` : `not started (${cause["code"]})`;
}
