/** How the processes of a lease test reach the store that they share. */

import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { Secret } from "../../src/platform/secret.ts";
import { directoryStore, type ObjectStore, s3Store } from "../../src/storage/mod.ts";
import { httpStore } from "./http_store.ts";

export type StoreAddress =
  | { readonly kind: "http"; readonly url: string }
  | { readonly kind: "directory"; readonly path: string }
  | {
    readonly kind: "s3";
    readonly endpoint: string;
    readonly bucket: string;
    readonly accessKey: string;
    readonly secretKey: string;
  };

/** The plain store, as the lease wants it. */
export function openContendedStore(address: StoreAddress): ObjectStore {
  const clock = systemClock();
  switch (address.kind) {
    case "http":
      return httpStore(address.url);
    case "directory":
      return directoryStore({ path: address.path, clock, random: systemRandom() });
    case "s3": {
      const { endpoint, bucket } = address;
      const credentials = {
        accessKey: new Secret(address.accessKey),
        secretKey: new Secret(address.secretKey),
        sessionToken: null,
      };
      return s3Store({
        endpoint,
        bucket,
        region: "us-east-1",
        credentials: () => credentials,
        forcePathStyle: true,
        clock,
      });
    }
  }
}
