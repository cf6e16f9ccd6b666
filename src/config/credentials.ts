/** The store's credentials, replaceable while the manager runs: read again from where they came, never restarted for. */

import * as v from "valibot";
import { type ErrorDetail } from "../platform/errors.ts";
import type { Secret } from "../platform/secret.ts";
import { configError } from "./problems.ts";
import { secretSchema } from "./schema_values.ts";
import type { Config } from "./types.ts";

export interface StoreCredentials {
  readonly accessKey: Secret;
  readonly secretKey: Secret;
  readonly sessionToken: Secret | null;
}

/** The layers as they are now, and what is wrong with them. */
export type ReadAgain = () => Promise<{ readonly value: unknown; readonly details: readonly ErrorDetail[] }>;

const credentialsSchema = v.object({
  storage: v.object({
    access_key: secretSchema("an access key id"),
    secret_key: secretSchema("a secret access key"),
    session_token: v.optional(secretSchema("a session token")),
  }),
});

function isSame(a: StoreCredentials, b: StoreCredentials): boolean {
  return a.accessKey.reveal() === b.accessKey.reveal() && a.secretKey.reveal() === b.secretKey.reveal() &&
    a.sessionToken?.reveal() === b.sessionToken?.reveal();
}

export class CredentialSource {
  readonly #readAgain: ReadAgain;
  #current: StoreCredentials | null;
  /** As they were read last: what was put in their place stays until these change. */
  #read: StoreCredentials | null;

  constructor(config: Config | null, readAgain: ReadAgain) {
    this.#readAgain = readAgain;
    const storage = config?.storage;
    this.#current = storage?.kind !== "s3" ? null : {
      accessKey: storage.accessKey,
      secretKey: storage.secretKey,
      sessionToken: storage.sessionToken,
    };
    this.#read = this.#current;
  }

  current(): StoreCredentials | null {
    return this.#current;
  }

  /** Those count from now on. */
  replace(next: StoreCredentials): void {
    if (this.#current !== null) this.#current = next;
  }

  /** True when they changed. Throws `config-invalid` when the new ones cannot be used; the old ones stay then. */
  async refresh(): Promise<boolean> {
    if (this.#current === null || this.#read === null) return false;
    const { value, details } = await this.#readAgain();
    const result = v.safeParse(credentialsSchema, value);
    if (details.length > 0 || !result.success) {
      const fallback = {
        pointer: "/storage",
        detail: "got no usable credentials, wanted access_key and secret_key",
      };
      throw configError("read the credentials again", details.length > 0 ? details : [fallback]);
    }
    const { access_key: accessKey, secret_key: secretKey, session_token: sessionToken } =
      result.output.storage;
    const next: StoreCredentials = { accessKey, secretKey, sessionToken: sessionToken ?? null };
    if (isSame(this.#read, next)) return false;
    this.#read = next;
    const isChange = !isSame(this.#current, next);
    this.#current = next;
    return isChange;
  }
}
