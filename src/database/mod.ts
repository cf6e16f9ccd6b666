/** The database room: the catalog, a local history that nothing depends on; restores of replicated databases. */

export { type Catalog, type CatalogOptions, openCatalog } from "./catalog.ts";
export {
  CATALOG_KINDS,
  type CatalogEvent,
  type CatalogKind,
  type CatalogRow,
  type HistoryQuery,
} from "./catalog_types.ts";
export { DatabaseChildren, type DatabaseChildrenOptions, type DatabaseWork } from "./database_client.ts";
export {
  type DatabaseSwapItem,
  type DatabaseSwapJournal,
  type DatabaseSwapOutcome,
  finishDatabaseSwaps,
  rollDatabaseSwaps,
  stagePathOf,
  swapDatabases,
} from "./database_swap.ts";
export type { DrillRequest, DrillResult } from "./drill.ts";
export { realDatabasePath } from "./real_path.ts";
export { readReplicaFacts, type ReplicaFacts } from "./replica_facts.ts";
export type { CheckMode } from "./restore_check.ts";
export { planDatabaseRestore, restoreDatabaseTo } from "./restore_database.ts";
export {
  findReplica,
  listDatabases,
  type ListedPoint,
  type ListedPoints,
  listRestorePoints,
  type PointsRequest,
  type StoredDatabase,
} from "./restore_points.ts";
export { newestTxid, planRestore, restorePoints, type RestoreTarget } from "./restore_plan.ts";
export type {
  RestoreEnvironment,
  RestorePlan,
  RestoreProgress,
  RestoreRequest,
  RestoreResult,
} from "./restore_types.ts";
