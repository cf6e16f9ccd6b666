/**
 * Verifies AWS Signature Version 4 from the specification, with nothing in common with the code that signs.
 * Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 */

import { createHash, createHmac } from "node:crypto";
import type { WireRequest } from "./http_wire.ts";

export interface Account {
  readonly accessKey: string;
  readonly secretKey: string;
  readonly sessionToken: string | null;
  readonly region: string;
}

/** S3's error: HTTP status and code. */
export interface Refused {
  readonly status: number;
  readonly code: string;
}

const ALLOWED_SKEW_MS = 15 * 60_000;

function hmac(key: Uint8Array | string, text: string): Uint8Array {
  return createHmac("sha256", key).update(text).digest();
}

function sha256(content: Uint8Array | string): string {
  return createHash("sha256").update(content).digest("hex");
}

function escape(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function canonicalQuery(query: string): string {
  if (query === "") return "";
  return query.split("&").map((pair) => {
    const [name = "", value = ""] = pair.split("=").map((part) =>
      decodeURIComponent(part.replaceAll("+", " "))
    );
    return `${escape(name)}=${escape(value)}`;
  }).sort().join("&");
}

function canonicalRequest(
  request: WireRequest,
  signedHeaders: readonly string[],
  payloadHash: string,
): string {
  const path = request.path.split("/").map((part) => escape(decodeURIComponent(part))).join("/");
  const headers = signedHeaders.map((name) =>
    `${name}:${(request.headers.get(name) ?? "").trim().replace(/ +/g, " ")}\n`
  );
  return [
    request.method,
    path,
    canonicalQuery(request.query),
    headers.join(""),
    signedHeaders.join(";"),
    payloadHash,
  ].join("\n");
}

/** Null when the request is signed by `account` and its body is the one that was signed. */
export function verifySignature(
  request: WireRequest,
  account: Account,
  nowMs: number,
): Refused | null {
  const denied = (code: string, status = 403): Refused => ({ status, code });
  const header = request.headers.get("authorization") ?? "";
  const match = /^AWS4-HMAC-SHA256 Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/
    .exec(header);
  if (match === null) return denied("AccessDenied");
  const [, credential = "", signed = "", signature = ""] = match;
  const [accessKey, day = "", region, service, end] = credential.split("/");
  if (accessKey !== account.accessKey) return denied("InvalidAccessKeyId");
  if (service !== "s3" || end !== "aws4_request") {
    return denied("AuthorizationHeaderMalformed", 400);
  }
  if (region !== account.region) {
    return denied("AuthorizationHeaderMalformed", 400);
  }
  const date = request.headers.get("x-amz-date") ?? "";
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(date);
  if (parts === null || !date.startsWith(day)) return denied("AccessDenied");
  const [, year, month, dayOfMonth, hour, minute, second] = parts;
  const sentMs = Date.parse(
    `${year}-${month}-${dayOfMonth}T${hour}:${minute}:${second}Z`,
  );
  if (Math.abs(sentMs - nowMs) > ALLOWED_SKEW_MS) {
    return denied("RequestTimeTooSkewed");
  }
  const token = request.headers.get("x-amz-security-token");
  if (token !== account.sessionToken) return denied("InvalidToken", 400);

  const signedHeaders = signed.split(";");
  const mustBeSigned = [...request.headers.keys()].filter((name) =>
    name.startsWith("x-amz-") || /^if-/.test(name)
  );
  if (
    !["host", ...mustBeSigned].every((name) => signedHeaders.includes(name))
  ) return denied("AccessDenied");
  const payloadHash = request.headers.get("x-amz-content-sha256") ?? "";
  const scope = `${day}/${region}/s3/aws4_request`;
  const toSign = `AWS4-HMAC-SHA256\n${date}\n${scope}\n${
    sha256(canonicalRequest(request, signedHeaders, payloadHash))
  }`;
  const key = [region, "s3", "aws4_request"].reduce<Uint8Array>(
    (parent, part) => hmac(parent, part),
    hmac(`AWS4${account.secretKey}`, day),
  );
  if (createHmac("sha256", key).update(toSign).digest("hex") !== signature) {
    return denied("SignatureDoesNotMatch");
  }
  return payloadHash === sha256(request.body) ? null : denied("XAmzContentSHA256Mismatch", 400);
}
