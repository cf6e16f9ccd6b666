/**
 * The database room: the link to the child that follows the applications' databases, and the catalog, a local history
 * that nothing depends on.
 */

export { type Catalog, type CatalogOptions, openCatalog } from "./catalog.ts";
export {
  CATALOG_KINDS,
  type CatalogEvent,
  type CatalogKind,
  type CatalogRow,
  type HistoryQuery,
} from "./catalog_types.ts";
export { type CallOptions, FollowLink, type FollowLinkOptions } from "./follow_client.ts";
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
