/** The public form of what the manager knows: snake_case, times in RFC 3339, durations in seconds. */

import type {
  DiffResult,
  FolderListing,
  PlannedRoot,
  RepairResult,
  VerifyResult,
} from "../checkpoint/mod.ts";
import type { ArchiveTotals, CheckpointRecord, FileWarning } from "../checkpoint/types.ts";
import type { LeaseStatus } from "../lease/types.ts";
import type {
  CheckpointResult,
  DatabaseInfo,
  ManagerStatus,
  PruneResult,
  RestoreResult,
} from "../manager/control.ts";
import type { ReloadResult } from "../manager/process_control.ts";
import type { ExitCause, ProcessStatus } from "../supervisor/types.ts";

/** A JSON object on its way out. */
export type View = Readonly<Record<string, unknown>>;

/** Most warnings about single files in one answer; their number is always told. */
const MAX_FILE_WARNINGS = 1000;

function timeView(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}

export function statusView(status: ManagerStatus): View {
  return {
    ...status,
    lease: status.lease === null ? null : leaseView(status.lease),
    processes: status.processes.map(processView),
    databases: status.databases.map(databaseView),
    checkpoint: {
      ...status.checkpoint,
      current: status.checkpoint.current === null ? null : checkpointView(status.checkpoint.current),
    },
  };
}

export function leaseView(lease: LeaseStatus): View {
  return {
    state: lease.state,
    token: lease.token,
    holder: lease.holder,
    remaining_seconds: lease.remainingMs === null ? null : Math.round(lease.remainingMs) / 1000,
    held_by: lease.heldBy,
    last_error: lease.lastError,
  };
}

export function processView(process: ProcessStatus): View {
  return {
    name: process.name,
    wanted: process.wanted,
    state: process.state,
    ready: process.ready,
    probe_failure: process.probeFailure,
    pid: process.pid,
    started: timeView(process.startedMs),
    uptime_seconds: process.uptimeMs === null ? null : process.uptimeMs / 1000,
    restarts: process.restarts,
    stopped_by_request: process.stoppedByRequest,
    changed: process.changed,
    waiting_for: process.waitingFor.map(({ name, condition, state }) => ({ name, condition, state })),
    stop: process.stop === null ? null : {
      blockers: process.stop.blockers.map(({ pid, name, state, wchan }) => ({ pid, name, state, wchan })),
      kill: timeView(process.stop.killMs),
      command: process.stop.command,
    },
    last_exit: process.lastExit === null ? null : exitView(process.lastExit),
    next_start: timeView(process.nextStartMs),
    reason: process.reason,
    last_lines: process.lastLines,
    use: process.use === null ? null : {
      memory_bytes: process.use.memoryBytes,
      cpu_seconds: process.use.cpuSeconds,
      processes: process.use.processes,
    },
  };
}

export function reloadView(result: ReloadResult): View {
  return {
    dry_run: result.dryRun,
    added: result.added,
    removed: result.removed,
    changed: result.changed.map(({ name, live, start }) => ({ name, live, next_start: start })),
    unchanged: result.unchanged,
    restarted: result.restarted,
    signalled: result.signalled,
    needs_manager_restart: result.needsManagerRestart,
    warnings: result.warnings,
  };
}

function exitView(cause: ExitCause): View {
  return { ...cause };
}

export function checkpointView(record: CheckpointRecord): View {
  return {
    id: record.id,
    n: record.n,
    time: timeView(record.time),
    kind: record.kind,
    comment: record.comment,
    labels: record.labels,
    parent: record.parent,
    restored_from: record.restored_from ?? null,
    token: record.token,
    files: record.files,
    databases: record.databases ?? {},
    warnings: record.warnings,
    pinned: record.pinned ?? false,
  };
}

export function pruneResultView(result: PruneResult): View {
  const { report } = result;
  return {
    dry_run: result.dryRun,
    checkpoints: result.plan.map(({ record, reasons }) => ({
      id: record.id,
      n: record.n,
      time: timeView(record.time),
      kept: reasons.length > 0,
      reasons,
    })),
    deleted_checkpoints: result.forgotten.length,
    deleted_objects: result.deletedObjects,
    waiting_objects: result.waitingObjects,
    storage: report === null ? null : {
      packs: report.packs,
      pack_bytes: report.packBytes,
      live_bytes: report.liveBytes,
      dead_packs: report.deadPacks,
      dead_bytes: report.deadBytes,
      orphan_packs: report.orphanPacks,
      orphan_bytes: report.orphanBytes,
      repacked_packs: report.repackedPacks,
      repacked_bytes: report.repackedBytes,
      rewritten_bytes: report.rewrittenBytes,
      unnamed_objects: report.objects,
      freed_bytes: report.freedBytes,
    },
  };
}

/** What a record's view needs to know of its list. */
export interface ListFacts {
  /** Ids → ordinals. */
  readonly ordinals: ReadonlyMap<string, number>;
  readonly current: string | null;
}

export function listFacts(checkpoints: readonly CheckpointRecord[], current: string | null): ListFacts {
  return { ordinals: new Map(checkpoints.map(({ id, n }) => [id, n])), current };
}

/** As a member of its list: the ordinals of those that it names (null: not listed any more), and whether it is current. */
export function listedView(record: CheckpointRecord, { ordinals, current }: ListFacts): View {
  const ordinalOf = (id: string | null | undefined) => ordinals.get(id ?? "") ?? null;
  return {
    ...checkpointView(record),
    parent_n: ordinalOf(record.parent),
    restored_from_n: ordinalOf(record.restored_from),
    current: record.id === current,
  };
}

const NANOS_PER_SECOND = 1_000_000_000n;

/** RFC 3339 with nine digits; where a year is beyond what it can say, decimal nanoseconds. */
export function nanosView(text: string): string {
  const ns = BigInt(text);
  const fraction = ((ns % NANOS_PER_SECOND) + NANOS_PER_SECOND) % NANOS_PER_SECOND;
  const date = new Date(Number((ns - fraction) / 1_000_000n));
  const year = date.getUTCFullYear();
  if (!(year >= 0 && year <= 9999)) return text;
  return `${date.toISOString().slice(0, 19)}.${String(fraction).padStart(9, "0")}Z`;
}

export function folderView({ entries, next }: FolderListing): View {
  return {
    entries: entries.map(({ mode, mtimeNs, sizeBytes, ...rest }) => ({
      ...rest,
      mode: mode.toString(8).padStart(4, "0"),
      mtime: nanosView(mtimeNs),
      size_bytes: sizeBytes,
    })),
    next_after: next === null ? null : String(next),
  };
}

export function diffView(result: DiffResult): View {
  const side = (of: DiffResult["differences"][number]["before"]) =>
    of === null ? null : { type: of.type, size_bytes: of.sizeBytes };
  return {
    differences: result.differences.map(({ root, path, change, before, after }) => ({
      path: path === "" ? root : `${root}/${path}`,
      change,
      before: side(before),
      after: side(after),
    })),
    next_after: result.next === null ? null : String(result.next),
    totals: result.totals,
    bytes_before: result.bytesBefore,
    bytes_after: result.bytesAfter,
    databases: result.databases,
  };
}

export function databaseView({ name, path, origin, followed, lastDrill }: DatabaseInfo): View {
  return {
    name,
    path,
    origin,
    ...followedView(followed),
    last_drill: lastDrill === null ? null : {
      time: timeView(lastDrill.atMs),
      outcome: lastDrill.outcome,
      txid: lastDrill.txid,
      duration_seconds: Math.round(lastDrill.durationMs) / 1000,
      error: lastDrill.error,
    },
  };
}

function followedView(followed: DatabaseInfo["followed"]): View {
  if (followed === null) return { state: "stopped" };
  const { counts, lastError, lastSnapshot } = followed;
  return {
    state: followed.state,
    journal_mode: followed.journalMode,
    txid: followed.txid,
    durable_txid: followed.durableTxid,
    lag_seconds: followed.lagMs / 1000,
    wal_bytes: followed.walBytes,
    waiting: { files: followed.waitingFiles, bytes: followed.waitingBytes },
    last_durable: timeView(followed.lastDurableMs),
    last_snapshot: lastSnapshot === null
      ? null
      : { txid: lastSnapshot.txid, time: timeView(lastSnapshot.atMs) },
    last_error: lastError === null ? null : {
      time: timeView(lastError.atMs),
      code: lastError.code,
      message: lastError.message,
      hint: lastError.hint,
    },
    counts: {
      syncs: counts.syncs,
      snapshots: counts.snapshots,
      checkpoints: counts.checkpoints,
      compactions: counts.compactions,
      requests: counts.requests,
      sent_bytes: counts.sentBytes,
      errors: counts.errors,
    },
  };
}

export function totalsView(totals: ArchiveTotals): View {
  return {
    entries: totals.entries,
    bytes: totals.bytes,
    bytes_read: totals.bytesRead,
    bytes_transferred: totals.bytesTransferred,
    bytes_reused: totals.bytesReused,
    duration_seconds: Math.round(totals.durationMs) / 1000,
  };
}

function fileWarningsView(warnings: readonly FileWarning[]): View {
  return {
    file_warnings: warnings.slice(0, MAX_FILE_WARNINGS).map((
      { root, path, reason },
    ) => ({
      root,
      path,
      reason,
    })),
    file_warnings_total: warnings.length,
  };
}

/** The checkpoint, and how the making of it went. */
export function checkpointResultView(result: CheckpointResult): View {
  return {
    checkpoint: checkpointView(result.checkpoint),
    unchanged: result.unchanged,
    totals: totalsView(result.totals),
    ...fileWarningsView(result.warnings),
  };
}

/** `checkpoint`: id of the one that was asked for; null: all. */
export function verifyResultView(result: VerifyResult, checkpoint: string | null): View {
  return {
    ok: result.findingsTotal === 0,
    checkpoint,
    level: result.level,
    percent: result.percent,
    checkpoints: result.checkpoints,
    packs: result.packs,
    packs_read: result.packsRead,
    bytes_read: result.bytesRead,
    all_read_since: timeView(result.allReadSinceMs),
    databases_checked: result.databasesChecked,
    positions_checked: result.positionsChecked,
    findings: result.findings.map(({ object, problem, detail, checkpoints, files, filesTotal }) => ({
      object,
      problem,
      detail,
      checkpoints,
      files,
      files_total: filesTotal,
    })),
    findings_total: result.findingsTotal,
    duration_seconds: Math.round(result.durationMs) / 1000,
  };
}

export function repairView(
  { damaged, recoveredPacks, savedChunks, lostChunks }: RepairResult,
  { dryRun, checkpoint }: { readonly dryRun: boolean; readonly checkpoint: CheckpointRecord | null },
): View {
  return {
    dry_run: dryRun,
    damaged,
    recovered_packs: recoveredPacks,
    saved_chunks: savedChunks,
    lost_chunks: lostChunks,
    checkpoint: checkpoint === null ? null : checkpointView(checkpoint),
  };
}

export function restoreResultView(result: RestoreResult): View {
  return {
    source: result.source === null ? null : checkpointView(result.source),
    checkpoint: result.checkpoint === null ? null : checkpointView(result.checkpoint),
    safety: result.safety === null ? null : checkpointView(result.safety),
    files: result.files,
    databases: result.databases,
    dry_run: result.checkpoint === null,
    totals: result.totals === null ? null : totalsView(result.totals),
    plan: result.plan === null ? null : result.plan.map(plannedRootView),
    ...fileWarningsView(result.warnings),
  };
}

/** What a restore would do to one files root. */
export function plannedRootView({ name, differences, neededBytes, freeBytes }: PlannedRoot): View {
  const { added, changed, removed, unchanged, paths, pathsTotal } = differences;
  return {
    name,
    added,
    changed,
    removed,
    unchanged,
    paths,
    paths_total: pathsTotal,
    needed_bytes: neededBytes,
    free_bytes: freeBytes,
  };
}
