/** Assertions about our own code: a false one is a bug of the product and ends the operation as `internal`. */

import { StateManagerError } from "./errors.ts";

/** `rule` says what must hold, in words. */
export function assert(condition: boolean, rule: string): asserts condition {
  if (!condition) throw new StateManagerError("internal", `assertion failed: ${rule}`);
}
