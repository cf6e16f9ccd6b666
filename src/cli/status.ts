/** `state-manager status`: the answer of `GET /`, for people or as JSON. */

import { type JsonObject, openClient } from "./client.ts";
import type { Context, ExitCode, Options } from "./context.ts";
import { processTable } from "./ps.ts";
import { fields, json, printable, size, timeLeft } from "./text.ts";

export async function showStatus(context: Context, options: Options): Promise<ExitCode> {
  using client = await openClient(context, options);
  const status = await client.get("/");
  context.terminal.out(options.flag("json") ? json(status) : statusText(status));
  return 0;
}

function databaseLines(value: unknown): [string, string][] {
  const databases: readonly JsonObject[] = Array.isArray(value) ? value : [];
  return databases.map((database) => {
    const { name, state, txid, durable_txid: durable, lag_seconds: lag } = database;
    const error = (database["last_error"] as JsonObject | null | undefined)?.["message"];
    const position = txid === undefined ? "" : `, TXID ${txid}, in the bucket ${durable}, ${lag} s behind`;
    const trouble = error === undefined ? "" : `, last error: ${printable(String(error))}`;
    return ["database", `${name}: ${state}${position}${trouble}`];
  });
}

function storageText({ description, encrypted }: JsonObject): string {
  return `${String(description)}${encrypted === true ? ", checkpoints encrypted" : ""}`;
}

/** A checkpoint that is under way. */
function progressLines(running: JsonObject | null): [string, string][] {
  if (running === null) return [];
  const progress = running["progress"] as JsonObject | null | undefined;
  if (progress === null || progress === undefined) return [["running", String(running["kind"])]];
  const { phase, bytes, total_bytes: total, bytes_per_second: rate, seconds_left: left } = progress;
  const parts = [
    `${String(running["kind"])}, ${String(phase)}: ${size(Number(bytes))}`,
    ...(typeof total === "number" ? [`of ${size(total)}`] : []),
    ...(typeof rate === "number" ? [`${size(rate)}/s`] : []),
    ...(typeof left === "number" ? [`${timeLeft(left)} left`] : []),
  ];
  return [["running", parts.join(" ")]];
}

/** The status for people. */
export function statusText(status: JsonObject): string {
  const text = (value: unknown) => value === null || value === undefined ? "-" : String(value);
  const object = (value: unknown) => typeof value === "object" && value !== null ? value as JsonObject : null;
  const storage = object(status["storage"]);
  const lease = object(status["lease"]);
  const checkpoint = object(status["checkpoint"]);
  const current = object(checkpoint?.["current"]);
  const reason = status["reason"] === null ? "" : ` (${text(status["reason"])})`;
  const heldBy = object(lease?.["held_by"]);
  const lines: [string, string][] = [
    ["state", `${text(status["state"])}${reason}`],
    ["name", text(status["name"])],
    [
      "store",
      storage === null ? "-" : storageText(storage),
    ],
    [
      "lease",
      lease === null
        ? "-"
        : `${text(lease["state"])}, token ${text(lease["token"])}, ${
          text(lease["remaining_seconds"])
        } s left` +
          (heldBy === null ? "" : `, held by ${text(heldBy["holder"])}`),
    ],
    ...databaseLines(status["databases"]),
    ["checkpoint", current === null ? "none yet" : `v${text(current["n"])} of ${text(current["time"])}`],
    ...progressLines(object(checkpoint?.["in_progress"])),
    ["next", text(checkpoint?.["next"])],
    ["last error", text(checkpoint?.["last_error"])],
    ["up since", `${text(status["started"])}, pid ${text(status["pid"])}`],
    ["version", `${text(status["version"])} (${text(status["build"])})`],
  ];
  const warnings = Array.isArray(status["warnings"]) ? status["warnings"] : [];
  const processes = Array.isArray(status["processes"]) ? status["processes"] : [];
  return fields(lines) +
    warnings.map((each) => `warning: ${printable(String(each))}\n`).join("") +
    (processes.length === 0 ? "" : `\n${processTable(processes)}`);
}
