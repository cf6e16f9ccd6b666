/** Supervision of processes: start, restart, stop, freeze, kill; and the duties of PID 1. */

export { runCommand } from "./command.ts";
export type { CommandOptions } from "./command.ts";
export { conditionOf, orderOf } from "./dependencies.ts";
export type { Condition } from "./dependencies.ts";
export { endEverything } from "./ending.ts";
export { Guard, startGuard } from "./guard_client.ts";
export type { GuardOptions, GuardStatus } from "./guard_client.ts";
export { CRASH_LINES, CrashFiles } from "./crash_files.ts";
export type { CrashInfo, CrashReport } from "./crash_files.ts";
export { inheritedVariables } from "./inherited.ts";
export type { InheritedFolder } from "./inherited.ts";
export { linesOf, RING_LIMIT_LINES, sliceOf } from "./line_ring.ts";
export type { NumberedBatch, OutputLine } from "./line_ring.ts";
export { copyOf, partsOf, piecesOf } from "./lines.ts";
export type { OutputBatch, OutputPiece, OutputStream } from "./lines.ts";
export { LogFollower } from "./log_follower.ts";
export { jsonLines, prefixed, prefixOf } from "./log_format.ts";
export type { LogFormat } from "./log_format.ts";
export { type HistoryQuery, LogHistory, openLogFiles } from "./log_history.ts";
export type { PastLine } from "./log_history.ts";
export { ProcessLogs } from "./process_logs.ts";
export type { LogSpec, PassOn, ProcessLogsOptions } from "./process_logs.ts";
export { exitCodeOfCause } from "./outcome.ts";
export { NO_PROBES } from "./probe_types.ts";
export type { ProbeCheck, ProbeSpec, ProcessProbes } from "./probe_types.ts";
export { startReaper } from "./reaper.ts";
export type { Reaper } from "./reaper.ts";
export { describeCause, isSuccess } from "./restart.ts";
export { isSame, specChanges } from "./spec_changes.ts";
export type { SpecChanges } from "./spec_changes.ts";
export { Supervisor } from "./supervisor.ts";
export type { FreezeReason, SupervisorOptions } from "./supervisor.ts";
export { Sweeper, systemSweep } from "./sweep.ts";
export type {
  Execution,
  ExitCause,
  ExitMark,
  HookName,
  OutputHandler,
  ProcessSpec,
  ProcessState,
  ProcessStatus,
  RestartPolicy,
  RestartReason,
  StopBlocker,
  StopMode,
  SupervisorEvent,
  SupervisorOutcome,
} from "./types.ts";
export { childWatches, joinWatches } from "./units.ts";
export type { ChildWatch, UnitWatch, WatchedUnit } from "./units.ts";
