/** An error on the pipe between this program and its children: everything that decides, none of its causes. */

import {
  asStateManagerError,
  ERROR_TABLE,
  type ErrorCode,
  type ErrorDetail,
  StateManagerError,
} from "./errors.ts";

export interface WireError {
  readonly code: string;
  readonly message: string;
  readonly hint: string | null;
  readonly details: readonly ErrorDetail[];
}

export function errorToWire(thrown: unknown): WireError {
  const { code, message, hint, details } = asStateManagerError(thrown);
  return { code, message, hint: hint ?? null, details };
}

/** A code that this build does not know (the other side may be newer) becomes "internal", its text kept. */
export function errorFromWire({ code, message, hint, details }: WireError): StateManagerError {
  return new StateManagerError(isErrorCode(code) ? code : "internal", message, {
    ...(hint === null ? {} : { hint }),
    details,
  });
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERROR_TABLE, code);
}
