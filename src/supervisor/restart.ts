/** What an exit means and what follows it: success or failure, restart with a growing delay, or giving up. Pure. */

import type { Machine, SpawnFault } from "./machine.ts";
import type { ExitCause, ExitMark, ProcessSpec, RestartReason } from "./types.ts";

/** A run at least this long was stable, and twice the last delay: else a slow crash loop would reset its own backoff. */
export const STABLE_AFTER_MS = 10_000;
/** With `restart_delay: 0s` only what ran at least this long comes back at once: what ends at once would take a core. */
export const AT_ONCE_AFTER_MS = 1_000;
/** The first delay after a shorter run then; it grows like any other. */
const LEAST_DELAY_MS = 10;

/**
 * Exit 0 and what the configuration names. A signal is success only by its name, not even one that looks like ours, and
 * never where the kernel sent it for want of memory: nobody means that by naming SIGKILL.
 */
export function isSuccess(spec: ProcessSpec, cause: ExitCause): boolean {
  if (cause.kind === "signal" && cause.oom === true) return false;
  return (cause.kind === "exit" && cause.code === 0) || isMarked(spec.successExit, cause);
}

/** A code never stands for a signal: 143 is a program that caught SIGTERM and ended by itself. */
function isMarked(marks: readonly ExitMark[], cause: ExitCause): boolean {
  if (cause.kind === "exit") return marks.includes(cause.code);
  return cause.kind === "signal" && marks.some((mark) => mark === cause.signal);
}

/** Restarts of what is unwell: failures, with backoff and limit. All others say nothing about its health. */
const UNWELL: ReadonlySet<RestartReason> = new Set(["startup", "liveness", "watchdog", "memory"]);

export function isFailure(reason: RestartReason | null): boolean {
  return reason !== null && UNWELL.has(reason);
}

/** The failures so far count no more: somebody wants it to be tried anew. */
export const COUNTERS_ANEW = { shortRuns: 0, lastDelayMs: 0, failureTimesMs: [] } as const;

/** Not for anything that has to do with how it ran. */
const KEEPS_COUNTERS: ReadonlySet<RestartReason> = new Set(["schedule", "dependency"]);

/** While it drains: by this end it is done, and is not started again. */
export function mayComplete(spec: ProcessSpec, machine: Machine): boolean {
  return decideNext(spec, machine, 0, 0).state === "completed";
}

const NO_FAULT: SpawnFault = { permanent: false, isShortage: false };

/** Everything of this incarnation is gone: what now? */
export function decideNext(
  spec: ProcessSpec,
  machine: Machine,
  nowMs: number,
  roll: number,
  { permanent, isShortage }: SpawnFault = NO_FAULT,
): Machine {
  const ended = {
    ...machine,
    leaderAlive: false,
    ready: false,
    startedAtMs: null,
    readyAtMs: null,
    killAtMs: null,
    drainUntilMs: null,
  };
  if (machine.wanted === "down") return { ...ended, state: "stopped", reason: null };
  const unwell = isFailure(machine.restartFor);
  if (!unwell && (machine.stopRequested || machine.restartFor !== null)) {
    const anew = machine.restartFor === null || KEEPS_COUNTERS.has(machine.restartFor) ? {} : COUNTERS_ANEW;
    return { ...ended, ...anew, state: "waiting", reason: null };
  }
  const cause = machine.exit;
  const success = !unwell && cause !== null && isSuccess(spec, cause);
  // What ended since we ended it for being unwell says nothing by its code.
  const isLast = !unwell && cause !== null && isMarked(spec.noRestartOn, cause);
  if (success && (isLast || spec.restart !== "always")) return { ...ended, state: "completed" };
  const windowStartMs = nowMs - spec.startLimit.intervalMs;
  const failureTimesMs = success || isShortage
    ? machine.failureTimesMs
    : [...machine.failureTimesMs.filter((time) => time > windowStartMs), nowMs];
  const failed = { ...ended, failureTimesMs, state: "failed" } as const;
  const why = unwell && machine.reason !== null
    ? machine.reason
    : cause === null
    ? "ended"
    : describeCause(cause);
  if (isLast) return { ...failed, reason: `${why}, which is named in no_restart_on` };
  if (permanent || (!success && spec.restart === "no")) return { ...failed, reason: why };
  const { burst, intervalMs, rearmMs } = spec.startLimit;
  if (burst > 0 && !isShortage && failureTimesMs.length >= burst) {
    const reason = `${why}; failed ${burst} times within ${intervalMs / 1000} s`;
    if (rearmMs === null) return { ...failed, reason };
    // Not for good, so it is no end: a wait of its own, and then as if somebody had started it.
    return { ...ended, ...COUNTERS_ANEW, state: "backoff", nextStartAtMs: nowMs + rearmMs, reason };
  }
  const stable = machine.uptimeMs >= Math.max(STABLE_AFTER_MS, 2 * machine.lastDelayMs);
  const atOnce = spec.restartDelayMs === 0 && machine.uptimeMs >= AT_ONCE_AFTER_MS;
  const shortRuns = stable || atOnce ? 1 : machine.shortRuns + 1;
  // No timer in between: it would take a millisecond. A loop without a turn cannot come of it, since it ran for a second.
  if (atOnce) {
    const again = { restarts: machine.restarts + 1, reason: null, nextStartAtMs: null };
    return { ...ended, ...again, failureTimesMs, shortRuns, lastDelayMs: 0, state: "waiting" };
  }
  const lastDelayMs = restartDelayMs(spec, shortRuns, roll);
  return {
    ...ended,
    failureTimesMs,
    shortRuns,
    lastDelayMs,
    state: "backoff",
    nextStartAtMs: nowMs + lastDelayMs,
    reason: success ? null : why,
  };
}

/** min(cap, base · 2^(n−1)) · 0.8…1.2: spread, so that what fell together does not rise together. */
export function restartDelayMs(spec: ProcessSpec, shortRuns: number, roll: number): number {
  const firstMs = spec.restartDelayMs === 0 ? LEAST_DELAY_MS : spec.restartDelayMs;
  const grown = firstMs * 2 ** Math.min(shortRuns - 1, 30);
  return Math.min(spec.restartMaxDelayMs, grown) * (0.8 + 0.4 * roll);
}

/** "exit code 3", "signal SIGKILL", "signal SIGKILL (out of memory)", or the spawn error's own words. */
export function describeCause(cause: ExitCause): string {
  if (cause.kind === "exit") return `exit code ${cause.code}`;
  if (cause.kind === "spawn-error") return cause.error;
  return `signal ${cause.signal}${cause.oom === true ? " (out of memory)" : ""}`;
}
