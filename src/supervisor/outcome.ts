/** How a run of all processes ended, and the exit code that says so. Pure. */

import type { ChildExit } from "../platform/child_process.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { Machine } from "./machine.ts";
import { isEnded, isLive } from "./machine.ts";
import type { ExitCause, ProcessSpec, SupervisorOutcome } from "./types.ts";

export interface ProcessEnd {
  readonly spec: ProcessSpec;
  readonly machine: Machine;
}

/** A scheduled process that is no service: each tick starts one run of it. */
export function isJob({ schedule, restart }: Pick<ProcessSpec, "schedule" | "restart">): boolean {
  return schedule !== null && restart !== "always";
}

/** Exit code where the status was lost (somebody else reaped our child): a failure, and no code of a program's own. */
const STATUS_LOST_CODE = 255;

/** How a child ended, when it has. Never rejects. */
export function causeOf(status: Promise<ChildExit>): Promise<ExitCause> {
  return status.then(
    ({ code, signal, dumped }) =>
      signal === null
        ? { kind: "exit", code }
        : { kind: "signal", signal, number: code - 128, ...(dumped === true ? { dumped } : {}) },
    () => ({ kind: "exit", code: STATUS_LOST_CODE }),
  );
}

/** As a shell says it: the code, 128 + signal, 127 not found, 126 could not be run. */
export function exitCodeOfCause(cause: ExitCause): number {
  return cause.kind === "signal" ? 128 + cause.number : cause.code;
}

/**
 * The outcome, or null while there is none. `stopRequested`: everything was stopped by us, so exits say nothing; only a
 * lone process passes its code on even then, since the manager stands in its place.
 */
export function outcomeOf(ends: readonly ProcessEnd[], stopRequested: boolean): SupervisorOutcome | null {
  const fallen = ends.find(({ spec, machine }) =>
    spec.essential && (machine.state === "failed" || machine.state === "skipped")
  );
  if (fallen !== undefined) return failureOf(fallen);
  // A job that only waits for its next tick is nothing to wait for; jobs alone are there for their ticks,
  // and what is watched is there for the next change.
  if (!stopRequested && ends.every(({ spec }) => isJob(spec) || spec.watch !== null)) return null;
  const isOver = ({ spec, machine }: ProcessEnd) =>
    isEnded(machine) || (isJob(spec) && (machine.state === "waiting" || machine.state === "pending"));
  if (ends.some((end) => isLive(end.machine) || !isOver(end))) return null;
  // A process that a person stopped waits to be started again: that is no end.
  if (!stopRequested && ends.some(({ machine }) => machine.state === "stopped")) return null;
  const lone = ends.length === 1 ? ends[0]?.machine.exit : undefined;
  return { exitCode: lone ? exitCodeOfCause(lone) : 0, decidedBy: null, error: null };
}

function failureOf({ spec, machine }: ProcessEnd): SupervisorOutcome {
  const { exit, reason } = machine;
  // A failure is never told as 0: a skipped one has no code, and success_exit or a start limit may stand on one.
  const exitCode = exit === null ? 1 : exitCodeOfCause(exit) || 1;
  const error = exit === null || exit.kind === "spawn-error"
    ? new StateManagerError("spawn-failed", `start ${spec.name}: ${reason ?? "not started"}`, {
      hint: "check its command, its working folder and what it depends on",
    })
    : null;
  return { exitCode, decidedBy: spec.name, error };
}
