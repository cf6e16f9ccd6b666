/**
 * The end of a session within its budget: the last checkpoint, then the release of the lease. The budget begins with the
 * first signal that asks for a stop, which may come in the middle; without one a stop takes the time it needs.
 */

import type { Config } from "../config/types.ts";
import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { log } from "../platform/log.ts";
import type { Opened } from "./opening.ts";
import type { SessionEnd } from "./session_types.ts";

/** The part of the budget that is the release's alone. */
const RELEASE_RESERVE_MS = 1000;
/** Taken off the budget for what follows the release: the server, the catalog and our own output. */
const EXIT_RESERVE_MS = 500;
/** Shortest time a release gets even when the budget is spent: one request. */
const RELEASE_MINIMUM_MS = 500;
const LONGEST_RELEASE_MS = 10_000;
/** With a lease that could not be renewed: time to hear whose it is, within the 5 s that a lost one has to the exit. */
const DOUBTFUL_RELEASE_MS = 3_000;
/** Without a budget (programs ended by themselves, a job) a stop still ends: the longest `timeout_stop` rules. */
const LONGEST_STOP_MS = 24 * 3600 * 1000;
const DEADLINE_CHECK_MS = 50;

const logger = log("session");

/** `shutdown.budget` and `shutdown.flush_reserve` as moments of the monotonic clock. */
export class StopBudget {
  readonly #clock: Clock;
  readonly #shutdown: Config["shutdown"];
  /** Of the whole stop; infinite until somebody outside asks for it. */
  #deadlineMs = Infinity;

  constructor(clock: Clock, shutdown: Config["shutdown"]) {
    this.#clock = clock;
    this.#shutdown = shutdown;
  }

  /** From now on time counts; later calls change nothing. */
  begin(): void {
    if (this.#deadlineMs !== Infinity) return;
    const { budgetMs } = this.#shutdown;
    this.#deadlineMs = this.#clock.monotonicMs() + budgetMs - Math.min(EXIT_RESERVE_MS, budgetMs / 4);
  }

  /** When the programs must be gone. */
  get programsByMs(): number {
    const endMs = Math.min(this.#deadlineMs, this.#clock.monotonicMs() + LONGEST_STOP_MS);
    return endMs - this.#shutdown.flushReserveMs;
  }

  get releaseTimeoutMs(): number {
    const leftMs = this.#deadlineMs - this.#clock.monotonicMs();
    return Math.max(RELEASE_MINIMUM_MS, Math.min(leftMs, LONGEST_RELEASE_MS));
  }

  /** Calls `action` once when nothing but the release's own part is left; returns what ends the watch. */
  whenSpent(action: () => void): () => void {
    const check = () => {
      if (this.#clock.monotonicMs() < this.#deadlineMs - RELEASE_RESERVE_MS) return;
      clearInterval(timer);
      action();
    };
    const timer = setInterval(check, DEADLINE_CHECK_MS);
    return () => clearInterval(timer);
  }
}

/**
 * The last sync of the databases, then the checkpoint at stop; everything is stopped. Returns why it failed, null when
 * the bucket has everything.
 */
export async function shipLastState(
  { checkpointer, databases, roots }: Opened,
  onStop: boolean,
  budget: StopBudget,
): Promise<StateManagerError | null> {
  checkpointer.endPrune("the programs have stopped");
  const wanted = onStop && (roots.length > 0 || !databases.isEmpty);
  if (databases.isEmpty && !wanted) return null;
  const giveUp = new AbortController();
  const endWatch = budget.whenSpent(() => {
    giveUp.abort(
      new StateManagerError("timeout", "ship the last state: the shutdown budget ended first", {
        hint: "raise shutdown.budget and shutdown.flush_reserve to what the platform grants",
      }),
    );
    checkpointer.abort("the shutdown budget ended first");
  });
  try {
    await checkpointer.idle(); // one by interval may still run: what it sent is not sent again
    giveUp.signal.throwIfAborted();
    await databases.finish(giveUp.signal);
    if (!wanted) return null;
    await checkpointer.create("stop", { comment: "", labels: {} }, { signal: giveUp.signal });
    return null;
  } catch (error) {
    return asStateManagerError(error, "state-not-saved");
  } finally {
    endWatch();
  }
}

/**
 * `to`: the holder id that may claim it at once. Never rejects, since the lease runs out by itself; resolves to the error
 * where another has it already (`lease-lost`).
 */
export async function releaseLease(
  { lease }: Opened,
  budget: StopBudget,
  to?: string,
): Promise<StateManagerError | null> {
  const longestMs = lease.status.state === "held" ? Infinity : DOUBTFUL_RELEASE_MS;
  const timeoutMs = Math.min(budget.releaseTimeoutMs, longestMs);
  try {
    await lease.release({ timeoutMs, ...(to === undefined ? {} : { to }) });
    return null;
  } catch (error) {
    const known = asStateManagerError(error);
    if (known.code === "lease-lost") return known;
    logger.warn("lease not released: the next holder waits until it expires", { error: known.message });
    return null;
  }
}

/** Exit 74: the bucket lacks the last state. */
export function endUnsaved(failure: StateManagerError): SessionEnd {
  const error = new StateManagerError(
    "state-not-saved",
    `stop: the last state is NOT in the bucket: ${failure.message}`,
    {
      hint: `the data is still in the local folders; start again with the same data dir (${
        failure.hint ?? "see the log"
      })`,
      cause: failure,
    },
  );
  logger.error(error.message, { hint: error.hint });
  return { kind: "ended", exitCode: error.meaning.exit, error };
}
