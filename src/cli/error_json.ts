/** What went wrong, for programs. A file of its own: the parser needs it before anything else is loaded. */

import { asStateManagerError } from "../platform/errors.ts";

/** One JSON line, for standard error. */
export function errorJson(error: unknown): string {
  const { code, message, hint, details } = asStateManagerError(error);
  return JSON.stringify({
    type: "error",
    code,
    message,
    ...(hint === undefined ? {} : { hint }),
    ...(details.length === 0 ? {} : { errors: details }),
  }) + "\n";
}
