/** The database room: replication of the applications' databases, and the catalog, a local history that nothing depends on. */

export { type Catalog, type CatalogOptions, openCatalog } from "./catalog.ts";
export {
  CATALOG_KINDS,
  type CatalogEvent,
  type CatalogKind,
  type CatalogRow,
  type HistoryQuery,
} from "./catalog_types.ts";
export { FollowLink, type FollowLinkOptions, isFenced } from "./follow_client.ts";
export type {
  DatabaseStatus,
  FollowedDatabase,
  FollowedFolder,
  FollowEvent,
  FollowJournal,
} from "./follow_protocol.ts";
export type { FollowedStatus, FollowStatus } from "./follow_status.ts";
