/** `lease.mode: none`: a lease that nobody keeps. It gives the program its token and protects nothing. */

import { StateManagerError } from "../platform/errors.ts";
import { type Random, randomHex } from "../platform/random.ts";
import type { AcquireOptions, Lease, LeaseEvent, LeaseStatus, LeaseTerm } from "./types.ts";

/** To be said at every start and in the status while it holds. */
export const NO_LEASE_WARNING =
  "lease.mode is none: NOTHING keeps a second manager from writing to this prefix at the same time. " +
  "Two at once WILL damage the data. Use it only where something else guarantees a single one.";

export interface FixedLeaseOptions {
  /** Highest token found in the data; the first term's is one more. */
  readonly highestToken: number;
  readonly random: Random;
  readonly onEvent: (event: LeaseEvent) => void;
}

/** A lease that is always ours when asked for. `remainingMs` is null and no "renewed" is told: it never ends by itself. */
export function fixedLease(options: FixedLeaseOptions): Lease {
  const { random, onEvent } = options;
  const holder = randomHex(random);
  const never = new AbortController();
  let state: "idle" | "held" | "released" = "idle";
  let token = options.highestToken;
  let term: LeaseTerm | null = null;

  const lease: Lease = {
    acquire({ signal }: AcquireOptions): Promise<LeaseTerm> {
      if (signal?.aborted) return Promise.reject(signal.reason);
      if (term !== null) {
        return Promise.reject(new StateManagerError("wrong-state", "acquire lease: it is held already"));
      }
      state = "held";
      term = { token: ++token, holder, previous: null, clean: true };
      onEvent({ type: "acquired", term });
      return Promise.resolve(term);
    },
    get term() {
      return term;
    },
    get status(): LeaseStatus {
      return {
        state,
        token: term?.token ?? null,
        holder,
        remainingMs: null,
        heldBy: null,
        lastError: null,
      };
    },
    get signal() {
      return never.signal;
    },
    assertHeld(): void {
      if (term === null) throw new StateManagerError("lease-not-held", `use lease: it is ${state}`);
    },
    confirmHeld(): Promise<void> {
      return new Promise((resolve) => resolve(lease.assertHeld()));
    },
    release(): Promise<void> {
      if (term !== null) {
        term = null;
        state = "released";
        onEvent({ type: "released" });
      }
      return Promise.resolve();
    },
    [Symbol.asyncDispose]: () => lease.release(),
  };
  return lease;
}
