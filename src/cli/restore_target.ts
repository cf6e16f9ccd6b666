/** Which state a restore is of, as its arguments say it. */

import { parseCheckpointReference } from "../checkpoint/mod.ts";
import { parseTime } from "../server/times.ts";
import { type Context, type Options, say, usageError } from "./context.ts";

export type Target = { readonly checkpoint: string } | { readonly at: string; readonly atMs: number };

/**
 * A copy of what is newest overwrites nothing, and the clock of a fresh machine may be behind: so it is said, and done. In
 * place it is refused, as by the API.
 */
export function tellIfToCome(context: Context, options: Options, atMs: number): void {
  if (atMs <= context.clock.wallMs()) return;
  say(
    context,
    options,
    "--at is a time that is yet to come by this machine's clock: the newest state is taken.",
  );
}

/** Exactly one of the argument, `--checkpoint` and `--at`. */
export function targetOf(options: Options, [argument]: readonly string[]): Target {
  const given = [argument, options.text("checkpoint")].filter((text) => text !== undefined);
  const at = options.text("at");
  // Into a folder of its own nothing can be overwritten: the newest is what is meant.
  if (given.length === 0 && at === undefined && options.text("to") !== undefined) {
    return { checkpoint: "latest" };
  }
  if (given.length + (at === undefined ? 0 : 1) !== 1) {
    throw usageError(
      "restore: say which state, once",
      "state-manager restore v3, or --at 2026-01-31T12:00:00Z",
    );
  }
  if (at !== undefined) {
    const atMs = parseTime(at);
    if (atMs === null) {
      throw usageError("read --at: want a time as in RFC 3339, with its zone: 2026-01-31T12:00:00Z");
    }
    return { at, atMs };
  }
  const checkpoint = parseCheckpointReference(given[0] ?? "");
  if (checkpoint === null) {
    throw usageError("read the checkpoint: want an id, an ordinal (3 or v3) or latest");
  }
  return { checkpoint };
}
