/** The store with no manager: for disaster recovery on a fresh machine. Reads only; takes no lease, changes nothing. */

import { readHead, readRepository } from "../checkpoint/mod.ts";
import type { Head } from "../checkpoint/types.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { ObjectStore } from "../storage/mod.ts";
import { openConfiguredStore } from "./configured_store.ts";
import type { Context, Options } from "./context.ts";

export interface OfflineRepository extends AsyncDisposable {
  readonly store: ObjectStore;
  readonly head: Head;
}

/** Opens the repository that the options, the environment or the configuration file name. */
export async function openRepositoryOffline(context: Context, options: Options): Promise<OfflineRepository> {
  const store = await openConfiguredStore(context, options);
  try {
    await readRepository(store); // tells a wrong place and a format that is too new
    const state = await readHead(store);
    if (state === null) {
      throw new StateManagerError(
        "checkpoint-not-found",
        "read the head: the repository has no checkpoint yet",
        {
          hint: "check the prefix, or make a checkpoint first",
        },
      );
    }
    return { store, head: state.head, [Symbol.asyncDispose]: () => store.close() };
  } catch (error) {
    await store.close();
    throw error;
  }
}
