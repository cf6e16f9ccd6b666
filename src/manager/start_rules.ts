/**
 * The order of a start. Each list reads as what is done; between any two steps we may die, and the next start, which
 * begins at the top again, must end right. Pure.
 */

import { findCheckpoint } from "../checkpoint/mod.ts";
import type { CheckpointRecord, Head } from "../checkpoint/types.ts";
import { isError } from "../platform/errors.ts";
import { finishedIntent } from "./head_changes.ts";
import {
  conflictError,
  currentRecord,
  decideLineage,
  heldAtEpoch,
  isOurs,
  type LineageDecision,
  type MarkerItem,
  orphansError,
} from "./lineage.ts";
import { type Answer, refusalOf, type TermFacts, type TermStep } from "./term_machine.ts";

/** Before the store is even open: what is in the journal was decided. */
export const REPAIR: readonly TermStep[] = [
  { type: "roll-swap" },
  { type: "decide", question: "rolled" },
];

/** The content is live and durable: say so, and only then forget how it came. */
export function afterRoll(facts: TermFacts): Answer {
  const { rolled } = facts;
  if (rolled === null) return { facts, steps: [] };
  const { id, names } = rolled;
  return {
    facts,
    steps: [{ type: "write-marker", change: { kind: "content", names, id } }, { type: "finish-swap" }],
  };
}

/** Refuses while nothing has changed yet, claims what is ours, then fences every earlier holder by the head's epoch. */
export const OPEN: readonly TermStep[] = [
  { type: "read-head" },
  { type: "look-at-roots" },
  { type: "decide", question: "claims" },
];

/**
 * If we die after the claim, it names an epoch that never was, or that a late swap of ours makes; after the take-over,
 * it says that it was us. When the head changed meanwhile, all of it is decided again.
 */
export function claims(facts: TermFacts): Answer {
  const decided = decideRoots(facts, facts.head);
  const refused = facts.roots.flatMap(({ name, path }) => {
    const decision = decided[name];
    return decision?.kind === "refuse" ? [{ name, path, reason: decision.reason }] : [];
  });
  if (refused.length > 0) return { facts, steps: [], refusal: refusalOf(conflictError(refused)) };
  const orphans = orphansOf(facts);
  if (orphans.length > 0 && facts.settings.orphans === "stop") {
    return { facts, steps: [], refusal: refusalOf(orphansError(orphans)) };
  }
  const names = facts.roots.map(({ name }) => name)
    .filter((name) => isOurs(name, markerOf(facts, name), facts.repoId, facts.head));
  const databases = Object.entries(facts.marker.databases ?? {})
    .filter(([_, marker]) =>
      marker.repo_id === facts.repoId && heldAtEpoch(marker, facts.head?.epoch ?? null)
    )
    .map(([name]) => name);
  const change = { kind: "claim", names, databases, token: facts.token } as const;
  const marked = [...Object.values(facts.marker.files), ...Object.values(facts.marker.databases ?? {})];
  const claimed = marked.some((item) => item.claimed !== null);
  return {
    facts: { ...facts, attempts: facts.attempts + 1 },
    steps: [
      ...(names.length + databases.length > 0 || claimed ? [{ type: "write-marker", change } as const] : []),
      { type: "take-over-head" },
    ],
  };
}

/** Everything that must be right before the first program starts. */
export const PREPARE: readonly TermStep[] = [
  { type: "decide", question: "begun-restore" },
  { type: "decide", question: "leftovers" },
  { type: "look-at-roots" },
  { type: "decide", question: "roots" },
  { type: "decide", question: "ownership" },
];

/** A restore that its holder began and did not finish in the head: it is finished, before anything starts. */
export function begunRestore(facts: TermFacts): Answer {
  const intent = facts.head?.intent ?? null;
  if (intent === null) return { facts, steps: [] };
  const positions = intent.databases ?? {};
  if (Object.keys(positions).length === 0) {
    return { facts, steps: [{ type: "swap-head", change: { kind: "finish-intent" } }] };
  }
  return {
    facts,
    steps: [{ type: "look-at-points", positions }, { type: "decide", question: "begun-points" }],
  };
}

/**
 * One that can never be finished, since a state that it wants is gone, did not take place: else nothing would ever start
 * again. Files that it had swapped are stale by then, and are moved aside.
 */
export function begunPoints(facts: TermFacts): Answer {
  const positions = facts.head?.intent?.databases ?? {};
  if (facts.lost.length > 0) {
    const previous = facts.previous === null ? null : { ...facts.previous, intent: null };
    return { facts: { ...facts, previous }, steps: [{ type: "swap-head", change: { kind: "drop-intent" } }] };
  }
  return {
    facts,
    steps: [{ type: "restore-databases", positions }, {
      type: "swap-head",
      change: { kind: "finish-intent" },
    }],
  };
}

/** What the last start had staged and this one may stage again is used up, the rest goes. */
export function leftovers(facts: TermFacts): Answer {
  try {
    const records = [currentRecord(facts.head), onStartSource(facts.head, facts.settings.onStart)];
    const keep = records.flatMap((record) => record === null ? [] : [stageId(record)]);
    return { facts, steps: [{ type: "remove-leftovers", keep }] };
  } catch (error) {
    if (!isError(error, "checkpoint-not-found")) throw error;
    return { facts, steps: [], refusal: refusalOf(error) };
  }
}

/**
 * What stages of a checkpoint are called. A restore to the past is staged before its own record exists: whoever finishes
 * it finds what was staged by the name of the source.
 */
export function stageId(record: CheckpointRecord): string {
  return record.restored_from ?? record.id;
}

/** Null when `restore.on_start` asks for none, or was applied. Throws `checkpoint-not-found`. */
export function onStartSource(head: Head | null, onStart: string): CheckpointRecord | null {
  if (head === null || onStart === "latest" || onStart === "none") return null;
  if (onStart === head.on_start_applied) return null;
  const atMs = Date.parse(onStart);
  return findCheckpoint(
    head,
    /^\d{4}-/.test(onStart) && !Number.isNaN(atMs) ? { atMs } : { checkpoint: onStart },
  );
}

/**
 * Staged beside the live folders; stale content aside; the marker says that nothing is known of what comes, which for a
 * new machine is what makes the content ours at all; swap; the marker says what it is.
 * If we die before the swap's journal, the roots are missing or stale, and are restored; after it, the repair ends it.
 */
export function roots(facts: TermFacts): Answer {
  const decisions = decideRoots(facts, facts.previous);
  const after = { ...facts, decisions };
  const record = currentRecord(facts.head);
  const restored = facts.roots.filter(({ name }) => decisions[name]?.kind === "restore");
  if (record === null || restored.length === 0) return { facts: after, steps: [] };
  const names = restored.map(({ name }) => name);
  const stale = names.filter((name) => {
    const decision = decisions[name];
    return decision?.kind === "restore" && decision.moveAside;
  });
  const unknown = restored.map(({ name, path }) => [name, ownItem(facts, path, null)]);
  return {
    facts: after,
    steps: [
      { type: "stage", record, names },
      ...stale.map((name) => ({ type: "move-aside", name }) as const),
      { type: "write-marker", change: { kind: "own", items: Object.fromEntries(unknown) } },
      { type: "swap-files", id: record.id, names },
      { type: "write-marker", change: { kind: "content", names, id: record.id } },
      { type: "finish-swap" },
    ],
  };
}

/** After the decisions were carried out, every root is ours as of this term. */
export function ownership(facts: TermFacts): Answer {
  const items = facts.roots.map(({ name, path }) => [name, ownItem(facts, path, checkpointOf(facts, name))]);
  return {
    facts,
    steps: [{ type: "write-marker", change: { kind: "own", items: Object.fromEntries(items) } }],
  };
}

function ownItem(facts: TermFacts, path: string, checkpoint: string | null): MarkerItem {
  return { repo_id: facts.repoId, path, token: facts.token, claimed: null, checkpoint, pending: null };
}

/** What the content of a root is, or descends from, once its decision was carried out. */
function checkpointOf(facts: TermFacts, name: string): string | null {
  const current = facts.head?.current ?? null;
  const kept = markerOf(facts, name);
  const decision = facts.decisions[name]?.kind;
  // Adopted, or kept against the table's advice: it descends from what is there now, its content comes next.
  if (decision === "restore" || decision === "adopt" || kept === null || kept.repo_id !== facts.repoId) {
    return current;
  }
  return kept.pending !== null && kept.pending === current ? current : kept.checkpoint;
}

/** True when local content may be newer than the bucket: it is shipped soon after the start. */
export function mustShip(decisions: TermFacts["decisions"]): boolean {
  return Object.values(decisions).some(({ kind }) => kind === "keep" || kind === "adopt");
}

/** A marker of another folder says nothing about this one. */
function markerOf(facts: TermFacts, name: string): MarkerItem | null {
  const item = facts.marker.files[name];
  return item !== undefined && facts.roots.some((root) => root.name === name && root.path === item.path)
    ? item
    : null;
}

function decideRoots(facts: TermFacts, head: Head | null): Record<string, LineageDecision> {
  return Object.fromEntries(facts.roots.map(({ name }) => [
    name,
    decideLineage({
      name,
      localEmpty: facts.empty.includes(name),
      marker: markerOf(facts, name),
      repoId: facts.repoId,
      previousHead: head,
      onConflict: facts.settings.onConflict,
      restoreNothing: facts.settings.onStart === "none",
    }),
  ]));
}

function orphansOf({ head, roots }: TermFacts): string[] {
  const current = head === null ? null : currentRecord(finishedIntent(head));
  return Object.keys(current?.files ?? {}).filter((name) => !roots.some((root) => root.name === name));
}
