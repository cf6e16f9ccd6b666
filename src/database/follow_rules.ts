/**
 * Where a follower goes on reading, and when it checkpoints. Data in, decision out, no I/O. The one rule above all:
 * an increment is written only where it is proven that nothing was committed between it and the file before; any
 * doubt is a snapshot, which needs no proof.
 */

/** Why a file holds all pages. */
export type SnapshotReason =
  | "first-contact" // no local file, and nobody says which state the database is in
  | "position-unknown" // local files, but not how far in which log they go
  | "database-replaced" // another file bears the name now
  | "page-size-changed"
  | "log-gone" // the log was taken into the database and removed while nobody watched
  | "log-replaced" // another log file bears the name, though we hold the database open
  | "log-restarted" // the log began anew, and commits at its former end may be missing
  | "log-unreadable" // commits that SQLite counts have sums that do not hold (see `LogFollower`)
  | "log-overwritten" // the same log has other frames than those we read
  | "log-before-baseline" // a restored database that somebody wrote to before we came
  | "mode-changed" // from copies to the log, or the reverse
  | "local-damaged" // the newest local file is damaged and was set aside
  | "requested";

/** A frame edge in a log, and the rolling sum of all that is before it. */
export interface WalPoint {
  readonly offset: number;
  readonly sum1: number;
  readonly sum2: number;
}

/** A point in one particular log. */
export interface LogPoint extends WalPoint {
  readonly salt1: number;
  readonly salt2: number;
}

/** How far the newest local file goes: to a point in a log, or (null) to the start of whatever log comes next. */
export type LogPosition = LogPoint | null;

/** The log as it is now. "torn": it has a header that does not hold, as while one is being written. */
export type LogView =
  | { readonly kind: "empty" }
  | { readonly kind: "torn" }
  | {
    readonly kind: "log";
    readonly sizeBytes: number;
    readonly pageSize: number;
    readonly salt1: number;
    readonly salt2: number;
  };

/** continue: from the position. restart: from the first frame of the log. wait: nothing to read yet. */
export type Decision =
  | { readonly kind: "continue" }
  | { readonly kind: "restart" }
  | { readonly kind: "wait" }
  | { readonly kind: "snapshot"; readonly reason: SnapshotReason };

const snapshot = (reason: SnapshotReason): Decision => ({ kind: "snapshot", reason });

/**
 * While we run. `proven`: a reader of ours has been in the database without a gap since before a sync that reached the
 * end of the log; each sync has its own, and the one before goes when that sync has reached the end. Then a log that
 * began anew had nothing that we have not read: a log begins anew only when all of it is in the database and no reader
 * uses it. Our reader either uses it (no new start at all), or came when all was in the database: what is committed to
 * that log later is not taken in as long as it is there, and what was committed earlier the sync has read.
 *
 * Nothing that we have not read is in the database either: it is taken in only as far as our reader sees it.
 */
export function decideLive(
  position: LogPosition,
  log: LogView,
  facts: { readonly proven: boolean; readonly pageSize: number },
): Decision {
  if (log.kind === "torn") return { kind: "wait" };
  if (log.kind === "empty") {
    if (position === null) return { kind: "wait" };
    return facts.proven ? { kind: "wait" } : snapshot("log-restarted");
  }
  if (log.pageSize !== facts.pageSize) return snapshot("page-size-changed");
  if (position === null) return { kind: "restart" };
  if (log.salt1 === position.salt1 && log.salt2 === position.salt2) {
    return log.sizeBytes < position.offset ? snapshot("log-overwritten") : { kind: "continue" };
  }
  return facts.proven ? { kind: "restart" } : snapshot("log-restarted");
}

/** What is known of the time when we did not run. */
export interface StartFacts {
  /** Newest local file. */
  readonly txid: number | null;
  readonly baseline: number | null;
  /** The newest local file was damaged. */
  readonly damaged: boolean;
  /** What was noted with the newest local file, or with the baseline when we came to it before; null: nothing. */
  readonly noted: {
    readonly position: LogPosition;
    readonly pageSize: number;
    /** It is the same file (device and inode). */
    readonly sameFile: boolean;
    /**
     * All up to the position was in the database's file, and nothing has been written to that since: whatever was
     * committed since is in the log.
     */
    readonly untouched: boolean;
  } | null;
  readonly log: LogView;
  /** What the log has where the position is; only asked for where `position` is in a log. */
  readonly evidence: LogEvidence;
}

/** What of the log up to a position is still there. */
export interface LogEvidence {
  /** The log is this one, and all frames up to the position sum up to what was noted. */
  readonly chainHolds: boolean;
  /** The last frame before the position is still there, from the log before. */
  readonly lastFrameLeft: boolean;
  /** The bytes after the position are there, and no frame of the log before is in them. */
  readonly nothingFollowed: boolean;
}

export const NO_EVIDENCE: LogEvidence = { chainHolds: false, lastFrameLeft: false, nothingFollowed: false };

/** After our own start, with a reader of ours already in the database. */
export function decideAtStart(facts: StartFacts): Decision {
  const { txid, baseline, noted, log, evidence } = facts;
  if (facts.damaged) return snapshot("local-damaged");
  if (txid === null && noted === null) {
    if (baseline === null) return snapshot("first-contact");
    return log.kind === "log" ? snapshot("log-before-baseline") : { kind: "wait" };
  }
  if (noted === null) return snapshot("position-unknown");
  if (!noted.sameFile) return snapshot("database-replaced");
  if (log.kind === "log" && log.pageSize !== noted.pageSize) return snapshot("page-size-changed");
  const { position } = noted;
  if (position !== null && sameLog(position, log)) {
    return evidence.chainHolds ? { kind: "continue" } : snapshot("log-overwritten");
  }
  if (noted.untouched) return log.kind === "log" ? { kind: "restart" } : { kind: "wait" };
  if (log.kind !== "log" || position === null) return snapshot("log-gone");
  return oneRestart(position, log) && evidence.lastFrameLeft && evidence.nothingFollowed
    ? { kind: "restart" }
    : snapshot("log-restarted");
}

function sameLog(position: LogPoint, log: LogView): boolean {
  return log.kind === "log" && log.salt1 === position.salt1 && log.salt2 === position.salt2;
}

/** SQLite adds one to the first salt at each new start of a log. Source: https://sqlite.org/fileformat2.html#walformat */
function oneRestart(position: LogPoint, log: { readonly salt1: number }): boolean {
  return log.salt1 === ((position.salt1 + 1) >>> 0);
}

/**
 * How a checkpoint is made. reader: writers go on. rest: so, too, then they wait for what came meanwhile. barrier: they
 * wait for all of it. cut: the log's file is emptied.
 */
export type CheckpointKind = "reader" | "rest" | "barrier" | "cut";

export interface CheckpointFacts {
  /** Pages in the log that are not known to be in the database file. */
  readonly pages: number;
  /** Pages in the log from its first frame on: it begins anew only once all of them are in the database file. */
  readonly logPages: number;
  readonly fileBytes: number;
  /** The last sync reached the end of the log. */
  readonly synced: boolean;
  /** Since the last one that took all in, or since the start. */
  readonly sinceWholeMs: number;
  readonly sinceAttemptMs: number;
  /** Attempts in a row that left more than new commits: a reader or a long transaction of the application held them up. */
  readonly heldUp: number;
}

export interface CheckpointLimits {
  readonly checkpointPages: number;
  readonly barrierPages: number;
  readonly checkpointIntervalMs: number;
  readonly walBytes: number;
}

/** An attempt that was held up is made again after this, doubled each time: each costs the application a little. */
const ATTEMPT_GAP_MS = 1_000;
const ATTEMPT_GAP_MAX_MS = 60_000;

/**
 * Never RESTART, and TRUNCATE ("cut") only when all of the log is in the database and read by us: both wait for
 * readers while they keep writers out.
 */
export function decideCheckpoint(facts: CheckpointFacts, limits: CheckpointLimits): CheckpointKind | null {
  if (!facts.synced) return null;
  const gapMs = facts.heldUp === 0 ? 0 : doubled(ATTEMPT_GAP_MS, facts.heldUp - 1, ATTEMPT_GAP_MAX_MS);
  if (facts.sinceAttemptMs < gapMs) return null;
  if (facts.pages === 0) return facts.fileBytes > limits.walBytes ? "cut" : null;
  const isLong = facts.logPages >= limits.barrierPages;
  if (isLong) return facts.heldUp > 0 ? "barrier" : "rest";
  if (facts.pages >= limits.checkpointPages) return "reader";
  return facts.sinceWholeMs >= limits.checkpointIntervalMs ? "reader" : null;
}

export interface JointFacts {
  /** In the part of the log that no file holds yet, each counted once. */
  readonly leftPages: number;
  readonly logPages: number;
  readonly heldUp: number;
  /** What the last one took from first to last, and how long ago that is. */
  readonly tookMs: number;
  readonly sinceMs: number;
}

/** A sync waits for the checkpoint it is made together with: on a slow disk each goes by itself, but now and then. */
const JOINT_MOST_MS = 250;
const JOINT_RETRY_MS = 60_000;

/**
 * Whether a sync is made together with the checkpoint that would follow it, while writers wait: only where few pages are
 * left to take in then, and nothing held the last one up.
 */
export function decideJoint(
  facts: JointFacts,
  limits: { readonly barrierPages: number; readonly jointPages: number },
): boolean {
  if (facts.heldUp > 0 || facts.leftPages > limits.jointPages) return false;
  if (facts.tookMs > JOINT_MOST_MS && facts.sinceMs < JOINT_RETRY_MS) return false;
  return facts.logPages >= limits.barrierPages;
}

const RETRY_MS = 500;
const RETRY_MAX_MS = 60_000;

/** How long to wait after so many failed calls in a row. */
export function retryDelayMs(failures: number): number {
  return failures === 0 ? 0 : doubled(RETRY_MS, failures - 1, RETRY_MAX_MS);
}

function doubled(firstMs: number, times: number, mostMs: number): number {
  return Math.min(mostMs, firstMs * 2 ** Math.min(times, 30));
}
