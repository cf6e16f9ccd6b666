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

export interface AcquireOptions {
  /**
   * true: until it is ours. false: `lease-held-elsewhere` at once when somebody holds it. A number: the same after so
   * many milliseconds.
   */
  readonly wait: boolean | number;
  readonly signal?: AbortSignal;
}

/** What the rest of the program knows of the lease, whether a store keeps it or nobody does. */
export interface Lease {
  /**
   * Resolves when the term has begun. Rejects with `lease-held-elsewhere`, `store-unreachable` (not once reached before
   * `wait` ran out, or refused for good at the first try), `data-damaged`, `format-too-new`, `wrong-state` (held or
   * under way already), or the signal's reason. Nothing of ours stays in the store then, or it is released.
   */
  acquire(options: AcquireOptions): Promise<LeaseTerm>;
  /** The term while it is held or suspended, else null. */
  readonly term: LeaseTerm | null;
  readonly status: LeaseStatus;
  /**
   * Of the current or last term: aborts when the term is lost, with `lease-lost`; not when it is suspended, nor by a
   * release. Before the first term it is aborted already.
   */
  readonly signal: AbortSignal;
  /**
   * Throws `lease-not-held` when suspended, not held, or less than `minimumMs` remain, `lease-lost` after a loss. Reads
   * the clock itself, so it is right even when every timer of a paused process comes late.
   */
  assertHeld(minimumMs?: number): void;
  /**
   * Ends the term, or an acquire under way. The term's work must have ended before: from the call on `assertHeld`
   * throws. Resolves when the store says `released` (at once when nothing is held); rejects with `timeout` when that
   * is not confirmed within `timeoutMs` (others then wait for the TTL), or `lease-lost`.
   */
  release(options?: { readonly timeoutMs?: number }): Promise<void>;
  /** `release` that never rejects. */
  [Symbol.asyncDispose](): Promise<void>;
}
