/** One line per request, and the id that ties a problem document to it. No query, no headers, no bodies. */

import type { MiddlewareHandler } from "hono";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { type Random, randomHex } from "../platform/random.ts";
import { HEALTH_PATHS } from "./access.ts";
import type { ServerEnv } from "./env.ts";

/** Longest path that a log line holds. */
const MAX_LOGGED_PATH = 200;

/** Gives each request our own id (never the caller's: input is not echoed). */
export function requestId(random: Random): MiddlewareHandler<ServerEnv> {
  return async function assignRequestId(c, next) {
    const id = randomHex(random, 8);
    c.set("requestId", id);
    await next();
    c.header("x-request-id", id);
  };
}

/** Logs when the headers are out: a stream is logged when it begins. Probes are only for debugging. */
export function requestLog(
  { clock, log }: { clock: Clock; log: Log },
): MiddlewareHandler<ServerEnv> {
  return async function logRequest(c, next) {
    const begin = clock.monotonicMs();
    await next();
    const fields = {
      request: c.get("requestId"),
      method: c.req.method,
      path: c.req.path.slice(0, MAX_LOGGED_PATH),
      status: c.res.status,
      duration_ms: Math.round(clock.monotonicMs() - begin),
      caller: c.get("caller")?.name ?? null,
    };
    const quiet = HEALTH_PATHS.includes(c.req.path) ||
      (c.req.method === "GET" && c.res.ok);
    if (quiet) log.debug("Request answered.", fields);
    else log.info("Request answered.", fields);
  };
}
