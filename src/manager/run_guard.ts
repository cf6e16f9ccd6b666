/** One manager process as its programs' keeper: its run id, the guard that outlives it, and the record for the next start. */

import type { Clock } from "../platform/clock.ts";
import { log } from "../platform/log.ts";
import { ownPid, startTicksOf } from "../platform/proc.ts";
import { type Random, randomHex } from "../platform/random.ts";
import { Guard, joinWatches, type UnitWatch } from "../supervisor/mod.ts";
import type { DataDir } from "./data_dir.ts";
import { UnitRecord } from "./unit_record.ts";

const RUN_ID_BYTES = 8;

/** What a session needs of it. */
export interface RunGuard {
  /** The last part of the tag of all that this manager process starts. */
  readonly runId: string;
  /** To be told of every program, and of every child of the manager that works for a session. */
  readonly units: UnitWatch;
  /** Resolves when the guard holds its lock and the run id is durable: nothing may be spawned before. `signal` ends it. */
  ready(signal: AbortSignal): Promise<void>;
  /** What still runs at this moment of CLOCK_BOOTTIME is killed by the guard; null: none. Resolves when it is told. */
  deadline(killAtMs: number | null): Promise<void>;
  /** Who hears that the guard killed what ran past its deadline; null: nobody. */
  onKilled: (() => void) | null;
}

export interface RunGuardOptions {
  readonly dir: Pick<DataDir, "guardLock" | "units">;
  /** Of manager.lock, which we hold. */
  readonly lockIdentity: string;
  /** `readBootId` of platform/proc.ts. */
  readonly bootId: string | null;
  readonly clock: Clock;
  readonly random: Random;
  readonly environment: Readonly<Record<string, string>>;
}

/** Starts the guard and writes the record, side by side; `end` when all programs are stopped. Never throws. */
export function startRun(options: RunGuardOptions): RunGuard & { end(): Promise<void> } {
  const { dir, lockIdentity, bootId, clock, random, environment } = options;
  const runId = randomHex(random, RUN_ID_BYTES);
  const pid = ownPid();
  const manager = { pid, startTicks: startTicksOf(pid) };
  const record = new UnitRecord(dir.units, { bootId, runId, lockIdentity, manager }, clock);
  const guard = new Guard({
    lockPath: dir.guardLock,
    runId,
    clock,
    log: log("guard"),
    environment,
    onReport: ({ type }) => {
      if (type === "killed") run.onKilled?.();
    },
  });
  guard.start();
  const begun = record.begin();
  begun.catch(() => {}); // heard by whoever waits for `ready`
  const run: RunGuard & { end(): Promise<void> } = {
    runId,
    onKilled: null,
    units: joinWatches(guard.units, record),
    ready: async (signal) => {
      await Promise.all([guard.ready(signal), begun]);
    },
    deadline: (killAtMs) => guard.deadline(killAtMs),
    end: async () => {
      await guard.end();
      await begun.catch(() => {});
      await record.end();
    },
  };
  return run;
}
