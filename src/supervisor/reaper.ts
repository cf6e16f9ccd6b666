/**
 * Reaps orphans: as PID 1 and as subreaper the dead of others become our children and stay zombies until somebody
 * takes their status. Never `waitpid(-1)`: each pid that is not in the own set is asked for by number.
 */

import { ownChildren } from "../platform/child_process.ts";
import type { Clock } from "../platform/clock.ts";
import { becomeSubreaper, reapChild } from "../platform/libc_process.ts";
import { readChildren } from "../platform/proc.ts";

/** A burst of deaths is one scan; a zombie of 20 ms hurts nobody. */
const SETTLE_MS = 20;
/** SIGCHLD may be lost in a burst, and the kernel's list of children may miss some: look again this often. */
const RESCAN_MS = 5_000;

export interface Reaper {
  /** Tell it of SIGCHLD. */
  childExited(): void;
  /** Looks now; SIGCHLD and a slow timer do it by themselves. */
  scan(): void;
  /** Orphans reaped so far. */
  readonly reaped: number;
  stop(): void;
}

/** None where they cannot be read just now: the next scan has them. */
function childrenNow(): readonly number[] {
  try {
    return readChildren();
  } catch {
    return [];
  }
}

/** Starts reaping; makes us the subreaper of all below us, which PID 1 is anyway. */
export function startReaper(clock: Clock): Reaper {
  becomeSubreaper();
  const stopped = new AbortController();
  let reaped = 0;
  let scanIsDue = false;

  const scan = () => {
    const own = ownChildren();
    for (const pid of childrenNow()) {
      if (!own.has(pid) && reapChild(pid)) reaped++;
    }
  };
  const childExited = () => {
    if (scanIsDue || stopped.signal.aborted) return;
    scanIsDue = true;
    clock.sleep(SETTLE_MS, { signal: stopped.signal }).then(() => {
      scanIsDue = false;
      scan();
    }, () => {});
  };
  const rescan = async () => {
    while (!stopped.signal.aborted) {
      scan();
      await clock.sleep(RESCAN_MS, { signal: stopped.signal }).catch(() => {});
    }
  };
  void rescan();

  return {
    childExited,
    scan,
    get reaped() {
      return reaped;
    },
    stop: () => stopped.abort(),
  };
}
