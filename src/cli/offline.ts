/** The store with no manager: for disaster recovery on a fresh machine. Reads only; takes no lease, changes nothing. */

import {
  type Cipher,
  configuredKey,
  plainCipher,
  type ReadEnvironment,
  readHead,
  repositoryCipher,
} from "../checkpoint/mod.ts";
import type { Head } from "../checkpoint/types.ts";
import { layoutOf, type ReplicaLayout } from "../database/replica_layout.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { type ObjectStore, openStore } from "../storage/mod.ts";
import { configuredPlace } from "./configured_store.ts";
import type { Context, Options } from "./context.ts";
import { readNamedRepository } from "./named_place.ts";

interface OpenPlace {
  readonly store: ObjectStore;
  /** It is a folder. */
  readonly isNear: boolean;
  readonly cipher: Cipher;
}

export interface OfflineRepository extends OpenPlace, AsyncDisposable {
  readonly head: Head;
}

/** Store and cipher, whatever else may be damaged there. The caller closes the store. */
async function openWithCipher(
  context: Context,
  options: Options,
  isLenient: boolean,
): Promise<OpenPlace & { readonly layout: ReplicaLayout }> {
  const { store: settings, encryptionKeyFile } = await configuredPlace(context, options);
  const key = await configuredKey(encryptionKeyFile);
  const layout = layoutOf(settings);
  const store = openStore(settings, context);
  const isNear = settings.kind === "directory";
  try {
    const record = await readNamedRepository(store, settings, context); // tells a wrong place and a format that is too new
    return { store, isNear, cipher: await repositoryCipher(record, key, context.random), layout };
  } catch (error) {
    if (isLenient && key === null && isError(error, "data-damaged", "object-not-found")) {
      return { store, isNear, cipher: plainCipher, layout };
    }
    await store.close();
    throw error;
  }
}

/** For a verification: a `repo.json` that is lost is a finding, too, unless the key to the rest is in it. */
export function openInQuestion(context: Context, options: Options) {
  return openWithCipher(context, options, true);
}

/** Opens the repository that the options, the environment or the configuration file name. */
export async function openRepositoryOffline(context: Context, options: Options): Promise<OfflineRepository> {
  const { store, isNear, cipher } = await openWithCipher(context, options, false);
  try {
    const state = await readHead(store, { cipher });
    if (state === null) {
      throw new StateManagerError(
        "checkpoint-not-found",
        "read the head: the repository has no checkpoint yet",
        {
          hint: "check the prefix, or make a checkpoint first",
        },
      );
    }
    return { store, isNear, cipher, head: state.head, [Symbol.asyncDispose]: () => store.close() };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** What reading a checkpoint needs, in this process. */
export function readingOf(context: Context, { store, isNear, cipher }: OfflineRepository): ReadEnvironment {
  return {
    store,
    isNear,
    cipher,
    clock: context.clock,
    cacheFolder: null,
    signal: new AbortController().signal, // an interrupt ends the process
    onProgress: () => {},
  };
}
