/** `state-manager lease show|release|acquire`. */

import { type JsonObject, openClient } from "./client.ts";
import type { CommandAction } from "./context.ts";
import { fields, json } from "./text.ts";

/** Releasing stops everything first, within the shutdown's budget; an operator may have set hours. */
const NO_LIMIT = null;

export function leaseAction(verb: "show" | "release" | "acquire"): CommandAction {
  return async function changeOrShowLease(context, options) {
    using client = await openClient(context, options);
    const answer = verb === "show"
      ? await client.get("/lease")
      : await client.post(`/${verb}-lease`, {}, NO_LIMIT);
    if (options.flag("json")) context.terminal.out(json(answer));
    else context.terminal.out(verb === "show" ? leaseText(answer) : `${String(answer["state"])}\n`);
    return 0;
  };
}

function leaseText(lease: JsonObject): string {
  const text = (value: unknown) => value === null || value === undefined ? "-" : String(value);
  const heldBy = lease["held_by"] as JsonObject | null | undefined;
  return fields([
    ["state", text(lease["state"])],
    ["token", text(lease["token"])],
    ["holder", text(lease["holder"])],
    ["seconds left", text(lease["remaining_seconds"])],
    [
      "held by",
      heldBy === null || heldBy === undefined
        ? "-"
        : `${text(heldBy["holder"])}, token ${text(heldBy["token"])}`,
    ],
    ["last error", text(lease["last_error"])],
  ]);
}
