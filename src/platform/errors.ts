/**
 * The one error type of the product and the one table that says what each error means to the outside:
 * its HTTP status, the exit code of a command that ends with it, and whether trying again can help.
 * Nothing here reads or prints secrets; a message never echoes input that may hold one.
 */

/** What one error code means to a caller over HTTP, to a shell, and to a retry loop. */
export interface ErrorMeaning {
  /** HTTP status of the problem document. */
  readonly status: number;
  /** Exit code of the process when the error ends it (contract: sysexits where they fit). */
  readonly exit: number;
  /** True when the same call may succeed later with nothing changed by the operator. */
  readonly retryable: boolean;
  /** Short title, stable, for people. */
  readonly title: string;
}

/** Code → meaning. Total by type: a code that is not here cannot be thrown. */
export const ERROR_TABLE = {
  "usage": { status: 422, exit: 64, retryable: false, title: "Wrong usage" },
  "invalid-request": { status: 422, exit: 64, retryable: false, title: "Invalid request" },
  "malformed-json": { status: 400, exit: 64, retryable: false, title: "Not JSON" },
  "unauthorized": { status: 401, exit: 77, retryable: false, title: "Authentication needed" },
  "forbidden": { status: 403, exit: 77, retryable: false, title: "Not allowed" },
  "not-found": { status: 404, exit: 1, retryable: false, title: "Not found" },
  "method-not-allowed": { status: 405, exit: 64, retryable: false, title: "Method not allowed" },
  "wrong-state": { status: 409, exit: 1, retryable: true, title: "Not possible in this state" },
  "already-configured": { status: 409, exit: 1, retryable: false, title: "Already configured" },
  "busy": { status: 409, exit: 75, retryable: true, title: "Another operation is under way" },
  "overloaded": { status: 503, exit: 75, retryable: true, title: "Too many requests" },
  "body-too-large": { status: 413, exit: 64, retryable: false, title: "Body too large" },
  "unsupported-media-type": { status: 415, exit: 64, retryable: false, title: "Unsupported media type" },
  "config-invalid": { status: 422, exit: 78, retryable: false, title: "Invalid configuration" },
  "config-unwritable": { status: 500, exit: 78, retryable: false, title: "Configuration cannot be kept" },
  "data-dir-unwritable": { status: 500, exit: 78, retryable: false, title: "Data folder unwritable" },
  "repository-mismatch": {
    status: 409,
    exit: 78,
    retryable: false,
    title: "Prefix belongs to something else",
  },
  "format-too-new": { status: 409, exit: 78, retryable: false, title: "Repository format too new" },
  "encryption-key-missing": { status: 409, exit: 78, retryable: false, title: "Encryption key missing" },
  "encryption-key-wrong": {
    status: 409,
    exit: 78,
    retryable: false,
    title: "Encryption key does not open the repository",
  },
  "repository-not-encrypted": { status: 409, exit: 78, retryable: false, title: "Repository not encrypted" },
  "origin-unknown": { status: 409, exit: 78, retryable: false, title: "Local data of unknown origin" },
  "store-unsafe": { status: 422, exit: 78, retryable: false, title: "Store ignores write conditions" },
  "store-access-denied": { status: 422, exit: 78, retryable: false, title: "Store refused the credentials" },
  "store-not-found": { status: 422, exit: 78, retryable: false, title: "Bucket or folder not found" },
  "store-unreachable": { status: 503, exit: 69, retryable: true, title: "Store unreachable" },
  "store-full": { status: 503, exit: 69, retryable: true, title: "Store full" },
  "store-refused": { status: 503, exit: 69, retryable: false, title: "Store refused the request" },
  "object-not-found": { status: 404, exit: 65, retryable: false, title: "Object not in the store" },
  "precondition-failed": { status: 409, exit: 75, retryable: false, title: "Object changed meanwhile" },
  "outcome-unknown": { status: 503, exit: 69, retryable: true, title: "Outcome of a write unknown" },
  "key-invalid": { status: 422, exit: 70, retryable: false, title: "Invalid object key" },
  "lease-held-elsewhere": { status: 409, exit: 75, retryable: true, title: "Lease held elsewhere" },
  "lease-lost": { status: 409, exit: 75, retryable: false, title: "Lease lost" },
  "lease-not-held": { status: 409, exit: 75, retryable: true, title: "Lease not held" },
  "checkpoint-not-found": { status: 404, exit: 1, retryable: false, title: "No such checkpoint" },
  "data-damaged": { status: 500, exit: 65, retryable: false, title: "Data damaged" },
  "source-missing": { status: 409, exit: 74, retryable: false, title: "Files root missing" },
  "state-not-saved": { status: 500, exit: 74, retryable: true, title: "Last state not in the bucket" },
  "disk-full": { status: 507, exit: 74, retryable: true, title: "Disk full" },
  "local-io": { status: 500, exit: 74, retryable: true, title: "Local file operation failed" },
  "spawn-failed": { status: 500, exit: 126, retryable: false, title: "Program could not be started" },
  "command-failed": { status: 500, exit: 1, retryable: true, title: "Command failed" },
  "cancelled": { status: 499, exit: 130, retryable: true, title: "Cancelled" },
  "timeout": { status: 504, exit: 69, retryable: true, title: "Deadline passed" },
  "manager-unreachable": { status: 503, exit: 69, retryable: true, title: "Manager unreachable" },
  "internal": { status: 500, exit: 70, retryable: false, title: "Internal error" },
} as const satisfies Record<string, ErrorMeaning>;

/** A stable kebab-case name of what went wrong. */
export type ErrorCode = keyof typeof ERROR_TABLE;

/** One finding inside a larger error, e.g. one wrong configuration key. */
export interface ErrorDetail {
  /** JSON pointer into the input (`/storage/bucket`), or a file or variable name. */
  readonly pointer: string;
  /** What is and what was wanted. Never echoes a value that may be a secret. */
  readonly detail: string;
}

export interface ErrorOptionsBag {
  /** What the reader can do about it: one imperative sentence. */
  readonly hint?: string;
  readonly cause?: unknown;
  readonly details?: readonly ErrorDetail[];
}

/** Every error the product throws on purpose. Message form: "failed action: what is, what was wanted". */
export class StateManagerError extends Error {
  override readonly name = "StateManagerError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly details: readonly ErrorDetail[];

  constructor(code: ErrorCode, message: string, options: ErrorOptionsBag = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.details = options.details ?? [];
  }

  get meaning(): ErrorMeaning {
    return ERROR_TABLE[this.code];
  }

  get retryable(): boolean {
    return ERROR_TABLE[this.code].retryable;
  }
}

/** True when `error` is a StateManagerError, with one of `codes` if any are given. */
export function isError(error: unknown, ...codes: ErrorCode[]): error is StateManagerError {
  return error instanceof StateManagerError && (codes.length === 0 || codes.includes(error.code));
}

/** Turns anything thrown into a StateManagerError; a foreign error becomes `fallback` with its text kept. */
export function asStateManagerError(error: unknown, fallback: ErrorCode = "internal"): StateManagerError {
  if (error instanceof StateManagerError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new StateManagerError(fallback, text, { cause: error });
}

/** Exit code of a process that ends with `error`. */
export function exitCodeOf(error: unknown): number {
  return asStateManagerError(error).meaning.exit;
}
