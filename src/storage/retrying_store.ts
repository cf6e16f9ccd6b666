/**
 * Tries again what may pass: full jitter, a deadline over all tries, Retry-After honoured. A conditional put with an
 * unknown outcome is read back first and resent with the same bytes only while its condition still holds; since an
 * earlier try may still land, a refusal after such a try is read back as well before it is believed. Equal bytes count
 * as ours: a writer that must know itself apart from others has a nonce in the body. A plain refusal is believed.
 * Another version there after a lost reply is `precondition-failed`, though ours may have stood there for a moment:
 * either way the caller has to read what is there now.
 */

import type { Clock } from "../platform/clock.ts";
import { equalBytes } from "../platform/equal_bytes.ts";
import { isError } from "../platform/errors.ts";
import type { Random } from "../platform/random.ts";
import { collectBounded } from "./large_put.ts";
import {
  type ETag,
  LARGE_PART_BYTES,
  type ObjectStore,
  type Pieces,
  type PutLargeOptions,
  type PutOptions,
  type RequestOptions,
} from "./object_store.ts";
import { outcomeUnknown, preconditionFailed, retryAfterMs } from "./store_errors.ts";

export interface RetryingOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Tries in all. Default 6: with the delays below a store that restarts is waited for, half a minute at most. */
  readonly attempts?: number;
  /** Upper bound of the first delay; doubled for each further one. */
  readonly baseDelayMs?: number;
  readonly maxDelayMs?: number;
  /** Limit of one call, tries and delays included, where the caller names none. */
  readonly timeoutMs?: number;
}

const DEFAULT_ATTEMPTS = 6;
const DEFAULT_BASE_DELAY_MS = 250;
const DEFAULT_MAX_DELAY_MS = 10_000;
/** Long enough for 64 MiB on a slow line and a retry; who needs to know earlier says so. */
const DEFAULT_TIMEOUT_MS = 15 * 60_000;

type Bytes = Uint8Array<ArrayBuffer>;
type Condition = NonNullable<PutOptions["condition"]>;
/** What the object says about our put: landed; nothing changed yet; somebody else's; can't tell. */
type Finding = { readonly landed: ETag } | "unchanged" | "changed" | "unknown";

function mayPass(error: unknown): boolean {
  return isError(error, "store-unreachable", "outcome-unknown");
}

/** The tries of one call: how much time is left, and the wait before the next one. */
class Tries {
  readonly #options: Required<RetryingOptions>;
  readonly #request: RequestOptions;
  readonly #endMs: number;
  #made = 0;

  constructor(options: Required<RetryingOptions>, request: RequestOptions) {
    this.#options = options;
    this.#request = request;
    this.#endMs = options.clock.monotonicMs() + (request.timeoutMs ?? options.timeoutMs);
  }

  get #leftMs(): number {
    return this.#endMs - this.#options.clock.monotonicMs();
  }

  get isOver(): boolean {
    return this.#leftMs <= 0;
  }

  /** `request` for one try, with what is left of a limit the caller named; the store's own limit counts besides. */
  bounded<T extends RequestOptions>(request: T): T {
    return this.#request.timeoutMs === undefined
      ? request
      : { ...request, timeoutMs: Math.max(1, this.#leftMs) };
  }

  /** Waits before the next try; throws `error` when there is none. */
  async next(error: unknown): Promise<void> {
    const { attempts, baseDelayMs, maxDelayMs, clock, random } = this.#options;
    if (++this.#made >= attempts || !mayPass(error)) throw error;
    const jitter = random.float() * Math.min(maxDelayMs, baseDelayMs * 2 ** (this.#made - 1));
    const delayMs = Math.max(jitter, retryAfterMs(error) ?? 0);
    if (delayMs >= this.#leftMs) throw error;
    const { signal } = this.#request;
    await clock.sleep(delayMs, signal === undefined ? {} : { signal });
  }
}

class RetryingStore implements ObjectStore {
  readonly description: string;
  readonly #store: ObjectStore;
  readonly #options: Required<RetryingOptions>;

  constructor(store: ObjectStore, options: RetryingOptions) {
    this.description = store.description;
    this.#store = store;
    this.#options = {
      attempts: DEFAULT_ATTEMPTS,
      baseDelayMs: DEFAULT_BASE_DELAY_MS,
      maxDelayMs: DEFAULT_MAX_DELAY_MS,
      timeoutMs: DEFAULT_TIMEOUT_MS,
      ...options,
    };
  }

  async #retry<T, R extends RequestOptions>(request: R, call: (request: R) => Promise<T>): Promise<T> {
    const tries = new Tries(this.#options, request);
    for (;;) {
      try {
        return await call(tries.bounded(request));
      } catch (error) {
        request.signal?.throwIfAborted();
        await tries.next(error);
      }
    }
  }

  get(...[key, options = {}]: Parameters<ObjectStore["get"]>) {
    return this.#retry(options, (request) => this.#store.get(key, request));
  }

  head(...[key, options = {}]: Parameters<ObjectStore["head"]>) {
    return this.#retry(options, (request) => this.#store.head(key, request));
  }

  list(options: Parameters<ObjectStore["list"]>[0]) {
    return this.#retry(options, (request) => this.#store.list(request));
  }

  delete(...[key, options = {}]: Parameters<ObjectStore["delete"]>) {
    return this.#retry(options, (request) => this.#store.delete(key, request));
  }

  put(key: string, body: Bytes, options: PutOptions = {}): Promise<{ readonly etag: ETag }> {
    const { condition } = options;
    return condition === undefined
      ? this.#retry(options, (request) => this.#store.put(key, body, request))
      : this.#conditionalPut(key, body, options, condition);
  }

  /** Small ones are tried again like a put; of large ones the store itself tries each part again, and no more. */
  async putLarge(key: string, pieces: Pieces, options: PutLargeOptions): Promise<{ readonly etag: ETag }> {
    if (options.sizeBytes > LARGE_PART_BYTES || options.inParts === true) {
      return await this.#store.putLarge(key, pieces, options);
    }
    const { clock } = this.#options;
    const collected = await collectBounded({ key, clock, description: this.description }, pieces, options);
    return await this.put(key, collected.body, collected.options);
  }

  async #conditionalPut(key: string, body: Bytes, options: PutOptions, condition: Condition) {
    const tries = new Tries(this.#options, options);
    let ambiguous = false;
    for (;;) {
      try {
        return await this.#store.put(key, body, tries.bounded(options));
      } catch (error) {
        options.signal?.throwIfAborted();
        ambiguous ||= isError(error, "outcome-unknown");
        if (!ambiguous) {
          await tries.next(error);
          continue;
        }
        const finding = await this.#readBack(key, body, condition, options, tries);
        if (typeof finding === "object") return { etag: finding.landed };
        if (finding === "changed") {
          throw preconditionFailed(key, this.description, "another version is there", error);
        }
        // After a try that may still land, no answer but the object itself says that it did not.
        const unknown = isError(error, "outcome-unknown")
          ? error
          : outcomeUnknown(key, this.description, "an earlier try may still land", error);
        if (finding === "unknown") throw unknown;
        await tries.next(unknown);
      }
    }
  }

  async #readBack(
    key: string,
    body: Bytes,
    condition: Condition,
    options: PutOptions,
    tries: Tries,
  ): Promise<Finding> {
    const { signal } = options;
    const request: RequestOptions = signal === undefined ? {} : { signal };
    for (const readTries = new Tries(this.#options, options);;) {
      if (tries.isOver) return "unknown";
      try {
        const object = await this.#store.get(key, tries.bounded(request));
        if (equalBytes(object.body, body)) return { landed: object.etag };
        return "etag" in condition && object.etag === condition.etag ? "unchanged" : "changed";
      } catch (error) {
        signal?.throwIfAborted();
        if (isError(error, "object-not-found")) return "absent" in condition ? "unchanged" : "changed";
        try {
          await readTries.next(error);
        } catch {
          signal?.throwIfAborted();
          return "unknown";
        }
      }
    }
  }

  clockMs(): number | null {
    return this.#store.clockMs();
  }

  close(): Promise<void> {
    return this.#store.close();
  }
}

export function retrying(store: ObjectStore, options: RetryingOptions): ObjectStore {
  return new RetryingStore(store, options);
}
