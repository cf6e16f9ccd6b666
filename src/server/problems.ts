/**
 * RFC 9457 problem documents, the only form of an error over HTTP. They never hold input (it may be a secret) nor
 * internals: an unexpected error says "internal error" and its request id finds the text in the log.
 */

import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import type { Log } from "../platform/log.ts";
import type { ServerContext } from "./env.ts";

/** Seconds after which a caller may try again, where we know nothing better. */
const RETRY_AFTER_SECONDS = 5;

export interface ProblemDocument {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly instance: string;
  readonly code: string;
  readonly hint?: string;
  readonly errors?: readonly {
    readonly pointer: string;
    readonly detail: string;
  }[];
}

/** The document that tells `error`; also the payload of a stream's `error` event. */
export function problemOf(
  error: StateManagerError,
  requestId: string,
): ProblemDocument {
  const { status, title } = error.meaning;
  return {
    type: `urn:state-manager:error:${error.code}`,
    title,
    status,
    detail: error.code === "internal"
      ? "internal error: the log tells more under this request id"
      : error.message,
    instance: `urn:state-manager:request:${requestId}`,
    code: error.code,
    ...(error.hint === undefined || error.code === "internal" ? {} : { hint: error.hint }),
    ...(error.details.length === 0 ? {} : { errors: error.details }),
  };
}

/** The response that tells `error`. */
export function problemResponse(
  error: StateManagerError,
  requestId: string,
  headers: Readonly<Record<string, string>> = {},
): Response {
  const document = problemOf(error, requestId);
  return new Response(JSON.stringify(document), {
    status: document.status,
    headers: {
      "content-type": "application/problem+json",
      ...(document.status === 401 ? { "www-authenticate": 'Bearer realm="state-manager"' } : {}),
      ...(document.status === 503 ? { "retry-after": String(RETRY_AFTER_SECONDS) } : {}),
      ...headers,
    },
  });
}

/** An error that is nobody's fault but ours goes into the log, since the caller is not told. */
export function logUnexpected(
  log: Log,
  error: unknown,
  requestId: string,
): void {
  if (isError(error) && error.code !== "internal") return;
  log.error("A request failed unexpectedly.", { request: requestId, error });
}

/** Hono's last resort: whatever a route threw, as a problem document. */
export function problemHandler(log: Log) {
  return function answerProblem(error: Error, c: ServerContext): Response {
    const requestId = c.get("requestId") ?? "unknown";
    logUnexpected(log, error, requestId);
    return problemResponse(asStateManagerError(error), requestId);
  };
}

/** 404 for a path that is none of ours. The path is input and therefore not repeated. */
export function answerNotFound(c: ServerContext): Response {
  const error = new StateManagerError(
    "not-found",
    "find the route: there is none at this path",
    {
      hint: "GET / shows the state; docs/operations.md lists the routes",
    },
  );
  return problemResponse(error, c.get("requestId") ?? "unknown");
}

/** 405 for a known path; `methods` are those it has. */
export function methodNotAllowed(methods: readonly string[]) {
  return function answerMethodNotAllowed(c: ServerContext): Response {
    const allow = methods.includes("GET") ? [...methods, "HEAD"] : [...methods];
    const error = new StateManagerError(
      "method-not-allowed",
      "answer: this path has other methods",
      {
        hint: `use ${allow.join(" or ")}`,
      },
    );
    return problemResponse(error, c.get("requestId") ?? "unknown", {
      allow: allow.join(", "),
    });
  };
}
