/** `state-manager db sync NAME`: waits until all that the programs have committed is in the bucket. */

import { openClient } from "./client.ts";
import type { Context, ExitCode, Options } from "./context.ts";
import { json } from "./text.ts";

export async function syncDatabase(
  context: Context,
  options: Options,
  [name = ""]: readonly string[],
): Promise<ExitCode> {
  using client = await openClient(context, options);
  // As long as it takes: the manager has a limit of its own, and the store may be out of reach for a while.
  const answer = await client.post(`/databases/${encodeURIComponent(name)}/sync`, {}, null);
  context.terminal.out(
    options.flag("json") ? json(answer) : `${name}: all is in the bucket, TXID ${answer["durable_txid"]}\n`,
  );
  return 0;
}
