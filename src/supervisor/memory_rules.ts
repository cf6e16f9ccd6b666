/** When a process has had too much memory for too long: one measurement after the other, pure. */

export interface MemoryLimit {
  /** From here on there is a warning. */
  readonly warnBytes: number;
  readonly maxBytes: number;
  /** So long without a break above `maxBytes`, and it is restarted: a peak is no leak. */
  readonly forMs: number;
}

export interface MemoryState {
  /** What is known is of this incarnation. */
  readonly incarnation: number;
  /** Monotonic; null while it is not above. */
  readonly aboveSinceMs: number | null;
  readonly warned: boolean;
}

export interface MemorySample {
  readonly incarnation: number;
  readonly bytes: number;
  readonly nowMs: number;
}

export type MemoryVerdict = "fine" | "warn" | "restart";

export const NEW_MEMORY_STATE: MemoryState = { incarnation: 0, aboveSinceMs: null, warned: false };

/** Below this part of the warning level the next warning is armed: one that swings about it is told of once. */
const REARM_PART = 0.9;

export function memoryStep(
  limit: MemoryLimit,
  before: MemoryState,
  { incarnation, bytes, nowMs }: MemorySample,
): { readonly state: MemoryState; readonly verdict: MemoryVerdict } {
  const known = before.incarnation === incarnation ? before : { ...NEW_MEMORY_STATE, incarnation };
  const aboveSinceMs = bytes > limit.maxBytes ? known.aboveSinceMs ?? nowMs : null;
  if (aboveSinceMs !== null && nowMs - aboveSinceMs >= limit.forMs) {
    return { state: { ...NEW_MEMORY_STATE, incarnation }, verdict: "restart" };
  }
  const high = bytes >= limit.warnBytes;
  const warned = high || (known.warned && bytes >= limit.warnBytes * REARM_PART);
  return {
    state: { incarnation, aboveSinceMs, warned },
    verdict: high && !known.warned ? "warn" : "fine",
  };
}
