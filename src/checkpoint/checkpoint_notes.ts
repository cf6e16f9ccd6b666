/** What people may change of a checkpoint after it was made. Its content never changes, nor what its root object says. */

import type { CheckpointRecord, Head } from "./types.ts";

export interface CheckpointNotes {
  readonly comment?: string;
  /** Names with their new values; null takes a label away. Those that are not named stay. */
  readonly labels?: Readonly<Record<string, string | null>>;
  /** A pinned checkpoint stays whatever the keep rules say. */
  readonly pinned?: boolean;
}

/** Most labels of one checkpoint: they are in every listing and in the head. */
export const LABELS_LIMIT = 32;

export function withNotes(head: Head, id: string, notes: CheckpointNotes): Head {
  const noted = (record: CheckpointRecord) => record.id === id ? notedRecord(record, notes) : record;
  return { ...head, checkpoints: head.checkpoints.map(noted) };
}

export function notedRecord(record: CheckpointRecord, notes: CheckpointNotes): CheckpointRecord {
  const { pinned: before = false, ...rest } = record;
  const pinned = notes.pinned ?? before;
  const labels = Object.entries({ ...record.labels, ...notes.labels });
  return {
    ...rest,
    comment: notes.comment ?? record.comment,
    labels: Object.fromEntries(labels.filter((label): label is [string, string] => label[1] !== null)),
    ...(pinned ? { pinned } : {}),
  };
}
