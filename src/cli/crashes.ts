/** `state-manager crashes NAME [ID]`: the unexpected ends of a process, and what it said before one. */

import { StateManagerError } from "../platform/errors.ts";
import { type JsonObject, openClient } from "./client.ts";
import type { Context, ExitCode, Options } from "./context.ts";
import { json, table } from "./text.ts";

export async function showCrashes(
  context: Context,
  options: Options,
  args: readonly string[],
): Promise<ExitCode> {
  const [name = "", wanted] = args;
  using client = await openClient(context, options);
  const path = `/processes/${encodeURIComponent(name)}/crashes`;
  const answer = wanted === undefined || wanted === "latest"
    ? await client.get<{ readonly crashes: readonly JsonObject[] }>(path)
    : null;
  if (wanted === undefined && answer !== null) {
    const rows = answer.crashes.map((crash) =>
      ["id", "time", "cause", "bytes"].map((key) => String(crash[key]))
    );
    context.terminal.out(options.flag("json") ? json(answer) : table(["ID", "TIME", "CAUSE", "BYTES"], rows));
    return 0;
  }
  const id = answer === null ? wanted ?? "" : answer.crashes[0]?.["id"];
  if (id === undefined) {
    throw new StateManagerError("not-found", `show the latest crash of ${name}: there is none`);
  }
  const text = await client.text(`${path}/${encodeURIComponent(String(id))}`);
  context.terminal.out(options.flag("json") ? json({ id, text }) : text);
  return 0;
}
