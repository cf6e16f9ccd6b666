/**
 * What a term changes in the head, as data, and what each change makes of it. Pure: the shells and a simulator apply
 * the same ones. The swap itself, with epoch, seq and nonce, is the checkpoint room's (head_rules.ts).
 */

import {
  type CheckpointNotes,
  doom,
  forget,
  type PruneChange,
  release,
  withNotes,
} from "../checkpoint/mod.ts";
import type { CheckpointRecord, DatabaseFile, Head, RestoreIntent } from "../checkpoint/types.ts";

export type HeadChange =
  /** A new state, made of what the programs wrote. */
  | { readonly kind: "current"; readonly record: CheckpointRecord; readonly indexes: Head["indexes"] }
  /** A restore of `files` begins: from now on it is finished, by us or by whoever holds the lease next. */
  | {
    readonly kind: "set-intent";
    readonly record: CheckpointRecord;
    /** All that are live from now on. Left out: the same as before. */
    readonly indexes?: Head["indexes"];
    readonly onStart: string | null;
    readonly files: readonly string[];
    /** Left out: none. */
    readonly databases?: RestoreIntent["databases"];
  }
  /** The same packs in other indexes: a repair made them anew. */
  | { readonly kind: "reindex"; readonly indexes: Head["indexes"] }
  | { readonly kind: "finish-intent" }
  /** The restore did not take place and never will. */
  | { readonly kind: "drop-intent" }
  | { readonly kind: "annotate"; readonly id: string; readonly notes: CheckpointNotes }
  /** Owner and mode of these databases, as they are now. */
  | { readonly kind: "database-files"; readonly files: Readonly<Record<string, DatabaseFile>> }
  /** Checkpoints and garbage leave (prune_rules.ts). */
  | PruneChange;

/**
 * Most checkpoints that the head lists. It keeps head.json in the low megabytes; past it the oldest interval
 * checkpoints that nobody pinned leave the list first.
 */
const MAX_LISTED_CHECKPOINTS = 4000;

export function changeHead(head: Head, change: HeadChange): Head {
  switch (change.kind) {
    case "current":
      return withFiles(withCurrent(head, change.record, change.indexes), filesOf(change.record));
    case "set-intent": {
      const { record, indexes = head.indexes, onStart, files, databases } = change;
      const intent = { record, on_start: onStart, files, ...(databases === undefined ? {} : { databases }) };
      return { ...head, indexes, intent };
    }
    case "reindex":
      return { ...head, indexes: change.indexes };
    case "finish-intent":
      return finishedIntent(head);
    case "drop-intent":
      return { ...head, intent: null };
    case "annotate":
      return withNotes(head, change.id, change.notes);
    case "database-files":
      return withFiles(head, change.files);
    case "forget":
      return forget(head, change.ids, change.nowMs);
    case "doom":
      return doom(head, change.doom, change.nowMs);
    case "release":
      return release(head, change.names);
  }
}

/**
 * The head with `record` made current, at most `MAX_LISTED_CHECKPOINTS` listed. No intent outlives it: it would bring
 * the old content back over a state that was committed after it.
 */
export function withCurrent(head: Head, record: CheckpointRecord, indexes: Head["indexes"]): Head {
  const checkpoints = [...head.checkpoints, record];
  while (checkpoints.length > MAX_LISTED_CHECKPOINTS) {
    const oldestInterval = checkpoints.findIndex((each) =>
      each.kind === "interval" && each.pinned !== true && each.id !== record.id
    );
    checkpoints.splice(Math.max(0, oldestInterval), 1);
  }
  return { ...head, checkpoints, indexes, current: record.id, intent: null };
}

function withFiles(head: Head, files: Readonly<Record<string, DatabaseFile>>): Head {
  if (Object.keys(files).length === 0) return head;
  return { ...head, database_files: { ...head.database_files, ...files } };
}

function filesOf({ databases = {} }: CheckpointRecord): Record<string, DatabaseFile> {
  return Object.fromEntries(
    Object.entries(databases).flatMap(([name, { file }]) => file === undefined ? [] : [[name, file]]),
  );
}

/** The head after its intent, if it has one, was carried out. */
export function finishedIntent(head: Head): Head {
  const { intent } = head;
  if (intent === null) return head;
  return {
    ...withCurrent(head, intent.record, head.indexes),
    on_start_applied: intent.on_start ?? head.on_start_applied,
  };
}
