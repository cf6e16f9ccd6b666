/**
 * `Idempotency-Key`: a caller that lost our answer asks again with the same key and gets the first call's outcome
 * instead of a second checkpoint or restore. Kept in memory: after a restart of the manager the key is new again,
 * which the documentation says. Failures are forgotten, so that trying again tries again.
 */

import { createHash } from "node:crypto";
import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { invalid } from "./body.ts";
import type { ServerContext } from "./env.ts";
import type { Operation } from "./operation.ts";

/** Most keys at once; outcomes are a few KiB each. The oldest goes first. */
const MAX_KEYS = 256;

/** How long an outcome is remembered. */
const KEPT_MS = 24 * 3600 * 1000;

interface Kept {
  readonly fingerprint: string;
  readonly operation: Operation<unknown>;
  readonly atMs: number;
}

export class IdempotencyKeys {
  readonly #clock: Clock;
  readonly #kept = new Map<string, Kept>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * The operation that `start` makes, or the one that an earlier request with the same key made. The same key with
   * another body is the caller's mistake: 422.
   */
  once<T>(
    c: ServerContext,
    body: unknown,
    start: () => Operation<T>,
  ): Operation<T> {
    const key = c.req.header("idempotency-key");
    if (key === undefined) return start();
    if (!/^[\x21-\x7e]{1,255}$/.test(key)) {
      throw invalid([{
        pointer: "",
        detail: "Idempotency-Key: want 1 to 255 visible ASCII characters",
      }]);
    }
    this.#forgetOld();
    const scope = `${c.get("caller")?.name ?? ""}\n${c.req.method} ${c.req.path}\n${key}`;
    const fingerprint = createHash("sha256").update(JSON.stringify(body))
      .digest("hex");
    const earlier = this.#kept.get(scope);
    if (earlier !== undefined) {
      if (earlier.fingerprint !== fingerprint) {
        throw new StateManagerError(
          "invalid-request",
          "repeat the request: this key came with another body before",
          {
            hint: "use a new Idempotency-Key for a new request",
          },
        );
      }
      return earlier.operation as Operation<T>; // same scope, thus the same route and the same T
    }
    const operation = start();
    const kept: Kept = {
      fingerprint,
      operation,
      atMs: this.#clock.monotonicMs(),
    };
    this.#kept.set(scope, kept);
    operation.result.catch(() => {
      if (this.#kept.get(scope) === kept) this.#kept.delete(scope);
    });
    return operation;
  }

  #forgetOld(): void {
    const horizon = this.#clock.monotonicMs() - KEPT_MS;
    for (const [scope, kept] of this.#kept) { // in order of insertion: oldest first
      if (kept.atMs > horizon && this.#kept.size < MAX_KEYS) break;
      this.#kept.delete(scope);
    }
  }
}
