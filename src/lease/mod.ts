/** The lease: one holder per prefix, a fencing token that only grows. */

export { fixedLease, type FixedLeaseOptions, NO_LEASE_WARNING } from "./fixed.ts";
export { LeaseHolder, type LeaseHolderOptions } from "./holder.ts";
export { decodeLease, encodeLease } from "./record.ts";
export type {
  AcquireOptions,
  Lease,
  LeaseEvent,
  LeaseRecord,
  LeaseState,
  LeaseStatus,
  LeaseTerm,
} from "./types.ts";
