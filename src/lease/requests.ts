/** One request of the lease machine against the store: always one answer, within its deadline, as the machine's event. */

import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { MachineEffect, MachineEvent } from "./machine.ts";
import { decodeLease, encodeLease } from "./record.ts";

export interface LeaseRequests {
  readonly store: ObjectStore;
  readonly key: string;
  readonly clock: Clock;
  readonly timeoutMs: number;
}

export type RequestEffect = Extract<MachineEffect, { readonly type: "get" | "put" }>;

/**
 * Sends it once. Never rejects, and answers in time even where the store ignores its signal; the store may then still
 * carry a put out, which is what "unknown" says.
 */
export function perform(
  requests: LeaseRequests,
  effect: RequestEffect,
  signal: AbortSignal,
): Promise<MachineEvent> {
  const { timeoutMs } = requests;
  return withinTime(
    requests,
    signal,
    (either) => effect.type === "get" ? get(requests, either) : put(requests, effect, either),
    () => {
      const error = new StateManagerError("store-unreachable", `${WHAT}: no answer in ${timeoutMs} ms`);
      return failed(effect.type, error);
    },
  );
}

/** What `act` resolves to, or `tooLate` when that takes longer than `timeoutMs`; its signal aborts then. */
export async function withinTime<T>(
  { clock, timeoutMs }: Pick<LeaseRequests, "clock" | "timeoutMs">,
  signal: AbortSignal,
  act: (signal: AbortSignal) => Promise<T>,
  tooLate: () => T,
): Promise<T> {
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  const outcome = act(either);
  const late = clock.sleep(timeoutMs, { signal: either }).then(
    tooLate,
    () => outcome, // answered before, or not wanted any more
  );
  try {
    return await Promise.race([outcome, late]);
  } finally {
    over.abort(new StateManagerError("cancelled", `${WHAT}: cancelled`));
  }
}

const WHAT = "reach lease";

async function get({ store, key, timeoutMs }: LeaseRequests, signal: AbortSignal): Promise<MachineEvent> {
  try {
    const { etag, body } = await store.get(key, { signal, timeoutMs });
    return { type: "read", found: { etag, record: decodeLease(body) } };
  } catch (error) {
    if (isError(error, "object-not-found")) return { type: "read", found: null };
    if (isError(error, "data-damaged", "format-too-new")) return { type: "unreadable", error };
    return failed("get", error);
  }
}

async function put(
  { store, key, timeoutMs }: LeaseRequests,
  { record, base }: Extract<RequestEffect, { readonly type: "put" }>,
  signal: AbortSignal,
): Promise<MachineEvent> {
  const condition = base === null ? { absent: true } as const : { etag: base.etag };
  try {
    const { etag } = await store.put(key, encodeLease(record), { condition, signal, timeoutMs });
    return { type: "written", etag };
  } catch (error) {
    return isError(error, "precondition-failed") ? { type: "refused" } : failed("put", error);
  }
}

/** Whatever went wrong, a put may have landed. */
function failed(type: "get" | "put", cause: unknown): MachineEvent {
  const error = asStateManagerError(cause, "store-unreachable");
  return type === "get" ? { type: "read-failed", error } : { type: "unknown", error };
}
