/**
 * Who may call (docs/operations.md, "Access"). The decision is pure; the middleware only gathers the facts.
 *
 * Three ways in: a bearer token; the unix socket, where the file's mode 0600 decides; and, while no token is
 * configured, a loopback listener for requests that no web page and no proxy can have made. A page in the operator's
 * browser reaches loopback too: its requests carry a foreign Origin, or a foreign Host after DNS rebinding, or a
 * content type that is not JSON (body.ts), and each alone is refused.
 */

import { Buffer } from "node:buffer";
import { createHash, timingSafeEqual } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import type { AccessRules } from "../manager/control.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { Connection, ServerContext, ServerEnv } from "./env.ts";

/** Whoever is let in. `name` goes into the log. */
export interface Caller {
  readonly name: string;
  readonly scope: "read" | "write";
}

/** All that the decision looks at. */
export interface RequestFacts {
  readonly method: string;
  readonly path: string;
  readonly via: Connection["via"] | undefined;
  readonly loopback: boolean;
  readonly tls: boolean;
  readonly host: string | null;
  readonly origin: string | null;
  readonly fetchSite: string | null;
  readonly authorization: string | null;
  /** True with any header that only proxies add: the caller is then not on this machine, whatever Host says. */
  readonly proxied: boolean;
  readonly forwardedProto: string | null;
}

export type AccessDecision =
  | { readonly granted: Caller }
  | { readonly refused: StateManagerError };

/** Longest credential we hash; ours have 64 characters. */
const MAX_TOKEN_LENGTH = 4096;

const LOCAL_NAMES: readonly string[] = ["localhost", "127.0.0.1", "[::1]"];

/** Routes for probes of container platforms, which have no token. They tell no details without authority. */
export const HEALTH_PATHS: readonly string[] = [
  "/livez",
  "/startupz",
  "/readyz",
];

/** Who is asking, and may they; the caller of a health route decides by itself what a refusal means. */
export function decideAccess(
  facts: RequestFacts,
  rules: AccessRules,
): AccessDecision {
  const decision = identify(facts, rules);
  if ("refused" in decision) return decision;
  const changes = facts.method !== "GET" && facts.method !== "HEAD";
  if (changes && decision.granted.scope === "read") {
    return refuse(
      "forbidden",
      "change state: this token may only read",
      "use a token of scope write",
    );
  }
  const carriesKeys = changes &&
    (facts.path === "/config" || facts.path === "/credentials");
  if (carriesKeys && !isConfidential(facts, rules)) {
    return refuse(
      "forbidden",
      "take storage keys: this connection can be read on its way",
      "use TLS (server.tls), a TLS proxy (server.behind_tls_proxy), the unix socket or loopback",
    );
  }
  return decision;
}

function identify(facts: RequestFacts, rules: AccessRules): AccessDecision {
  if (facts.via === "unix") {
    return { granted: { name: "unix socket", scope: "write" } };
  }
  const presented = bearerToken(facts.authorization);
  if (presented !== null) {
    const known = findToken(presented, rules);
    if (known !== null) return { granted: known };
    if (isSetupToken(presented, rules)) return admitSetup(facts);
  }
  if (rules.tokens.length === 0 && facts.loopback) return decideLoopback(facts);
  const hint =
    "send the header Authorization: Bearer TOKEN; on the machine itself the unix socket needs none";
  return presented === null
    ? refuse("unauthorized", "let you in: there is no bearer token", hint)
    : refuse("unauthorized", "let you in: the bearer token is not known", hint);
}

/** The set-up token opens one door only: the first `POST /config`, which ends it. */
function admitSetup(facts: RequestFacts): AccessDecision {
  if (facts.method === "POST" && facts.path === "/config") {
    return { granted: { name: "set-up token", scope: "write" } };
  }
  return refuse(
    "forbidden",
    "let you in: the set-up token is only for POST /config",
    "configure first",
  );
}

function decideLoopback(facts: RequestFacts): AccessDecision {
  if (facts.proxied) {
    return refuse(
      "forbidden",
      "let you in without a token: the request came through a proxy",
      "configure server.tokens and send a bearer token",
    );
  }
  if (facts.host === null || !LOCAL_NAMES.includes(hostName(facts.host))) {
    return refuse(
      "forbidden",
      "let you in without a token: the Host is not localhost, 127.0.0.1 or [::1]",
      "address the manager by one of these names, or configure server.tokens",
    );
  }
  if (facts.origin !== null && !isSameOrigin(facts.origin, facts.host)) {
    return refuse(
      "forbidden",
      "let you in without a token: the request was made by a page of another origin",
      "configure server.tokens and send a bearer token",
    );
  }
  const changes = facts.method !== "GET" && facts.method !== "HEAD";
  if (
    changes && facts.fetchSite !== null && facts.fetchSite !== "same-origin" &&
    facts.fetchSite !== "none"
  ) {
    return refuse(
      "forbidden",
      "let you in without a token: a page of another site asks",
      "use a bearer token",
    );
  }
  return { granted: { name: "loopback", scope: "write" } };
}

function isConfidential(facts: RequestFacts, rules: AccessRules): boolean {
  if (facts.via === "unix" || facts.tls) return true;
  if (rules.behindTlsProxy) {
    return facts.forwardedProto === null || facts.forwardedProto === "https";
  }
  return facts.loopback;
}

function refuse(
  code: "unauthorized" | "forbidden",
  message: string,
  hint: string,
): AccessDecision {
  return { refused: new StateManagerError(code, message, { hint }) };
}

/** `name[:port]` without the port, in lower case. */
function hostName(host: string): string {
  return host.toLowerCase().replace(/:\d{1,5}$/, "");
}

function isSameOrigin(origin: string, host: string): boolean {
  const authority = /^https?:\/\/([^/?#]+)$/.exec(origin.toLowerCase())?.[1];
  return authority !== undefined && authority === host.toLowerCase();
}

function bearerToken(authorization: string | null): string | null {
  if (authorization === null || authorization.length > MAX_TOKEN_LENGTH) {
    return null;
  }
  return /^bearer +(\S+) *$/i.exec(authorization)?.[1] ?? null;
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** Compares digests, all of them, so that time tells neither the place of a difference nor which token it was. */
function findToken(presented: string, rules: AccessRules): Caller | null {
  const digest = sha256(presented);
  let found: Caller | null = null;
  for (const token of rules.tokens) {
    const expected = Buffer.from(token.sha256, "hex");
    if (
      expected.length === digest.length && timingSafeEqual(expected, digest)
    ) {
      found = { name: `token ${token.name}`, scope: token.scope };
    }
  }
  return found;
}

function isSetupToken(presented: string, rules: AccessRules): boolean {
  if (rules.setupToken === null) return false;
  return timingSafeEqual(sha256(rules.setupToken.reveal()), sha256(presented));
}

const PROXY_HEADERS = [
  "forwarded",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-proto",
  "x-real-ip",
  "via",
];

function factsOf(c: ServerContext): RequestFacts {
  const header = (name: string) => c.req.header(name) ?? null;
  return {
    method: c.req.method,
    path: c.req.path,
    via: c.env?.via,
    loopback: c.env?.loopback === true,
    tls: c.env?.tls === true,
    host: header("host"),
    origin: header("origin"),
    fetchSite: header("sec-fetch-site"),
    authorization: header("authorization"),
    proxied: PROXY_HEADERS.some((name) => header(name) !== null),
    forwardedProto: header("x-forwarded-proto"),
  };
}

/** Lets in whom the rules in force allow; they are asked anew each time, as configuring changes them. */
export function requireAccess(
  rules: () => AccessRules,
): MiddlewareHandler<ServerEnv> {
  return async function checkAccess(c, next) {
    const decision = decideAccess(factsOf(c), rules());
    const isHealth = HEALTH_PATHS.includes(c.req.path);
    if ("refused" in decision && !isHealth) throw decision.refused;
    c.set("caller", "granted" in decision ? decision.granted : null);
    await next();
  };
}
