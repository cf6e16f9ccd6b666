/** The begin of every run on a data folder, whether it runs programs or makes one restore. */

import { type LeaseMemory, openLeaseMemory } from "../lease/mod.ts";
import type { Clock } from "../platform/clock.ts";
import type { FolderLock } from "../platform/folder_lock.ts";
import { ownPid, readBootId } from "../platform/proc.ts";
import type { Random } from "../platform/random.ts";
import { machineName } from "../platform/self.ts";
import { clearScratch, type DataDir } from "./data_dir.ts";
import { endPredecessor } from "./predecessor.ts";
import { type RunGuard, startRun } from "./run_guard.ts";

export interface BegunRun {
  /** To be ended when all that was started is gone, before the folder's lock is let go. */
  readonly guard: RunGuard & { end(): Promise<void> };
  readonly leaseMemory: LeaseMemory;
}

/**
 * What an earlier run left is ended, its scratch cleared, our guard started. The caller holds the lock. Nothing local is
 * looked at before this: a program of the last run may still write to it. Errors: those of `readBootId` and `endPredecessor`.
 */
export async function beginRun(
  { dir, lock }: { readonly dir: DataDir; readonly lock: FolderLock },
  { clock, random, environment, signal }: {
    readonly clock: Clock;
    readonly random: Random;
    readonly environment: Readonly<Record<string, string>>;
    /** Aborts the wait for an earlier run's end. */
    readonly signal: AbortSignal;
  },
): Promise<BegunRun> {
  const bootId = readBootId();
  const predecessor = await endPredecessor({ dir, lockIdentity: lock.identity, bootId, clock, signal });
  await clearScratch(dir);
  const guard = startRun({ dir, lockIdentity: lock.identity, bootId, clock, random, environment });
  const leaseMemory = await openLeaseMemory({ // never fails: the guard is in good hands
    path: dir.leaseMemory,
    holder: `${machineName()} pid ${ownPid()}`,
    place: bootId === null ? null : { bootId, lockIdentity: lock.identity },
    predecessorIsDead: predecessor.provenDead,
  });
  return { guard, leaseMemory };
}
