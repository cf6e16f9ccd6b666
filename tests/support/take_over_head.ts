/** The head of a repository as a test that is no manager takes it over: looked at and swapped, until nobody is in between. */

import { type HeadOptions, HeadSession } from "../../src/checkpoint/head.ts";
import { TAKE_OVER_ATTEMPTS } from "../../src/checkpoint/head_rules.ts";
import { isError } from "../../src/platform/errors.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";

/** Errors: those of `look` and `takeOver`. */
export async function takeOverHead(store: ObjectStore, options: HeadOptions): Promise<HeadSession> {
  const session = new HeadSession(store, options);
  for (let attempt = 1;; attempt++) {
    await session.look();
    try {
      await session.takeOver();
      return session;
    } catch (error) {
      // The former holder swapped between our read and our put: read again, its work counts.
      if (!isError(error, "precondition-failed") || attempt === TAKE_OVER_ATTEMPTS) throw error;
    }
  }
}
