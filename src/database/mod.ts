/**
 * The database room: replication of the applications' databases in children of this program (followed while programs
 * run, restored, drilled), and the catalog, a local history that nothing depends on.
 */

export { type Catalog, type CatalogOptions, keptForm, openCatalog } from "./catalog.ts";
export {
  CATALOG_KINDS,
  type CatalogEvent,
  type CatalogInsert,
  type CatalogKind,
  type CatalogRow,
  type EventPlace,
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
export { databasesIn } from "./follow_folder.ts";
export { type CallOptions, FollowLink, type FollowLinkOptions, isFenced } from "./follow_client.ts";
export type {
  DatabaseCounts,
  DatabaseState,
  FollowedDatabase,
  FollowedFolder,
  FollowEvent,
  FollowJournal,
  FollowSettings,
  Positions,
  SyncAnswer,
} from "./follow_protocol.ts";
export type { FollowedStatus, FollowStatus, LinkState } from "./follow_status.ts";
export { realDatabasePath } from "./real_path.ts";
export { DATABASES_PREFIX, layoutOf, type ReplicaLayout, type ReplicaPlace } from "./replica_layout.ts";
export { compareForCopy, replicaKeyIn, replicaMetadata } from "./replica_copy.ts";
export { listReplica, type ReplicaFile } from "./replica_listing.ts";
export { readReplicaFacts, type ReplicaFacts } from "./replica_facts.ts";
export type { CheckMode } from "./restore_check.ts";
export { planDatabaseRestore, removeInterrupted, restoreDatabaseTo } from "./restore_database.ts";
export {
  findReplica,
  listDatabaseNames,
  listDatabases,
  type ListedPoint,
  type ListedPoints,
  listRestorePoints,
  parseAnyReplicaKey,
  type PointsRequest,
  type ReplicaObject,
  type StoredDatabase,
} from "./restore_points.ts";
export { newestTxid, planRestore, restorePoints, type RestoreTarget } from "./restore_plan.ts";
export {
  type PositionFinding,
  type PositionsLevel,
  type PositionsRequest,
  type PositionsResult,
  verifyPositions,
} from "./verify_positions.ts";
export type {
  RestoreEnvironment,
  RestorePlan,
  RestoreProgress,
  RestoreRequest,
  RestoreResult,
} from "./restore_types.ts";
