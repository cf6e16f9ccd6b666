/** The store as every room gets it: the real one in all its decorators. */

import type { Clock } from "../platform/clock.ts";
import type { Random } from "../platform/random.ts";
import { directoryStore } from "./directory_store.ts";
import { limited } from "./limited_store.ts";
import type { ObjectStore } from "./object_store.ts";
import { observed, type StoreObserver } from "./observed_store.ts";
import { prefixed } from "./prefixed_store.ts";
import { retrying } from "./retrying_store.ts";
import type { S3Credentials } from "./s3/request.ts";
import { s3Store } from "./s3/s3_store.ts";

export type OpenStoreOptions =
  & { readonly keyPrefix?: string }
  & (
    | { readonly kind: "directory"; readonly directory: string }
    | {
      readonly kind: "s3";
      readonly bucket: string;
      readonly endpoint: string;
      readonly region: string;
      readonly credentials: () => S3Credentials;
      readonly forcePathStyle: boolean;
      readonly caFile?: string | null;
    }
  );

export interface OpenStoreEffects {
  readonly clock: Clock;
  readonly random: Random;
  /** Hears of every single try. */
  readonly observe?: StoreObserver;
  /**
   * true: neither retries nor a queue, every outcome is the caller's to judge. For the lease: its renewals must not
   * stand behind uploads, and it reads back by itself.
   */
  readonly plain?: boolean;
}

/** Enough to fill a line with packs of 16 MiB, and few enough for a small store. */
const CONCURRENCY = 16;

export function openStore(options: OpenStoreOptions, effects: OpenStoreEffects): ObjectStore {
  const { clock, random, observe } = effects;
  const base = options.kind === "directory"
    ? directoryStore({ path: options.directory, clock, random })
    : s3Store({ ...options, clock });
  const seen = observe === undefined ? base : observed(base, clock, observe);
  const stack = effects.plain === true
    ? seen
    : limited(retrying(seen, { clock, random }), { concurrency: CONCURRENCY, clock });
  return prefixed(stack, options.keyPrefix ?? "");
}
