/**
 * When a database is captured into its next file. Pure. A commit after a quiet time is captured at once; under load one
 * file is made in each sync interval; and while files wait, since the store is slow or away, the log collects instead:
 * what is captured later in one file is fewer requests and fewer bytes than many small ones, and the lag of the newest
 * commit is no longer. Only the size of the log, and now and then the time, then ask for another file.
 */

export interface PaceFacts {
  /** Since the capture began that made the last file; Infinity for none in this life. */
  readonly sinceCaptureMs: number;
  readonly syncIntervalMs: number;
  /** Of this database, made and not yet in the store. */
  readonly waitingFiles: number;
  /** The part of the log that no file holds yet, at most. */
  readonly uncapturedBytes: number;
  /** Of all databases: made and not yet in the store. */
  readonly backlogBytes: number;
}

/** Half of it is added to a commit's way to the store on average; two system calls per database and look. */
export const LOOK_INTERVAL_MS = 100;
/** Between two looks at a database that waits for its interval, however long that is: it may write faster now. */
const LONGEST_LOOK_MS = 1000;
/** A look is that much before the interval's end: timers are late. */
const EARLY_MS = 10;
/** One on its way and one behind it keep the line busy. */
const FILES_AHEAD = 2;
/** About 1000 pages, at which the log is checkpointed and begins anew: it must be captured before. */
const STEP_BYTES = 4 * 1024 * 1024;
/** With much local already, a log of this size is the lesser burden on the disk: its pages are written once per file. */
const LARGE_STEP_BYTES = 64 * 1024 * 1024;
export const BACKLOG_LIMIT_BYTES = 512 * 1024 * 1024;
/** Then the files that wait are given up for one that holds all pages. Some hours of a slow store, or an outage's log. */
export const BACKLOG_MOST_BYTES = 1024 * 1024 * 1024;
/** During an outage each file is a point in time to restore to. */
const OUTAGE_INTERVAL_MS = 60_000;
/** An hour of those; after it only the log's size counts. */
const OUTAGE_FILES = 60;

/** The database has changed since its last file: is it time for the next? */
export function isCaptureDue(facts: PaceFacts): boolean {
  const { sinceCaptureMs, syncIntervalMs, waitingFiles, uncapturedBytes } = facts;
  if (isBackedUp(facts)) return uncapturedBytes >= LARGE_STEP_BYTES;
  if (uncapturedBytes >= STEP_BYTES) return true;
  // At the look that is nearest: the one before the interval's end is a moment early, the next one would be late.
  if (waitingFiles < FILES_AHEAD) return sinceCaptureMs + LOOK_INTERVAL_MS / 2 >= syncIntervalMs;
  return waitingFiles < OUTAGE_FILES && sinceCaptureMs >= Math.max(OUTAGE_INTERVAL_MS, syncIntervalMs);
}

/**
 * It has changed and its capture is not due: when it is to be looked at again. Each look that can change nothing costs a
 * little of the machine that the program runs on. Well before its log reaches a step's size, at the rate that it had.
 */
export function nextLookMs(facts: PaceFacts): number {
  const { sinceCaptureMs, syncIntervalMs, waitingFiles, uncapturedBytes } = facts;
  if (isBackedUp(facts) || waitingFiles >= FILES_AHEAD) return LOOK_INTERVAL_MS;
  const untilStepMs = (STEP_BYTES - uncapturedBytes) / (uncapturedBytes / Math.max(1, sinceCaptureMs));
  const ms = Math.min(syncIntervalMs - sinceCaptureMs - EARLY_MS, untilStepMs / 2, LONGEST_LOOK_MS);
  return Math.max(LOOK_INTERVAL_MS, ms);
}

/**
 * Its capture begins: when it is to be looked at again. Where it changes all the time there is nothing to see until the next
 * one is due: that it changed is known then, and since when, for that is counted from the look before. After a quiet time
 * nobody knows how it goes on. Its log may grow as fast as it did, and is looked at well before a step's size.
 */
export function lookAfterMs(facts: PaceFacts): number {
  const { sinceCaptureMs, syncIntervalMs, waitingFiles, uncapturedBytes } = facts;
  if (sinceCaptureMs > syncIntervalMs + LOOK_INTERVAL_MS) return LOOK_INTERVAL_MS;
  if (isBackedUp(facts) || waitingFiles > 0) return LOOK_INTERVAL_MS;
  const untilStepMs = STEP_BYTES / (uncapturedBytes / Math.max(1, sinceCaptureMs));
  return Math.max(LOOK_INTERVAL_MS, Math.min(syncIntervalMs - EARLY_MS, untilStepMs / 2, LONGEST_LOOK_MS));
}

/** So much waits on the disk that only large steps are taken. */
export function isBackedUp({ backlogBytes }: { readonly backlogBytes: number }): boolean {
  return backlogBytes >= BACKLOG_LIMIT_BYTES;
}

export interface OverflowFacts {
  /** Of all databases: made and not yet in the store. */
  readonly backlogBytes: number;
  readonly mostBytes: number;
  /** Of this one: files of which no part can be in the store. */
  readonly unsentBytes: number;
  readonly databaseBytes: number;
}

/**
 * So much waits on the disk that one file with all pages takes the place of many. Not where it would hardly be smaller:
 * it is made anew each time, so that the disk holds three times the database at most, or `mostBytes`.
 */
export function isBacklogOver(facts: OverflowFacts): boolean {
  const { backlogBytes, mostBytes, unsentBytes, databaseBytes } = facts;
  return backlogBytes >= mostBytes && unsentBytes > 2 * databaseBytes;
}
