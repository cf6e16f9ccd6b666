/** What all streams of the API have in common: the headers, the sign of life, and the wait for something to tell. */

import type { MiddlewareHandler } from "hono";
import type { Clock } from "../platform/clock.ts";
import type { ServerEnv } from "./env.ts";

/** A sign of life this often keeps proxies from closing a quiet stream. */
export const HEARTBEAT_MS = 15_000;

export function streamResponse(body: ReadableStream<Uint8Array>, contentType: string): Response {
  return new Response(body, {
    headers: {
      "content-type": contentType,
      "cache-control": "no-store, no-transform",
      "x-accel-buffering": "no",
    },
  });
}

/** True when it did not come in this time; at once when the stream is over. */
export async function staysQuiet(
  timeMs: number,
  what: Promise<unknown>,
  clock: Clock,
  over: AbortSignal,
): Promise<boolean> {
  const came = new AbortController();
  const signal = AbortSignal.any([came.signal, over]);
  const pause = clock.sleep(timeMs, { signal }).then(() => true, () => false);
  const isQuiet = await Promise.race([pause, what.then(() => false)]);
  came.abort();
  return isQuiet;
}

/** A HEAD is answered as a GET whose body nobody reads: a stream would stay open, and counted, for ever. */
export function endUnreadBody(): MiddlewareHandler<ServerEnv> {
  return async function endBodyOfHead(c, next) {
    await next();
    if (c.req.method === "HEAD") await c.res.body?.cancel();
  };
}
