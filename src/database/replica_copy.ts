/**
 * The files of a replica in another store: where they lie there, and what a bucket says of them besides. A folder store
 * and a bucket have different layouts, and only a bucket has metadata, which the header of each file has as well.
 */

import { LTX_HEADER_BYTES, readHeader } from "./ltx/mod.ts";
import {
  COMMIT_LEVEL,
  replicaKey,
  type ReplicaLayout,
  type ReplicaName,
  slotMetadata,
  timestampMetadata,
  timestampOf,
} from "./replica_layout.ts";
import type { ReplicaObject } from "./restore_points.ts";

/** Key of the same file in `layout`. */
export function replicaKeyIn(layout: ReplicaLayout, { place, name }: ReplicaObject): string {
  return replicaKey({ layout, name: place.name }, name);
}

/**
 * From the top level down, each in order: at every moment of a copy in this order, what is there has no gap that was
 * not there before.
 */
export function compareForCopy(a: ReplicaName, b: ReplicaName): number {
  return b.level - a.level || a.minTxid - b.minTxid || a.maxTxid - b.maxTxid;
}

/**
 * Metadata of the file in `layout`: as it has it already, else from its header, which `start` begins with. None where
 * the header is damaged: whoever wants its content is told.
 */
export function replicaMetadata(
  layout: ReplicaLayout,
  { name }: ReplicaObject,
  { metadata, start }: {
    readonly metadata: Readonly<Record<string, string>>;
    readonly start: Uint8Array<ArrayBuffer>;
  },
): Readonly<Record<string, string>> {
  if (layout === "folder") return {};
  if (timestampOf(metadata) !== null) return metadata;
  try {
    const { timestampMs, nodeId } = readHeader(start.subarray(0, LTX_HEADER_BYTES), "copied file");
    // 0: written by Litestream itself.
    return name.level === COMMIT_LEVEL && nodeId > 0
      ? slotMetadata(timestampMs, nodeId)
      : timestampMetadata(timestampMs);
  } catch {
    return {};
  }
}
