/** The manager: the life of one run, and what may be asked of it. */

export type { Control, ManagerState, ManagerStatus } from "./control.ts";
export { clearScratch, type DataDir, isReleased, openDataDir, writeExitRecord } from "./data_dir.ts";
export { Manager, type ManagerOptions } from "./manager.ts";
export { storeOptions } from "./opening.ts";
export { endPredecessor, type Predecessor, type PredecessorOptions } from "./predecessor.ts";
export { type RunGuard, startRun } from "./run_guard.ts";
