/** `state-manager start|stop|restart NAME…` and `signal NAME [SIGNAL]`. */

import { type JsonObject, type ManagerClient, openClient } from "./client.ts";
import type { CommandAction, Context, ExitCode, Options } from "./context.ts";
import { blockerText } from "./ps.ts";
import { json, printable } from "./text.ts";

/** The manager answers when the process's own time to stop is over: nobody knows it better. */
const NO_LIMIT = null;

/** All of them are asked at once; the answers come in the order of the names. */
export function processAction(verb: "start" | "stop" | "restart"): CommandAction {
  return async function askOfProcesses(context, options, names) {
    using client = await openClient(context, options);
    const wait = options.text("wait");
    const body = wait === undefined ? {} : { wait };
    const answers = await Promise.allSettled(
      [...new Set(names)].map((name) => client.post(pathOf(name, verb), body, NO_LIMIT)),
    );
    const done = answers.flatMap((answer) => answer.status === "fulfilled" ? [answer.value] : []);
    tell(context, options, done);
    const failed = answers.find((answer) => answer.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    return done.some((process) => process["stop"] !== null) ? 1 : 0;
  };
}

export async function signalProcess(
  context: Context,
  options: Options,
  [name = "", signal]: readonly string[],
): Promise<ExitCode> {
  using client = await openClient(context, options);
  const answer = await send(client, name, signal, options.flag("group") ? "group" : "leader");
  tell(context, options, [answer]);
  return 0;
}

function send(client: ManagerClient, name: string, signal: string | undefined, to: string) {
  return client.post(pathOf(name, "signal"), { to, ...(signal === undefined ? {} : { signal }) });
}

function pathOf(name: string, verb: string): string {
  return `/processes/${encodeURIComponent(name)}/${verb}`;
}

function tell(context: Context, options: Options, processes: readonly JsonObject[]): void {
  if (options.flag("json")) context.terminal.out(json({ processes }));
  else context.terminal.out(processes.map((process) => `${processLine(process)}\n`).join(""));
}

/** `web: running, pid 12`; while it is in the way of a stop, by whom. */
export function processLine(process: JsonObject): string {
  const { name, state, pid, reason } = process;
  const parts = [`${name}: ${state}`];
  if (typeof pid === "number") parts.push(`pid ${pid}`);
  const stop = process["stop"] as
    | { readonly blockers?: readonly JsonObject[]; readonly command?: unknown }
    | null
    | undefined;
  if (typeof stop?.command === "string") parts.push(`its ${stop.command} runs`);
  const blockers = (stop?.blockers ?? []).map((who) => printable(blockerText(who)));
  if (blockers.length > 0) parts.push(`still there: ${blockers.join(", ")}`);
  if (typeof reason === "string") parts.push(printable(reason));
  return parts.join(", ");
}
