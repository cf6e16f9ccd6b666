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
  /** In a released record: the holder id it was released to; others leave it a short while before they claim. */
  readonly to?: string;
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
 * held: ours, inside the margin. suspended: the deadline (TTL less margin) passed without a confirmed renewal, or the
 * clocks cast doubt on it; nothing may be written; it becomes held again if a renewal by swap on our own nonce
 * succeeds, else lost.
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

/** `hand-over.json`, beside the lease: one that waits asks for the term that it saw. */
export interface HandOverRequest {
  readonly v: 1;
  /** The term that is asked for; another one's holder does not care. */
  readonly token: number;
  /** Holder id of the one that asks. */
  readonly asker: string;
  /** Random per request, so that no two have one tag. */
  readonly nonce: string;
  /** For people. */
  readonly info: Readonly<Record<string, string>>;
}

/** Another one that asked for our term, by `hand-over.json`. */
export interface Asker {
  readonly holder: string;
  readonly info: Readonly<Record<string, string>>;
}

/**
 * What the manager is told, in order; never twice the same in a row. A term: `acquired`, `renewed` at once and for each
 * confirmed renewal, any number of `suspended` … `regained`, `renewed`; then `lost` or `released`, or neither when a
 * release was not confirmed in time. A term in doubt (see `confirmHeld`) is not told of unless its deadline passes.
 */
export type LeaseEvent =
  | { readonly type: "waiting"; readonly heldBy: LeaseStatus["heldBy"] }
  | { readonly type: "acquired"; readonly term: LeaseTerm }
  /**
   * Until when the term lasts, by the monotonic clock: at `fenceAtMs` the holder fences itself, at `killAtMs` (half of
   * the margin later, and still before anybody else may hold it) a guard kills what runs all the same.
   */
  | { readonly type: "renewed"; readonly fenceAtMs: number; readonly killAtMs: number }
  /** Somebody asks for this term; at most once per term, and never while it is suspended. */
  | { readonly type: "asked"; readonly by: Asker }
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

export interface ReleaseOptions {
  readonly timeoutMs?: number;
  readonly to?: string;
}

/**
 * What outlives a crash of the holder, so that its successor on the same machine need not wait for the TTL
 * (memory.ts has the one kept in a file).
 */
export interface LeaseMemory {
  /** Nonces that a predecessor, proven dead with its programs, wrote or was about to write. */
  readonly inherited: readonly string[];
  /** Keeps these instead of what was kept before; none: nothing of ours is held in the store. */
  remember(nonces: readonly string[]): Promise<void>;
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
   * Throws `lease-not-held` when suspended, in doubt, not held, or less than `minimumMs` remain, `lease-lost` after a
   * loss. Reads the clocks itself, so it is right even when every timer of a paused process comes late.
   */
  assertHeld(minimumMs?: number): void;
  /**
   * Resolves when `assertHeld(minimumMs)` holds, rejects with its error. After the wall clock jumped ahead it first
   * waits, no longer than the term lasts, until the store has proven the term anew. What comes after the await needs
   * `assertHeld` of its own, right before the write.
   */
  confirmHeld(minimumMs?: number): Promise<void>;
  /**
   * Ends the term, or an acquire under way. The term's work must have ended before: from the call on `assertHeld`
   * throws. Resolves when the store says `released` (at once when nothing is held); rejects with `timeout` when that
   * is not confirmed within `timeoutMs` (others then wait for the TTL), or `lease-lost`. `to` is the holder id that may
   * take it at once, where others wait a short grace.
   */
  release(options?: ReleaseOptions): Promise<void>;
  /** `release` that never rejects. */
  [Symbol.asyncDispose](): Promise<void>;
}
