/**
 * The manager before this one on the same data folder: waits until its guard is done, and ends whatever both left
 * behind when both were killed. Only then is anything local read, restored or started. Nothing is killed that is not
 * proven to be of that run: by its tag, or by a recorded pid with the recorded start time, in the same boot.
 */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { lockFolder } from "../platform/folder_lock.ts";
import { log } from "../platform/log.ts";
import { isAlive, ownPid, type ProcessInfo, readProcess } from "../platform/proc.ts";
import { Sweeper, systemSweep } from "../supervisor/mod.ts";
import type { DataDir } from "./data_dir.ts";
import { readRunRecord, type RunRecord } from "./unit_record.ts";

/** Longest wait for the guard of the manager before: it kills in milliseconds; longer is a process in the kernel. */
const GUARD_LIMIT_MS = 30_000;
/** A guard that is just done is noticed at once. */
const LOCK_POLL_MS = 20;
/** Longest wait for leftovers to die after their KILL. */
const LEFTOVERS_LIMIT_MS = 10_000;
const SWEEP_FIRST_MS = 5;
const SWEEP_LONGEST_MS = 500;
/** A child between fork and exec bears no tag yet: a second look, this much later, must find nobody either. */
const SETTLE_MS = 50;
/** Pids named in an error; more would bury the message. */
const NAMED_PROCESSES = 10;

const logger = log("predecessor");

export interface Predecessor {
  /** Null: there was none, or its record is of no use. */
  readonly runId: string | null;
  /**
   * The manager before and all that it started are proven dead: both locks were free, its record is of this boot and
   * of this very folder, no copy, and nothing of it is alive. Without it nothing may be concluded about what may still write.
   */
  readonly provenDead: boolean;
  /** How many leftover processes were killed. */
  readonly killed: number;
}

export interface PredecessorOptions {
  readonly dir: Pick<DataDir, "path" | "guardLock" | "units">;
  /** Of manager.lock, which the caller holds. */
  readonly lockIdentity: string;
  readonly clock: Clock;
  /** Aborts the wait. */
  readonly signal: AbortSignal;
  /** `readBootId` of platform/proc.ts. */
  readonly bootId: string | null;
  readonly guardLimitMs?: number;
}

/**
 * The caller holds the manager's lock. Errors: `busy` when the guard before does not end in time, `timeout` when a
 * leftover cannot be killed, the signal's reason.
 */
export async function endPredecessor(options: PredecessorOptions): Promise<Predecessor> {
  const { dir, lockIdentity, bootId } = options;
  await waitForGuard(options);
  const record = await readRunRecord(dir.units);
  if (record === null) return { runId: null, provenDead: false, killed: 0 };
  if (record === "damaged") {
    logger.warn("the record of the last run is damaged: programs that it left could not be found", {
      path: dir.units,
    });
    return { runId: null, provenDead: false, killed: 0 };
  }
  // A boot ends all processes; the same folder on another host is a copy or a moved volume.
  if (bootId === null || record.bootId !== bootId) {
    return { runId: record.runId, provenDead: false, killed: 0 };
  }
  if (isManagerAlive(record)) {
    logger.warn(
      "the manager that this folder's record names is alive: the folder is a copy, nothing is ended",
      {
        pid: record.manager.pid,
      },
    );
    return { runId: record.runId, provenDead: false, killed: 0 };
  }
  const killed = record.ended ? 0 : await endLeftovers(record, options);
  // A copy beside the original on the same machine: in a PID namespace of its own the original's manager is not seen.
  return { runId: record.runId, provenDead: record.lockIdentity === lockIdentity, killed };
}

/** Its lock was on another file than ours, else we would not be here. */
function isManagerAlive({ manager }: RunRecord): boolean {
  const info = readProcess(manager.pid);
  return info !== null && isAlive(info) && info.startTicks === manager.startTicks && info.pid !== ownPid();
}

/** Its lock tells: the guard holds it until all that it was told of is dead. */
async function waitForGuard({ dir, clock, signal, guardLimitMs }: PredecessorOptions): Promise<void> {
  const limitMs = guardLimitMs ?? GUARD_LIMIT_MS;
  const startMs = clock.monotonicMs();
  for (let isFirst = true;; isFirst = false) {
    const lock = lockFolder(dir.guardLock);
    if (lock !== null) return lock.release();
    if (isFirst) {
      logger.info(
        "waiting for the guard of the manager before: it holds guard.lock until its programs are dead",
        {
          path: dir.guardLock,
        },
      );
    }
    if (clock.monotonicMs() - startMs >= limitMs) {
      throw new StateManagerError(
        "busy",
        `open data folder ${dir.path}: the guard of the manager before still holds guard.lock after ${
          Math.round(limitMs / 1000)
        } s, wanted free`,
        {
          hint:
            "a program of the last run cannot be killed (state D in ps: a dead disk or network mount): end it, " +
            "then start again",
        },
      );
    }
    await clock.sleep(LOCK_POLL_MS, { signal });
  }
}

async function endLeftovers(record: RunRecord, { clock, signal }: PredecessorOptions): Promise<number> {
  const sweeper = new Sweeper(systemSweep(ownPid()), { fromRecord: true });
  const endMs = clock.monotonicMs() + LEFTOVERS_LIMIT_MS;
  const killed = new Set<number>();
  let cleanLooks = 0;
  let pauseMs = SWEEP_FIRST_MS;
  while (cleanLooks < 2) {
    const found = sweeper.sweep(record.units, record.runId);
    cleanLooks = found.length === 0 ? cleanLooks + 1 : 0;
    if (killed.size === 0 && found.length > 0) {
      logger.warn("ending what the last run left running", { processes: namesOf(found) });
    }
    for (const { pid } of found) killed.add(pid);
    if (found.length > 0 && clock.monotonicMs() >= endMs) throw unkillable(found);
    if (cleanLooks === 2) break;
    await clock.sleep(found.length === 0 ? SETTLE_MS : pauseMs, { signal });
    if (found.length > 0) pauseMs = Math.min(pauseMs * 2, SWEEP_LONGEST_MS);
  }
  return killed.size;
}

function namesOf(found: readonly ProcessInfo[]): string[] {
  return found.slice(0, NAMED_PROCESSES).map(({ pid, name, state }) => `${pid} (${name}, ${state})`);
}

function unkillable(found: readonly ProcessInfo[]): StateManagerError {
  return new StateManagerError(
    "timeout",
    `end what the last run left running: still alive after KILL: ${namesOf(found).join(", ")}`,
    {
      hint:
        "in state D they wait for a disk or network mount; of another user, start as that user or as root: " +
        "end them, then start again",
    },
  );
}
