/** Which ends of a process are worth a crash file, and what stands in it. */

import {
  CRASH_LINES,
  type CrashReport,
  isSuccess,
  type OutputLine,
  type ProcessSpec,
} from "../supervisor/mod.ts";
import type { SupervisorEvent } from "../supervisor/types.ts";

/** Null: it was asked for, or no failure. */
export function crashReport(
  event: SupervisorEvent,
  specs: () => readonly ProcessSpec[],
  wallMs: number,
  lastLines: (name: string, limit: number) => readonly OutputLine[],
): CrashReport | null {
  if (event.type !== "exited" || event.requested) return null;
  const spec = specs().find(({ name }) => name === event.name);
  if (spec === undefined || (event.restartFor === null && isSuccess(spec, event.cause))) return null;
  const { name, cause, uptimeMs, pid, incarnation } = event;
  return {
    name,
    wallMs,
    cause,
    uptimeMs,
    pid,
    incarnation,
    restartFor: event.restartFor,
    program: spec.command[0] ?? "",
    cwd: spec.cwd,
    environment: [...new Set([...Object.keys(spec.env), ...Object.keys(spec.ownEnv)])],
    limits: spec.execution.limits,
    lines: lastLines(name, CRASH_LINES),
  };
}
