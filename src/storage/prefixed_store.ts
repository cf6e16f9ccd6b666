/** A store below a key prefix: keys go in and come out relative to it. */

import { assertKey, normalizeKeyPrefix } from "./object_key.ts";
import type { ListPage, ObjectInfo, ObjectStore } from "./object_store.ts";

/** `prefix` as an operator writes it, with or without slashes around; "" gives `store` itself. */
export function prefixed(store: ObjectStore, prefix: string): ObjectStore {
  const name = normalizeKeyPrefix(prefix);
  if (name === "") return store;
  const inner = `${name}/`;

  // The key alone first: "a/../b" must not become another repository's key, and the message shows what was given.
  const full = (key: string): string => {
    assertKey(key);
    return inner + key;
  };
  const relative = <T extends ObjectInfo>(info: T): T => ({ ...info, key: info.key.slice(inner.length) });

  return {
    description: `${store.description}, prefix ${name}`,
    get: async (key, options) => relative(await store.get(full(key), options)),
    head: async (key, options) => relative(await store.head(full(key), options)),
    put: async (key, body, options) => await store.put(full(key), body, options),
    putLarge: async (key, pieces, options) => await store.putLarge(full(key), pieces, options),
    async list(options): Promise<ListPage> {
      const { startAfter } = options;
      const page = await store.list({
        ...options,
        prefix: inner + options.prefix,
        ...(startAfter === undefined ? {} : { startAfter: inner + startAfter }),
      });
      const objects = page.objects.map(relative);
      return page.nextStartAfter === undefined
        ? { objects }
        : { objects, nextStartAfter: page.nextStartAfter.slice(inner.length) };
    },
    delete: async (key, options) => await store.delete(full(key), options),
    clockMs: () => store.clockMs(),
    close: () => store.close(),
  };
}
