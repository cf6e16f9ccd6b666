/** A manager that does nothing, for tests of the server and the command line: every answer can be replaced. */

import { type DiffResult, notedRecord, type VerifyResult } from "../../src/checkpoint/mod.ts";
import type { CheckpointRecord } from "../../src/checkpoint/types.ts";
import type {
  CheckpointResult,
  Control,
  DatabaseInfo,
  ManagerStatus,
  PruneResult,
  RepairOutcome,
  RestoreResult,
} from "../../src/manager/control.ts";
import type { StorageUsage } from "../../src/manager/storage_meter.ts";
import { EventHub } from "../../src/manager/event_hub.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { CrashFiles } from "../../src/supervisor/mod.ts";
import { quietLogs } from "./process_logs.ts";
import type { ReloadResult } from "../../src/manager/process_control.ts";
import type { ProcessStatus } from "../../src/supervisor/types.ts";
import { type Log } from "../../src/platform/log.ts";

export const NOW_MS = Date.UTC(2026, 0, 31, 12);

export function checkpointRecord(
  n: number,
  change: Partial<CheckpointRecord> = {},
): CheckpointRecord {
  return {
    id: `01kg${String(n).padStart(22, "0")}`,
    n,
    time: NOW_MS - 1_000_000 + n * 1000,
    token: 7,
    parent: null,
    kind: "request",
    comment: `number ${n}`,
    labels: {},
    root: `checkpoints/roots/${n}.json`,
    root_sha256: "0".repeat(64),
    files: {
      app: { entries: 3, bytes: 4096, manifest_sha256: "1".repeat(64) },
    },
    warnings: 0,
    ...change,
  };
}

export function databaseInfo(change: Partial<DatabaseInfo> = {}): DatabaseInfo {
  return {
    name: "main",
    path: "/srv/app/main.db",
    origin: "kept",
    followed: {
      name: "main",
      path: "/srv/app/main.db",
      state: "following",
      journalMode: "wal",
      txid: 12,
      durableTxid: 11,
      lagMs: 250,
      walBytes: 4152,
      waitingFiles: 1,
      waitingBytes: 300,
      lastDurableMs: NOW_MS,
      lastError: null,
      lastSnapshot: { txid: 1, atMs: NOW_MS },
      counts: {
        syncs: 12,
        snapshots: 1,
        checkpoints: 2,
        compactions: 3,
        requests: 20,
        sentBytes: 5000,
        errors: 0,
      },
    },
    lastDrill: null,
    ...change,
  };
}

export function processStatus(change: Partial<ProcessStatus> = {}): ProcessStatus {
  return {
    name: "web",
    wanted: "up",
    state: "running",
    ready: true,
    probeFailure: null,
    pid: 43,
    startedMs: NOW_MS,
    uptimeMs: 61_500,
    restarts: 1,
    stoppedByRequest: false,
    changed: [],
    waitingFor: [],
    stop: null,
    lastExit: { kind: "signal", signal: "SIGKILL", number: 9 },
    nextStartMs: null,
    use: { memoryBytes: 52_428_800, cpuSeconds: 1.5, processes: 2 },
    reason: null,
    lastLines: [],
    ...change,
  };
}

export function reloadResult(change: Partial<ReloadResult> = {}): ReloadResult {
  return {
    dryRun: false,
    added: ["worker"],
    removed: ["old"],
    changed: [{ name: "web", live: ["restart_delay"], start: ["command"] }],
    unchanged: ["db"],
    restarted: [],
    signalled: [],
    needsManagerRestart: ["checkpoint.interval"],
    warnings: [],
    ...change,
  };
}

export function managerStatus(
  change: Partial<ManagerStatus> = {},
): ManagerStatus {
  return {
    state: "running",
    reason: null,
    version: "0.1.0",
    build: "dev",
    name: "shop",
    repo_id: "r",
    holder: "h",
    pid: 42,
    started: new Date(NOW_MS).toISOString(),
    uptime_seconds: 12.5,
    storage: { description: "folder /srv/store", key_prefix: "shop", encrypted: false },
    lease: {
      state: "held",
      token: 7,
      holder: "h",
      remainingMs: 20_500,
      heldBy: null,
      lastError: null,
    },
    processes: [processStatus()],
    files: [{
      name: "app",
      path: "/srv/app",
      origin: "restored",
      checkpoint: checkpointRecord(3).id,
    }],
    databases: [databaseInfo()],
    checkpoint: {
      current: checkpointRecord(3),
      last_finished: null,
      last_error: null,
      running: false,
      in_progress: null,
      next: null,
      verify: { running: false, next: null, last: null },
    },
    warnings: [],
    ...change,
  };
}

export const totals = {
  entries: 3,
  bytes: 4096,
  bytesRead: 4096,
  bytesTransferred: 100,
  bytesReused: 0,
  durationMs: 1500,
};

export function checkpointResult(
  change: Partial<CheckpointResult> = {},
): CheckpointResult {
  return {
    checkpoint: checkpointRecord(4),
    totals,
    warnings: [],
    unchanged: false,
    ...change,
  };
}

export function restoreResult(
  change: Partial<RestoreResult> = {},
): RestoreResult {
  return {
    source: checkpointRecord(1),
    checkpoint: checkpointRecord(5, { kind: "restore" }),
    safety: checkpointRecord(4, { kind: "safety" }),
    files: ["app"],
    databases: {},
    totals,
    plan: null,
    warnings: [],
    ...change,
  };
}

export function diffResult(change: Partial<DiffResult> = {}): DiffResult {
  return {
    differences: [],
    next: null,
    totals: { added: 0, removed: 0, changed: 0, metadata: 0 },
    bytesBefore: 0,
    bytesAfter: 0,
    databases: {},
    ...change,
  };
}

export function verifyResult(change: Partial<VerifyResult> = {}): VerifyResult {
  return {
    level: 2,
    percent: 0,
    checkpoints: 3,
    packs: 4,
    packsRead: 0,
    bytesRead: 0,
    allReadSinceMs: null,
    databasesChecked: 0,
    positionsChecked: 0,
    findings: [],
    findingsTotal: 0,
    durationMs: 1500,
    ...change,
  };
}

export function repairOutcome(change: Partial<RepairOutcome> = {}): RepairOutcome {
  return {
    damaged: [],
    indexes: [],
    recoveredPacks: 0,
    savedChunks: 0,
    lostChunks: [],
    checkpoint: null,
    ...change,
  };
}

export function pruneResult(change: Partial<PruneResult> = {}): PruneResult {
  return {
    dryRun: false,
    plan: [
      { record: checkpointRecord(3), reasons: ["current", "newest"] },
      { record: checkpointRecord(2), reasons: [] },
    ],
    forgotten: [checkpointRecord(2)],
    report: null,
    deletedObjects: 2,
    waitingObjects: 3,
    ...change,
  };
}

export function storageUsage(change: Partial<StorageUsage> = {}): StorageUsage {
  const none = { objects: 0, bytes: 0 };
  const kinds = {
    packs: { objects: 3, bytes: 900 },
    indexes: none,
    roots: none,
    repository: none,
    other: none,
  };
  return {
    atMs: NOW_MS,
    objects: 5,
    bytes: 1000,
    kinds: { ...kinds, databases: { objects: 2, bytes: 100 } },
    databases: { main: { objects: 2, bytes: 100 } },
    ...change,
  };
}

export function fakeControl(change: Partial<Control> = {}): Control {
  return {
    status: () => managerStatus(),
    configuration: () => ({ storage: { bucket: "b", secret_key: "***" } }),
    configure: () => Promise.resolve(managerStatus({ state: "waiting" })),
    checkpoint: () => Promise.resolve(checkpointResult()),
    checkpoints: () =>
      Promise.resolve([
        checkpointRecord(1),
        checkpointRecord(2),
        checkpointRecord(3),
      ]),
    verify: () => Promise.resolve(verifyResult()),
    repair: () => Promise.resolve(repairOutcome()),
    deleteCheckpoint: () => Promise.resolve(checkpointRecord(2)),
    annotateCheckpoint: (_reference, notes) => Promise.resolve(notedRecord(checkpointRecord(2), notes)),
    checkpointFiles: () => Promise.resolve({ entries: [], next: null }),
    diffCheckpoints: () => Promise.resolve(diffResult()),
    prune: ({ dryRun }) => Promise.resolve(pruneResult({ dryRun })),
    restore: () => Promise.resolve(restoreResult()),
    startProcess: () => Promise.resolve(processStatus()),
    stopProcess: () =>
      Promise.resolve(processStatus({ state: "stopped", pid: null, stoppedByRequest: true })),
    restartProcess: () => Promise.resolve(processStatus({ pid: 44 })),
    signalProcess: () => Promise.resolve(processStatus()),
    reload: ({ dryRun }) => Promise.resolve(reloadResult({ dryRun })),
    syncDatabase: () => Promise.resolve({ txid: 12 }),
    restorePoints: () => Promise.resolve({ points: [{ txid: 1, timeMs: NOW_MS }], nextAfter: null }),
    releaseLease: () => Promise.resolve(managerStatus({ state: "released" })),
    acquireLease: () => Promise.resolve(managerStatus({ state: "running" })),
    health: () => ({
      live: [{ name: "loop", ok: true, detail: "" }],
      started: [{ name: "api", ok: true, detail: "" }],
      ready: [{ name: "state", ok: false, detail: "waiting for host-7" }],
    }),
    logs: quietLogs(),
    crashes: new CrashFiles("/nonexistent/crashes", () => {}),
    replaceCredentials: () => Promise.resolve({ persisted: true, source: null }),
    storage: () => Promise.resolve({ usage: storageUsage(), growth: null }),
    events: new EventHub({ runId: "ab", clock: systemClock(), openCatalog: () => null }),
    access: () => ({ tokens: [], setupToken: null, behindTlsProxy: false }),
    ...change,
  };
}

/** Keeps every line, so that a test can look for what must not be there. */
export function recordingLog(): {
  log: Log;
  lines: { message: string; fields: unknown }[];
} {
  const lines: { message: string; fields: unknown }[] = [];
  const keep = (message: string, fields: unknown = {}) => void lines.push({ message, fields });
  return { log: { debug: keep, info: keep, warn: keep, error: keep }, lines };
}
