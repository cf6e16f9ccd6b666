/** The lease: one holder per prefix, a fencing token that only grows. */

export { fixedLease, type FixedLeaseOptions, NO_LEASE_WARNING } from "./fixed.ts";
export { LeaseHolder, type LeaseHolderOptions } from "./holder.ts";
export { type LeaseMemoryOptions, type MemoryPlace, openLeaseMemory } from "./memory.ts";
export { decodeLease, encodeLease, HAND_OVER_KEY, LEASE_KEY } from "./record.ts";
export type { LeaseTurn } from "./machine.ts";
export type {
  AcquireOptions,
  Asker,
  HandOverRequest,
  Lease,
  LeaseEvent,
  LeaseMemory,
  LeaseRecord,
  LeaseState,
  LeaseStatus,
  LeaseTerm,
  ReleaseOptions,
} from "./types.ts";
