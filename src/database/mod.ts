/** The database room: today the catalog, a local history that nothing depends on. */

export { type Catalog, type CatalogOptions, openCatalog } from "./catalog.ts";
export {
  CATALOG_KINDS,
  type CatalogEvent,
  type CatalogKind,
  type CatalogRow,
  type HistoryQuery,
} from "./catalog_types.ts";
