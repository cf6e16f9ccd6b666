/** The end of everything, for PID 1 only: what still lives in the container is asked to end, then killed. */

import { sendSignalToAll } from "../platform/child_process.ts";
import type { Clock } from "../platform/clock.ts";
import { isAlive, readProcesses } from "../platform/proc.ts";

const LOOK_AGAIN_MS = 10;

export interface EndingOptions {
  readonly graceMs: number;
  readonly selfPid: number;
  /** Default: to every process that there is. */
  readonly signalAll?: (signal: "SIGTERM" | "SIGKILL") => void;
}

/**
 * Ends every other process of the container. Where we are not PID 1 it does nothing: the others are not ours. Resolves
 * when nobody is left, at the latest after `graceMs` and a KILL. With a grace of 0 nobody is asked first: nothing may be
 * written any more.
 */
export async function endEverything(
  clock: Clock,
  options: EndingOptions,
): Promise<void> {
  const { graceMs, selfPid, signalAll = sendSignalToAll } = options;
  if (selfPid !== 1) return;
  if (graceMs > 0) {
    const deadlineMs = clock.monotonicMs() + graceMs;
    signalAll("SIGTERM");
    while (othersLeft() && clock.monotonicMs() < deadlineMs) await clock.sleep(LOOK_AGAIN_MS);
  }
  signalAll("SIGKILL");
}

/**
 * Kernel threads of a virtual machine where we are init have no group; processes from outside our tree cannot be told. Where
 * nobody can be seen somebody may be left.
 */
function othersLeft(): boolean {
  try {
    return readProcesses().some((info) => info.pid !== 1 && info.groupId !== 0 && isAlive(info));
  } catch {
    return true;
  }
}
