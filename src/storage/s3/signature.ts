/**
 * AWS Signature Version 4 in the headers of a request.
 * Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
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

function derivedKey({ secretKey, region }: SignedRequest, date: string): Uint8Array {
  const name = [secretKey, date, region].join();
  let key = derivedKeys.get(name);
  if (key === undefined) {
    key = [region, "s3", "aws4_request"].reduce<Uint8Array>(hmac, hmac(`AWS4${secretKey}`, date));
    if (derivedKeys.size >= MOST_DERIVED_KEYS) derivedKeys.clear();
    derivedKeys.set(name, key);
  }
  return key;
}

/** What needs no escape anywhere: nearly every path of ours (object_key.ts). */
const PLAIN_PATH = /^[A-Za-z0-9._~/-]*$/;

function escaped(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!'()*]/g, (each) => `%${each.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** As the server will have it after one decoding; what cannot be decoded stands for itself. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function canonicalPath({ pathname }: URL): string {
  if (PLAIN_PATH.test(pathname)) return pathname;
  return pathname.split("/").map((segment) => escaped(decoded(segment))).join("/");
}

function canonicalQuery(url: URL): string {
  if (url.search === "") return "";
  const pairs = [...url.searchParams].map(([name, value]) => [escaped(name), escaped(value)] as const);
  pairs.sort(([a, one], [b, other]) => a < b || (a === b && one < other) ? -1 : 1);
  return pairs.map(([name, value]) => `${name}=${value}`).join("&");
}

/**
 * `headers`, with those that sign them. Not yet as `Headers`: a request makes its own of whatever it gets, and each time
 * costs as much as a signature.
 */
export function signed(request: SignedRequest): Record<string, string> {
  const { method, url, accessKey, sessionToken, region, wallMs } = request;
  const time = new Date(wallMs).toISOString().replace(/[:-]|\.\d{3}/g, "");
  const date = time.slice(0, 8);
  const headers: Record<string, string> = { ...request.headers, "x-amz-date": time };
  if (sessionToken !== null) headers["x-amz-security-token"] = sessionToken;
  const names = [...Object.keys(headers), "host"].sort();
  const values = names.map((name) =>
    `${name}:${name === "host" ? url.host : headers[name]?.trim().replace(/\s+/g, " ")}\n`
  );
  const signedNames = names.join(";");
  const canonical = [
    method,
    canonicalPath(url),
    canonicalQuery(url),
    values.join(""),
    signedNames,
    headers["x-amz-content-sha256"],
  ].join("\n");
  const hash = createHash("sha256").update(canonical).digest("hex");
  const scope = `${date}/${region}/s3/aws4_request`;
  const text = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${hash}`;
  const signature = createHmac("sha256", derivedKey(request, date)).update(text).digest("hex");
  headers["authorization"] =
    `AWS4-HMAC-SHA256 Credential=${accessKey}/${scope}, SignedHeaders=${signedNames}, Signature=${signature}`;
  return headers;
}
