/** All entries of a small tree's manifest at once. */

import type { IndexRef } from "../../src/checkpoint/index_store.ts";
import type { FilesItem } from "../../src/checkpoint/records.ts";
import { openCheckpoint, type ReadEnvironment, readThrough } from "../../src/checkpoint/restore.ts";
import { fetchManifest, type ReadingOptions } from "../../src/checkpoint/root_reader.ts";
import type { CheckpointRecord, ManifestEntry, TreeEntry } from "../../src/checkpoint/types.ts";

/** Of files root `name`, in path order. */
export async function readManifest(
  item: FilesItem,
  name: string,
  options: ReadingOptions,
): Promise<readonly ManifestEntry[]> {
  const [entries = []] = (await fetchManifest(item, name, options)).batches(Infinity);
  return entries;
}

/** The same by way of a record, as a restore reads it. */
export async function listFiles(
  { record, indexes, name }: {
    readonly record: CheckpointRecord;
    readonly indexes: readonly IndexRef[];
    readonly name: string;
  },
  environment: ReadEnvironment,
): Promise<readonly TreeEntry[]> {
  const opened = await openCheckpoint(record, indexes, environment, () => {});
  const item = opened.root.items.files[name];
  if (item === undefined) throw new Error(`no files root "${name}"`);
  const entries = await readThrough(
    record,
    opened,
    environment,
    (opened) => readManifest(item, name, opened),
  );
  return entries.map(({ entry }) => entry);
}
