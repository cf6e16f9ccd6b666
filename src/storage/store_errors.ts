/** The errors that every store throws in the same words. */

import { StateManagerError } from "../platform/errors.ts";
import { quoteKey } from "./object_key.ts";

export type OperationKind = "get" | "head" | "put" | "list" | "delete";

/** What the store's reply said, as the cause of an error: for retries and for reports, never with secrets. */
export class StoreReply extends Error {
  override readonly name = "StoreReply";
  /** HTTP status; 0 when there was no reply. */
  readonly status: number;
  /** The store's own error code, "" when it gave none. */
  readonly reason: string;
  /** How long the store asked us to wait; null when it did not. */
  readonly retryAfterMs: number | null;

  constructor(status: number, reason: string, message: string, retryAfterMs: number | null = null) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

/** How long the store that answered with `error` asked us to wait; null when it did not. */
export function retryAfterMs(error: unknown): number | null {
  return error instanceof Error && error.cause instanceof StoreReply ? error.cause.retryAfterMs : null;
}

/** "put \"head.json\" in s3 bucket …": the action that failed, as messages begin. */
export function actionText(kind: OperationKind, key: string, description: string): string {
  return `${kind} ${quoteKey(key)} in ${description}`;
}

export function objectNotFound(kind: OperationKind, key: string, description: string): StateManagerError {
  return new StateManagerError("object-not-found", `${actionText(kind, key, description)}: no such object`);
}

export function preconditionFailed(
  key: string,
  description: string,
  detail: string,
  cause?: unknown,
): StateManagerError {
  return new StateManagerError("precondition-failed", `${actionText("put", key, description)}: ${detail}`, {
    hint: "another writer was first: read the object again, then decide",
    ...(cause === undefined ? {} : { cause }),
  });
}

export function outcomeUnknown(
  key: string,
  description: string,
  detail: string,
  cause?: unknown,
): StateManagerError {
  return new StateManagerError("outcome-unknown", `${actionText("put", key, description)}: ${detail}`, {
    hint: "the write may or may not have landed: read the object back before deciding",
    ...(cause === undefined ? {} : { cause }),
  });
}

/** A call that took too long: of a put we can't know whether it landed, everything else changed nothing. */
export function tooSlow(
  kind: OperationKind,
  key: string,
  description: string,
  limitMs: number,
): StateManagerError {
  const detail = `no answer within ${Math.round(limitMs)} ms`;
  if (kind === "put") return outcomeUnknown(key, description, detail);
  return new StateManagerError("store-unreachable", `${actionText(kind, key, description)}: ${detail}`, {
    hint: "check that the store is up and that this machine reaches it",
  });
}
