/** Bounds what all clients together can hold of the manager, which is PID 1 and has better things to do. */

import type { MiddlewareHandler } from "hono";
import { StateManagerError } from "../platform/errors.ts";
import { HEALTH_PATHS } from "./access.ts";
import type { ServerEnv } from "./env.ts";

/** Requests under way at once. Each holds at most one body (1 MiB); operators and scrapers need a few dozen. */
const MAX_REQUESTS = 128;

/** Refuses with 503 above the limit. Health routes always pass: they must tell the truth under load, and cost nothing. */
export function loadLimit(
  maxRequests = MAX_REQUESTS,
): MiddlewareHandler<ServerEnv> {
  let active = 0;
  return async function limitLoad(c, next) {
    if (HEALTH_PATHS.includes(c.req.path)) return await next();
    if (active >= maxRequests) {
      throw new StateManagerError(
        "overloaded",
        "answer: too many requests are under way",
        {
          hint: "wait a little, then ask again",
        },
      );
    }
    active++;
    try {
      await next();
    } finally {
      active--;
    }
  };
}
