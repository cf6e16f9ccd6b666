/** `state-manager healthcheck`: for a container's HEALTHCHECK, so that an image needs no curl. */

import { openClient } from "./client.ts";
import type { Context, ExitCode, Options } from "./context.ts";
import { json } from "./text.ts";

/** Platforms give a check a few seconds. */
const TIMEOUT_MS = 3_000;

export async function checkHealth(context: Context, options: Options): Promise<ExitCode> {
  using client = await openClient(context, options);
  const status = await client.probe(options.flag("ready") ? "/readyz" : "/livez", TIMEOUT_MS);
  const healthy = status === 200;
  if (options.flag("json")) context.terminal.out(json({ healthy, status }));
  else if (!options.flag("quiet")) context.terminal.out(healthy ? "ok\n" : `failed (${status})\n`);
  return healthy ? 0 : 1;
}
