/**
 * AWS Signature Version 4 in the headers of a request, on this thread: handing a few hundred bytes to another one takes
 * longer than hashing them. Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 */

import { createHash, createHmac } from "node:crypto";

export interface SignedRequest {
  readonly method: string;
  readonly url: URL;
  /** All are signed; names in lower case. `x-amz-content-sha256` is among them. */
  readonly headers: Readonly<Record<string, string>>;
  readonly accessKey: string;
  readonly secretKey: string;
  readonly sessionToken: string | null;
  readonly region: string;
  readonly wallMs: number;
}

/**
 * Keys derived from secrets, per day: four rounds of HMAC that each request would make anew. Whoever rotates credentials
 * leaves a few behind.
 */
const derivedKeys = new Map<string, Uint8Array>();
const MOST_DERIVED_KEYS = 16;

function hmac(key: Uint8Array | string, text: string): Uint8Array {
  return createHmac("sha256", key).update(text).digest();
}

function derivedKey(secretKey: string, day: string, region: string): Uint8Array {
  const name = [secretKey, day, region].join();
  let key = derivedKeys.get(name);
  if (key === undefined) {
    key = [region, "s3", "aws4_request"].reduce<Uint8Array>(hmac, hmac(`AWS4${secretKey}`, day));
    if (derivedKeys.size >= MOST_DERIVED_KEYS) derivedKeys.clear();
    derivedKeys.set(name, key);
  }
  return key;
}

/** All but the unreserved characters of RFC 3986 as %XX. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function canonicalQuery(url: URL): string {
  if (url.search === "") return "";
  return [...url.searchParams].map(([name, value]) => [encode(name), encode(value)] as const)
    .sort(([a], [b]) => a < b ? -1 : a > b ? 1 : 0).map((pair) => pair.join("=")).join("&");
}

/** `headers`, with those that sign them. */
export function signed(request: SignedRequest): Record<string, string> {
  const { method, url, accessKey, secretKey, sessionToken, region, wallMs } = request;
  const time = new Date(wallMs).toISOString().replace(/[:-]|\.\d{3}/g, "");
  const day = time.slice(0, 8);
  const headers: Record<string, string> = {
    ...request.headers,
    "x-amz-date": time,
    ...(sessionToken === null ? {} : { "x-amz-security-token": sessionToken }),
  };
  const all: Record<string, string> = { ...headers, host: url.host };
  const names = Object.keys(all).sort();
  const canonical = [
    method,
    encode(decodeURIComponent(url.pathname)).replaceAll("%2F", "/"),
    canonicalQuery(url),
    ...names.map((name) => `${name}:${(all[name] ?? "").trim().replace(/\s+/g, " ")}`),
    "",
    names.join(";"),
    headers["x-amz-content-sha256"],
  ].join("\n");
  const scope = `${day}/${region}/s3/aws4_request`;
  const hash = createHash("sha256").update(canonical).digest("hex");
  const signature = createHmac("sha256", derivedKey(secretKey, day, region))
    .update(`AWS4-HMAC-SHA256\n${time}\n${scope}\n${hash}`).digest("hex");
  headers["authorization"] = `AWS4-HMAC-SHA256 Credential=${accessKey}/${scope}, SignedHeaders=${
    names.join(";")
  }, Signature=${signature}`;
  return headers;
}
