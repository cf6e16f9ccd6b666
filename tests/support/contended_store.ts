/** How the processes of a lease test reach the store that they share. */

import type { ObjectStore } from "../../src/storage/object_store.ts";
import { httpStore } from "./http_store.ts";

export type StoreAddress = { readonly kind: "http"; readonly url: string };

export function openContendedStore(
  address: StoreAddress,
): Promise<ObjectStore> {
  return Promise.resolve(httpStore(address.url));
}
