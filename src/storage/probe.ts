/**
 * What a store must prove before it is trusted: that it does what conditional writes say. Some stores accept the
 * headers and ignore them; two holders of one lease would follow. Everything happens under one fresh key.
 */

import type { Clock } from "../platform/clock.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { type Random, randomHex } from "../platform/random.ts";
import type { ETag, ObjectStore, PutOptions, RequestOptions } from "./object_store.ts";

export interface ProbeOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly signal?: AbortSignal;
  /** true: also what conditions mean to large puts, for who depends on them: some stores know them of small ones only. */
  readonly large?: boolean;
  /** For each single operation. */
  readonly timeoutMs?: number;
}

export interface ProbeResult {
  readonly durationMs: number;
  /** All true, or the probe throws; for the status and the documentation of what was seen. */
  readonly capabilities: {
    readonly createIfAbsent: true;
    readonly compareAndSwap: true;
    readonly readAfterWrite: true;
    readonly listAfterWrite: true;
  };
}

/** As many creators at once as celld's and Litestream's qualifications use; one may win. */
const RACERS = 8;
const DEFAULT_TIMEOUT_MS = 15_000;
/** Cleaning up after a probe that failed must not add much to its error. */
const CLEANUP_TIMEOUT_MS = 5_000;

type Bytes = Uint8Array<ArrayBuffer>;

class Probe {
  readonly #store: ObjectStore;
  readonly #request: RequestOptions;
  readonly #key: string;
  readonly #nonce: string;
  readonly #large: boolean;

  constructor(store: ObjectStore, options: ProbeOptions) {
    this.#store = store;
    const { signal, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    this.#request = signal === undefined ? { timeoutMs } : { signal, timeoutMs };
    this.#large = options.large === true;
    this.#nonce = randomHex(options.random);
    this.#key = `probe-${this.#nonce}`;
  }

  get keys(): readonly string[] {
    return [this.#key, `${this.#key}-race`, ...(this.#large ? [this.#largeKey] : [])];
  }

  get #largeKey(): string {
    return `${this.#key}-large`;
  }

  async run(): Promise<void> {
    const created = await this.#create();
    await this.#swap(created);
    await this.#list();
    await this.#race(`${this.#key}-race`, (key, body, options) => this.#store.put(key, body, options));
    if (!this.#large) return;
    const options = { ...this.#request, condition: { absent: true } } as const;
    try {
      await this.#putLarge(this.#key, this.#body("create large"), options);
    } catch (error) {
      if (!isError(error, "precondition-failed")) throw error;
      await this.#mustHold("swap", "a refused create in parts changed the object");
      return await this.#race(this.#largeKey, (...call) => this.#putLarge(...call));
    }
    throw this.#unsafe("a create in parts of an object that exists succeeded");
  }

  #putLarge(key: string, body: Bytes, options: PutOptions): Promise<{ readonly etag: ETag }> {
    async function* pieces() {
      yield await Promise.resolve(body);
    }
    return this.#store.putLarge(key, pieces(), { ...options, sizeBytes: body.length, inParts: true });
  }

  async #create(): Promise<ETag> {
    const { etag } = await this.#store.put(this.#key, this.#body("create"), {
      ...this.#request,
      condition: { absent: true },
    });
    await this.#mustFail(
      this.#key,
      "create again",
      { absent: true },
      "a create of an object that exists succeeded",
    );
    await this.#mustHold("create", "a refused create changed the object, or a read after a write missed it");
    return etag;
  }

  async #swap(created: ETag): Promise<void> {
    const condition = { etag: created };
    const { etag } = await this.#store.put(this.#key, this.#body("swap"), { ...this.#request, condition });
    if (etag === created) throw this.#unsafe("a swap left the object's tag as it was");
    await this.#mustFail(this.#key, "stale swap", condition, "a swap with an outdated tag succeeded");
    await this.#mustHold("swap", "a refused swap changed the object, or a read after a write missed it");
    await this.#mustFail(
      `${this.#key}-race`,
      "swap of nothing",
      condition,
      "a swap of an object that is not there succeeded",
    );
  }

  async #list(): Promise<void> {
    const { objects } = await this.#store.list({ ...this.#request, prefix: this.#key });
    if (!objects.some(({ key }) => key === this.#key)) {
      throw this.#unsafe("a listing after a write does not have the object");
    }
  }

  async #race(
    key: string,
    put: (key: string, body: Bytes, options: PutOptions) => Promise<unknown>,
  ): Promise<void> {
    const tries = await Promise.allSettled(
      Array.from({ length: RACERS }, (_, racer) =>
        put(key, this.#body(`racer ${racer}`), {
          ...this.#request,
          condition: { absent: true },
        })),
    );
    const winners = tries.filter(({ status }) => status === "fulfilled").length;
    for (const result of tries) {
      if (result.status === "rejected" && !isError(result.reason, "precondition-failed")) throw result.reason;
    }
    if (winners !== 1) throw this.#unsafe(`${RACERS} creators at once had ${winners} winners, not one`);
  }

  async #mustFail(
    key: string,
    what: string,
    condition: PutOptions["condition"] & object,
    rule: string,
  ): Promise<void> {
    try {
      await this.#store.put(key, this.#body(what), { ...this.#request, condition });
    } catch (error) {
      if (isError(error, "precondition-failed")) return;
      throw error;
    }
    throw this.#unsafe(rule);
  }

  async #mustHold(what: string, rule: string): Promise<void> {
    const { body } = await this.#store.get(this.#key, this.#request);
    if (new TextDecoder().decode(body) !== this.#text(what)) throw this.#unsafe(rule);
  }

  #text(what: string): string {
    return `state-manager probe ${this.#nonce}: ${what}\n`;
  }

  #body(what: string): Bytes {
    return new TextEncoder().encode(this.#text(what));
  }

  #unsafe(rule: string): StateManagerError {
    return new StateManagerError("store-unsafe", `probe ${this.#store.description}: ${rule}`, {
      hint:
        "use a store with conditional writes (If-None-Match and If-Match on PUT), or lease.mode: none at your own risk",
    });
  }
}

/** Throws `store-unsafe` with the rule that the store broke; other errors are the store's own. */
export async function probeStore(store: ObjectStore, options: ProbeOptions): Promise<ProbeResult> {
  const since = options.clock.monotonicMs();
  const probe = new Probe(store, options);
  try {
    await probe.run();
  } catch (error) {
    // If we die here, or can't delete, two small objects named "probe-…" are left, which mean nothing to anybody.
    const cleanup = { timeoutMs: CLEANUP_TIMEOUT_MS };
    await Promise.allSettled(probe.keys.map((key) => store.delete(key, cleanup)));
    throw error;
  }
  const { signal } = options;
  const request = {
    timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    ...(signal === undefined ? {} : { signal }),
  };
  for (const key of probe.keys) await store.delete(key, request);
  return {
    durationMs: options.clock.monotonicMs() - since,
    capabilities: { createIfAbsent: true, compareAndSwap: true, readAfterWrite: true, listAfterWrite: true },
  };
}
