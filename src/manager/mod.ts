/** The manager: the life of one run, and what may be asked of it. */

export type {
  Control,
  LongWork,
  ManagerState,
  ManagerStatus,
  RestoreRequest,
  RestoreResult,
} from "./control.ts";
export { beginRun, type BegunRun } from "./begin_run.ts";
export { copyRepository, type CopyResult } from "./copy_repository.ts";
export { type DataDir, dataDirAt, isReleased, openDataDir, writeExitRecord } from "./data_dir.ts";
export { Manager, type ManagerOptions } from "./manager.ts";
export { storeOptions } from "./opening.ts";
export { endPredecessor, type Predecessor, type PredecessorOptions } from "./predecessor.ts";
export { planOnce, type PlanOnceOptions, restoreOnce, type RestoreOnceOptions } from "./restore_once.ts";
export type { RunGuard } from "./run_guard.ts";
export { measureStorage, STORED_KINDS, type StoredAmount } from "./storage_meter.ts";
export { type DatabasesDepth, withDatabases } from "./verify_databases.ts";
