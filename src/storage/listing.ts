/** Pages of a listing, for stores that know their keys. Keys are ASCII: string order is byte order. */

import { StateManagerError } from "../platform/errors.ts";
import type { ListOptions, ListPage, ObjectInfo } from "./object_store.ts";

/** Most keys in one page, as in S3. */
export const LARGEST_PAGE = 1000;

/** The page size asked for; `invalid-request` outside 1 to 1000. */
export function pageLimit(options: ListOptions): number {
  const limit = options.limit ?? LARGEST_PAGE;
  if (Number.isInteger(limit) && limit >= 1 && limit <= LARGEST_PAGE) return limit;
  throw new StateManagerError("invalid-request", `list: limit is ${limit}, wanted 1 to ${LARGEST_PAGE}`);
}

/** Whether `key` belongs into a listing with these options. */
export function isListed(key: string, options: ListOptions): boolean {
  return key.startsWith(options.prefix) && (options.startAfter === undefined || key > options.startAfter);
}

/** The page made of the first `limit` of `objects`, of which one more may be given to show that there are more. */
export function pageOf(objects: readonly ObjectInfo[], limit: number): ListPage {
  const page = objects.slice(0, limit);
  const last = page.at(-1);
  return objects.length > limit && last !== undefined
    ? { objects: page, nextStartAfter: last.key }
    : { objects: page };
}
