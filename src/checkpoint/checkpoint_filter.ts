/** Which checkpoints of a list are wanted: by kind and by labels. Pure. */

import type { CheckpointRecord } from "./types.ts";

export const CHECKPOINT_KINDS = ["interval", "request", "stop", "adopt", "safety", "restore"] as const;

export interface CheckpointFilter {
  /** One of these; empty: any. */
  readonly kinds: readonly CheckpointRecord["kind"][];
  /** All of these: a label's name, and its value where one is given. */
  readonly labels: readonly { readonly name: string; readonly value: string | null }[];
  readonly pinned: boolean | null;
}

/** `name` or `name=value`. */
export function parseLabelFilter(text: string): CheckpointFilter["labels"][number] {
  const at = text.indexOf("=");
  return at < 0 ? { name: text, value: null } : { name: text.slice(0, at), value: text.slice(at + 1) };
}

export function isCheckpointKind(text: string): text is CheckpointRecord["kind"] {
  return CHECKPOINT_KINDS.some((kind) => kind === text);
}

export function matchesFilter(
  record: CheckpointRecord,
  { kinds, labels, pinned }: CheckpointFilter,
): boolean {
  if (kinds.length > 0 && !kinds.includes(record.kind)) return false;
  if (pinned !== null && (record.pinned === true) !== pinned) return false;
  return labels.every(({ name, value }) =>
    Object.hasOwn(record.labels, name) && (value === null || record.labels[name] === value)
  );
}
