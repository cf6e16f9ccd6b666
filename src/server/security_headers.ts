/** Headers that keep a browser from doing more with an answer than show it. */

import type { MiddlewareHandler } from "hono";
import type { ServerEnv } from "./env.ts";

/** Answers are data: nothing may run, load or frame them. The status page sets its own, with a nonce for its style. */
const DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

export function securityHeaders(): MiddlewareHandler<ServerEnv> {
  return async function setSecurityHeaders(c, next) {
    await next();
    const headers = c.res.headers;
    if (!headers.has("content-security-policy")) {
      headers.set("content-security-policy", DATA_POLICY);
    }
    headers.set("x-content-type-options", "nosniff");
    headers.set("referrer-policy", "no-referrer");
    headers.set("cross-origin-resource-policy", "same-origin");
    if (!headers.has("cache-control")) headers.set("cache-control", "no-store");
  };
}
