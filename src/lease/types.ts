/** Shapes of the lease: the record in the store, one term, and what a holder tells about itself. */

/** `lease.json`. Never deleted; the nonce makes two writes of one holder differ, so tags never repeat (ABA). */
export interface LeaseRecord {
  readonly v: 1;
  /** Fencing token: grows by exactly one with each term, never falls. */
  readonly token: number;
  /** Random id of the holding manager process. */
  readonly holder: string;
  /** Random per write. */
  readonly nonce: string;
  readonly state: "held" | "released";
  readonly ttlMs: number;
  /** For people: host, pid, version. Never decided by. */
  readonly info: Readonly<Record<string, string>>;
}

/** One period of holding, from a won swap to release or loss. */
export interface LeaseTerm {
  readonly token: number;
  readonly holder: string;
  /**
   * The record that stood there before this term (null: none). Its token and holder say whether anybody held
   * the lease since a given earlier term of ours.
   */
  readonly previous: LeaseRecord | null;
  /** True when the term began on a `released` or absent record, false when it took over an expired one. */
  readonly clean: boolean;
}

/**
 * held: ours, inside the margin. suspended: the deadline (TTL less margin) passed without a confirmed renewal; nothing
 * may be written; it becomes held again if a renewal by swap on our own nonce succeeds, else lost.
 */
export type LeaseState = "idle" | "waiting" | "held" | "suspended" | "releasing" | "released" | "lost";

export interface LeaseStatus {
  readonly state: LeaseState;
  readonly token: number | null;
  readonly holder: string;
  /** Milliseconds until the holder fences itself; null when not held. */
  readonly remainingMs: number | null;
  /** While waiting: what is known of the other holder. */
  readonly heldBy:
    | { readonly holder: string; readonly token: number; readonly info: Record<string, string> }
    | null;
  readonly lastError: string | null;
}

/** What the manager is told, in order; never twice the same in a row. */
export type LeaseEvent =
  | { readonly type: "waiting"; readonly heldBy: LeaseStatus["heldBy"] }
  | { readonly type: "acquired"; readonly term: LeaseTerm }
  | { readonly type: "suspended"; readonly error: string }
  | { readonly type: "regained" }
  | { readonly type: "lost"; readonly error: string }
  | { readonly type: "released" };
