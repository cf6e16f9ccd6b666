/** What an S3 service's refusals mean to us. Messages never hold secrets, signatures or whole bodies. */

import { type ErrorCode, StateManagerError } from "../../platform/errors.ts";
import {
  actionText,
  objectNotFound,
  type OperationKind,
  outcomeUnknown,
  preconditionFailed,
  StoreReply,
} from "../store_errors.ts";
import type { ErrorDocument } from "./xml.ts";

export interface Refusal {
  readonly kind: OperationKind;
  readonly key: string;
  readonly description: string;
  /** A put with a condition. */
  readonly conditional: boolean;
  readonly status: number;
  readonly document: ErrorDocument | null;
  readonly retryAfterMs: number | null;
  /** Where the bucket is, if the answer told. */
  readonly region: string | null;
  /** By its Content-Type, which an answer to HEAD has as well. */
  readonly isWebPage: boolean;
}

interface Verdict {
  readonly code: ErrorCode;
  readonly detail: string;
  readonly hint: string;
}

const NO_PERMISSION: Verdict = {
  code: "store-access-denied",
  detail: "these credentials have no permission for this",
  hint:
    "allow GetObject, PutObject, DeleteObject and AbortMultipartUpload on the prefix and ListBucket on the bucket",
};

const WRONG_TOKEN: Verdict = {
  code: "store-access-denied",
  detail: "the session token is not valid",
  hint: "check storage.session_token (AWS_SESSION_TOKEN); leave it out for permanent keys",
};

const EXPIRED: Verdict = {
  code: "store-access-denied",
  detail: "the credentials have expired",
  hint: "renew them, or use storage.env_dir so that they rotate with no restart",
};

const WRONG_REGION: Verdict = {
  code: "store-refused",
  detail: "the bucket is in another region than the request says",
  hint: "set storage.region and storage.endpoint to the bucket's own region",
};

const FULL: Verdict = {
  code: "store-full",
  detail: "the store has no space left",
  hint: "free space or raise the quota there",
};

const NO_BUCKET: Verdict = {
  code: "store-not-found",
  detail: "there is no such bucket",
  hint: "check storage.bucket and storage.endpoint; the bucket is never made by this program",
};

/**
 * Which object is not there is said in XML by every S3 service. Without it a gateway or a web server answered, which knows
 * nothing of the object: taking that for absence would make a lease or a head anew where there is one.
 */
const NOT_OF_S3: Verdict = {
  code: "store-unreachable",
  detail: "the answer is none of an S3 service, but of a gateway or a web server",
  hint: "wait; where it lasts, check storage.endpoint and what stands between this machine and the store",
};

/** The store's own code → what it means, where the code says more than the status does. */
const BY_CODE: ReadonlyMap<string, Verdict> = new Map([
  ["InvalidAccessKeyId", {
    code: "store-access-denied",
    detail: "the store does not know this access key",
    hint: "check storage.access_key (AWS_ACCESS_KEY_ID) and that it belongs to this endpoint",
  }],
  ["SignatureDoesNotMatch", {
    code: "store-access-denied",
    detail: "the signature is wrong, so the secret key does not belong to the access key",
    hint: "check storage.secret_key (AWS_SECRET_ACCESS_KEY), also for blanks at its ends, and storage.region",
  }],
  ["RequestTimeTooSkewed", {
    code: "store-access-denied",
    detail: "this machine's clock differs too much from the store's",
    hint: "set this machine's clock (NTP); S3 allows 15 minutes",
  }],
  ["ExpiredToken", EXPIRED],
  ["TokenRefreshRequired", EXPIRED],
  ["InvalidToken", WRONG_TOKEN],
  ["InvalidTokenId", WRONG_TOKEN],
  ["InvalidSecurity", WRONG_TOKEN],
  ["AccessDenied", NO_PERMISSION],
  ["AllAccessDisabled", NO_PERMISSION],
  ["AccountProblem", NO_PERMISSION],
  ["NoSuchBucket", NO_BUCKET],
  ["InvalidBucketName", NO_BUCKET],
  ["PermanentRedirect", WRONG_REGION],
  ["TemporaryRedirect", WRONG_REGION],
  ["AuthorizationHeaderMalformed", WRONG_REGION],
  ["IllegalLocationConstraintException", WRONG_REGION],
  ["XMinioStorageFull", FULL],
  ["QuotaExceeded", FULL],
  ["XMinioAdminBucketQuotaExceeded", FULL],
  ["NoSuchUpload", {
    code: "store-refused",
    detail: "the store dropped the upload's parts before it was finished",
    hint: "let lifecycle rules abort incomplete multipart uploads after a day at the earliest",
  }],
  ["EntityTooLarge", {
    code: "store-refused",
    detail: "the store takes no object of this size",
    hint: "raise the store's limit for one object to 64 MiB at least",
  }],
]);

const CODES_THAT_PASS = new Set([
  "SlowDown",
  "ServiceUnavailable",
  "RequestTimeout",
  "InternalError",
  "Throttling",
]);
const MOST_DETAIL_CHARACTERS = 200;
/** Of an error's causes; deeper ones repeat the same. */
const MOST_CAUSES = 4;

/** The store's words for a message: bounded, printable, on one line. */
function excerpt(text: string): string {
  return text.replace(/[^ -~]+/g, " ").slice(0, MOST_DETAIL_CHARACTERS).trim();
}

/** The store's answer in words: "503 SlowDown (please reduce …)". */
function answerText({ status, document }: Refusal): string {
  if (document === null) return `answered ${status} with no reason`;
  const message = excerpt(document.message);
  return `answered ${status} ${excerpt(document.code)}${message === "" ? "" : ` (${message})`}`;
}

const REGION = /^[a-z0-9-]{1,40}$/;

function wrongRegion({ region }: Refusal): Verdict {
  if (region === null || !REGION.test(region)) return WRONG_REGION;
  return {
    code: "store-refused",
    detail: `the bucket is in region ${region}, and the request says another one`,
    hint: `set storage.region to "${region}", and storage.endpoint to that region's`,
  };
}

/** An answer to HEAD has no document, whoever answers. */
function isNotOfS3({ kind, document, isWebPage }: Refusal): boolean {
  return kind === "head" ? isWebPage : (document?.code ?? "") === "";
}

function isPassing(status: number, code: string): boolean {
  return status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 505) ||
    CODES_THAT_PASS.has(code);
}

/** Turns an answer that is not a success into the error that the port's contract names for it. */
export function refusalError(refusal: Refusal): StateManagerError {
  const { kind, key, description, status, document, retryAfterMs } = refusal;
  const code = document?.code ?? "";
  const answer = answerText(refusal);
  const cause = new StoreReply(status, excerpt(code), answer, retryAfterMs);
  const action = actionText(kind, key, description);
  const build = (verdict: Verdict) =>
    new StateManagerError(verdict.code, `${action}: ${verdict.detail}; it ${answer}`, {
      hint: verdict.hint,
      cause,
    });

  const known = BY_CODE.get(code);
  if (known === WRONG_REGION) return build(wrongRegion(refusal));
  if (known !== undefined) return build(known);
  if (status === 507) return build(FULL);
  if (status === 412 && kind === "put") return preconditionFailed(key, description, answer, cause);
  if (status === 404) {
    if (isNotOfS3(refusal)) {
      return kind === "put"
        ? outcomeUnknown(key, description, `${NOT_OF_S3.detail}; it ${answer}`, cause)
        : build(NOT_OF_S3);
    }
    if (kind !== "put" && kind !== "list") return objectNotFound(kind, key, description);
    if (refusal.conditional) return preconditionFailed(key, description, answer, cause);
    return build(NO_BUCKET);
  }
  if (status === 401 || status === 403) return build(NO_PERMISSION);
  if (status === 409 && kind === "put") return outcomeUnknown(key, description, answer, cause);
  if (status === 501 && refusal.conditional) {
    return build({
      code: "store-unsafe",
      detail: "the store has no conditional writes, which the lease needs",
      hint: "use a store with If-None-Match and If-Match on PUT",
    });
  }
  if (isPassing(status, code)) {
    // Behind a gateway's 5xx a write may still go on; "too many requests" was refused before it began.
    if (kind === "put" && status !== 429) return outcomeUnknown(key, description, answer, cause);
    return build({
      code: "store-unreachable",
      detail: "the store is not able to answer now",
      hint: "wait; where it lasts, look at the store's own status",
    });
  }
  if (status >= 300 && status < 400) return build(wrongRegion(refusal));
  return build({
    code: "store-refused",
    detail: "the store refused the request",
    hint:
      "compare storage.endpoint, storage.region and storage.force_path_style with the store's documentation",
  });
}

/** What fetch says went wrong: in the message or, from Deno 2.7 on, in its causes. The URL is left out. */
function connectionReason(error: unknown): string {
  const texts: string[] = [];
  for (let at = error; at instanceof Error && texts.length < MOST_CAUSES; at = at.cause) {
    texts.push(at.message);
  }
  const text = texts.length === 0 ? String(error) : texts.join(": ");
  const start = text.indexOf("client error");
  return excerpt(start < 0 ? text.replace(/\(?https?:\S+/g, "") : text.slice(start));
}

/** A request that got no answer; of a put it matters whether it can have reached the store. */
export function connectionError(
  refusal: Pick<Refusal, "kind" | "key" | "description">,
  error: unknown,
): StateManagerError {
  const { kind, key, description } = refusal;
  // "client error (Connect)" is hyper's, "blocked" fetch's own (ports no browser may use): nothing was sent.
  const reason = connectionReason(error);
  const cause = new StoreReply(0, "", reason);
  if (kind === "put" && !/\(Connect\)|are blocked/.test(reason)) {
    return outcomeUnknown(key, description, `the connection broke: ${reason}`, cause);
  }
  return new StateManagerError(
    "store-unreachable",
    `${actionText(kind, key, description)}: can't reach the store: ${reason}`,
    {
      hint: /certificate|tls|UnknownIssuer/i.test(reason)
        ? "name the store's certificate authority in storage.ca_file"
        : "check storage.endpoint, DNS, the network and that the store is up",
      cause,
    },
  );
}
