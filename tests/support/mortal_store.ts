/** A store as a process sees it that dies at one of its requests: that one is done or not, and no other after it. */

import { StateManagerError } from "../../src/platform/errors.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";

export interface Death {
  /** Requests before it. */
  readonly after: number;
  /** Whether the last request is still done in the store. */
  readonly done: boolean;
}

export interface MortalStore extends ObjectStore {
  readonly isDead: boolean;
}

/** What the process does after its death changes nothing, as if it were not. */
export function mortalStore(store: ObjectStore, death: Death | null): MortalStore {
  let left = death?.after ?? Infinity;
  let isDead = false;
  const gone = () => new StateManagerError("store-unreachable", "the process is dead: crash of a test");
  const request = async <T>(call: () => Promise<T>): Promise<T> => {
    if (isDead) throw gone();
    if (left-- > 0) return await call();
    isDead = true;
    if (death?.done === true) await call();
    throw gone();
  };
  return {
    description: store.description,
    get isDead() {
      return isDead;
    },
    get: (key, options) => request(() => store.get(key, options)),
    head: (key, options) => request(() => store.head(key, options)),
    put: (key, body, options) => request(() => store.put(key, body, options)),
    putLarge: (key, pieces, options) => request(() => store.putLarge(key, pieces, options)),
    list: (options) => request(() => store.list(options)),
    delete: (key, options) => request(() => store.delete(key, options)),
    clockMs: () => store.clockMs(),
    close: () => Promise.resolve(),
  };
}
