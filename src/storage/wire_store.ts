/** Where the objects are, as the manager tells its children: over their stdin only, since it holds secrets in clear text. */

import { Secret } from "../platform/secret.ts";
import type { ObjectStore } from "./object_store.ts";
import { openStore, type OpenStoreEffects, type OpenStoreOptions } from "./open_store.ts";
import type { S3Credentials } from "./s3/request.ts";

export interface WireCredentials {
  readonly accessKey: string;
  readonly secretKey: string;
  readonly sessionToken: string | null;
}

export type WireStore =
  | Extract<OpenStoreOptions, { kind: "directory" }>
  | (Omit<Extract<OpenStoreOptions, { kind: "s3" }>, "credentials"> & WireCredentials);

/** Credentials as they are at this moment. */
export function storeToWire(store: OpenStoreOptions): WireStore {
  if (store.kind === "directory") return store;
  const { credentials, ...rest } = store;
  return { ...rest, ...credentialsToWire(credentials()) };
}

export function credentialsToWire({ accessKey, secretKey, sessionToken }: S3Credentials): WireCredentials {
  return {
    accessKey: accessKey.reveal(),
    secretKey: secretKey.reveal(),
    sessionToken: sessionToken?.reveal() ?? null,
  };
}

export function credentialsFromWire({ accessKey, secretKey, sessionToken }: WireCredentials): S3Credentials {
  return {
    accessKey: new Secret(accessKey),
    secretKey: new Secret(secretKey),
    sessionToken: sessionToken === null ? null : new Secret(sessionToken),
  };
}

/** The store of a child whose credentials stay as they came. */
export function openWireStore(store: WireStore, effects: OpenStoreEffects): ObjectStore {
  if (store.kind === "directory") return openStore(store, effects);
  const { accessKey, secretKey, sessionToken, ...rest } = store;
  const credentials = credentialsFromWire({ accessKey, secretKey, sessionToken });
  return openStore({ ...rest, credentials: () => credentials }, effects);
}
