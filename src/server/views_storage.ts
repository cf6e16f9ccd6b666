/** The public form of what is in the store. */

import type { StorageGrowth, StorageUsage } from "../manager/storage_meter.ts";
import type { View } from "./views.ts";

export function storageView(usage: StorageUsage, growth: StorageGrowth | null): View {
  const { atMs, objects, bytes, kinds, databases } = usage;
  return {
    time: new Date(atMs).toISOString(),
    objects,
    bytes,
    kinds,
    databases,
    growth: growth === null ? null : {
      since: new Date(growth.sinceMs).toISOString(),
      objects: growth.objects,
      bytes: growth.bytes,
      bytes_per_day: growth.bytesPerDay,
    },
  };
}
