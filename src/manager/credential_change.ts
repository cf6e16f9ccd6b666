/**
 * New storage keys for a manager that runs: shown to open the same repository and to be allowed what we need, kept where
 * the old ones were kept, and only then used, by this process at once and by children from their next request or start on.
 */

import { readRepository } from "../checkpoint/mod.ts";
import {
  credentialsElsewhere,
  type LoadedConfig,
  persistCredentials,
  type StoreCredentials,
} from "../config/mod.ts";
import type { CatalogEvent } from "../database/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { log } from "../platform/log.ts";
import type { Random } from "../platform/random.ts";
import { openStore, probeStore } from "../storage/mod.ts";
import { storeOptions } from "./opening.ts";

/** For the look at the repository and the probe. */
const PROBE_LIMIT_MS = 30_000;

const logger = log("credentials");

export interface CredentialsResult {
  /** In the configuration file, where the old ones were: a restart uses them. */
  readonly persisted: boolean;
  /** Where else a restart would read them: a variable's or a file's name. */
  readonly source: string | null;
}

export interface CredentialChangeOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly inForce: () => LoadedConfig;
  /** Of the repository that is open; null: none is. */
  readonly repoId: () => string | null;
  /** Large uploads are needed, too. */
  readonly large: () => boolean;
  /** They count from now on. */
  readonly onChanged: () => void;
  readonly record: (event: CatalogEvent) => void;
}

export class CredentialChange {
  readonly #options: CredentialChangeOptions;
  #busy = false;

  constructor(options: CredentialChangeOptions) {
    this.#options = options;
  }

  /** Where it rejects, the old ones stay in use and in the file. */
  async replace(next: StoreCredentials): Promise<CredentialsResult> {
    if (this.#busy) {
      throw new StateManagerError("busy", "replace the storage keys: others are being taken over", {
        hint: "try again in a moment",
      });
    }
    this.#busy = true;
    try {
      return await this.#replace(next);
    } finally {
      this.#busy = false;
    }
  }

  async #replace(next: StoreCredentials): Promise<CredentialsResult> {
    const { clock, inForce, onChanged, record } = this.#options;
    const loaded = inForce();
    await this.#probe(loaded, next);
    const source = credentialsElsewhere(loaded.raw, loaded.origins);
    if (source === null) await persistCredentials(loaded.file, next, clock.wallMs());
    loaded.replaceCredentials(next);
    onChanged();
    const persisted = source === null;
    logger.info("storage keys replaced", { persisted, source });
    record({
      kind: "config-version",
      subject: "credentials",
      summary: "storage keys replaced",
      detail: { persisted, source },
    });
    return { persisted, source };
  }

  async #probe({ config }: LoadedConfig, next: StoreCredentials): Promise<void> {
    if (config === null) {
      throw new StateManagerError("wrong-state", "replace the storage keys: nothing is configured yet", {
        hint: "configure it first: POST /config",
      });
    }
    if (config.storage.kind !== "s3") {
      throw new StateManagerError(
        "wrong-state",
        "replace the storage keys: the store is a folder and has none",
        { hint: "only a bucket has keys: storage.bucket" },
      );
    }
    const { clock, random, repoId, large } = this.#options;
    const store = openStore(storeOptions(config.storage, () => next), { clock, random });
    const signal = AbortSignal.timeout(PROBE_LIMIT_MS);
    try {
      const known = repoId();
      // Another account may have a bucket of the same name: never would we write on in that one.
      if (known !== null && (await readRepository(store, { signal })).repo_id !== known) {
        throw new StateManagerError(
          "repository-mismatch",
          "replace the storage keys: they open another repository",
          { hint: "send keys of the account that the bucket is of" },
        );
      }
      await probeStore(store, { clock, random, large: large(), signal });
    } finally {
      await store.close();
    }
  }
}
