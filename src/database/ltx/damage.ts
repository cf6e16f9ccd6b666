/** The one error of every decoder here. It never carries bytes of a page. */

import { StateManagerError } from "../../platform/errors.ts";

/** `file` is the key or path as far as the caller knows it. */
export function damaged(file: string, what: string): StateManagerError {
  return new StateManagerError("data-damaged", `read ${file}: ${what}`, {
    hint:
      "the file was changed or cut after it was written: restore to an earlier point, or bring the file back",
  });
}
