/**
 * A drill: the newest state is restored to scratch and checked in full, as a disaster would have it, and thrown away.
 * It says whether a restore would work today, how long it takes and how much it reads.
 */

import { asStateManagerError, isError } from "../platform/errors.ts";
import { removeIfPresent } from "../platform/files.ts";
import { errorToWire, type WireError } from "../platform/wire_error.ts";
import type { ReplicaPlace } from "./replica_layout.ts";
import { restoreDatabase } from "./restore_database.ts";
import type { RestoreEnvironment, RestoreResult } from "./restore_types.ts";

export interface DrillRequest {
  readonly place: ReplicaPlace;
  /** Absolute path of a scratch file, on a disk with room for the database. */
  readonly file: string;
}

export interface DrillResult {
  readonly name: string;
  /**
   * failed: what is in the store does not restore to a sound database. not-run: it could not be tried (the store is
   * unreachable, the disk is full), which says nothing about the data.
   */
  readonly outcome: "passed" | "failed" | "not-run";
  /** Wall clock of the end. */
  readonly finishedMs: number;
  readonly durationMs: number;
  /** Null unless it passed. */
  readonly restored: RestoreResult | null;
  readonly error: WireError | null;
}

/** Codes that speak of the data, not of the circumstances. */
const FAILURES = ["data-damaged", "object-not-found", "not-found"] as const;

/** Never rejects but for an abort. */
export async function drillDatabase(
  { place, file }: DrillRequest,
  environment: RestoreEnvironment,
): Promise<DrillResult> {
  const { clock, signal } = environment;
  const startMs = clock.monotonicMs();
  const end = (): Pick<DrillResult, "name" | "finishedMs" | "durationMs"> => ({
    name: place.name,
    finishedMs: clock.wallMs(),
    durationMs: clock.monotonicMs() - startMs,
  });
  try {
    const request = {
      place,
      target: { kind: "newest" },
      file,
      owner: null,
      mode: 0o600,
      check: "full",
    } as const;
    const restored = await restoreDatabase(request, environment);
    return { ...end(), outcome: "passed", restored, error: null };
  } catch (error) {
    signal.throwIfAborted();
    const outcome = isError(error, ...FAILURES) ? "failed" : "not-run";
    return { ...end(), outcome, restored: null, error: errorToWire(asStateManagerError(error)) };
  } finally {
    await removeIfPresent(file).catch(() => {}); // scratch: emptied by its owner at the next start at the latest
  }
}
