/**
 * The order of a checkpoint: settle what is in doubt, upload, marker, head, marker. Pure. If we die before the head's
 * swap, what was uploaded is garbage; after it, `pending` says that it was ours.
 */

import type { Answer, TermFacts, TermStep } from "./term_machine.ts";

export const CHECKPOINT: readonly TermStep[] = [
  { type: "settle-head" },
  { type: "decide", question: "settled" },
  { type: "upload" },
  { type: "decide", question: "uploaded" },
];

/**
 * An earlier swap that we were told had failed may have landed: a checkpoint, which the marker then calls pending, or
 * the intent of a restore. `pending` has room for one, so this comes before the next is written there.
 * An intent is finished when the files were swapped, since the local tree is what it says; else it is dropped: the
 * programs go on with the old tree, which the head still calls current. Its databases come after its files: they are
 * untouched while the files are, and an intent of databases alone may have begun with them.
 */
export function settled(facts: TermFacts): Answer {
  const { head, marker, roots } = facts;
  if (head === null) return { facts, steps: [] };
  const all = roots.map(({ name }) => name);
  const { current, intent } = head;
  const names = all.filter((name) => current !== null && marker.files[name]?.pending === current);
  const steps: TermStep[] = [];
  if (current !== null && names.length > 0) {
    steps.push({ type: "write-marker", change: { kind: "content", names, id: current } });
  }
  if (intent === null) return { facts, steps };
  const { id } = intent.record;
  const positions = intent.databases ?? {};
  const databasesOnly = Object.keys(positions).length > 0 && (intent.files ?? all).length === 0;
  if (databasesOnly) {
    steps.push({ type: "look-at-points", positions }, { type: "decide", question: "settled-points" });
    return { facts, steps };
  }
  if (!all.some((name) => marker.files[name]?.checkpoint === id)) {
    return { facts, steps: [...steps, { type: "swap-head", change: { kind: "drop-intent" } }] };
  }
  return { facts, steps: [...steps, ...finish(facts)] };
}

/** An intent of databases alone, of which a state is gone, can never be finished: it did not take place. */
export function settledPoints(facts: TermFacts): Answer {
  const steps = facts.lost.length > 0
    ? [{ type: "swap-head", change: { kind: "drop-intent" } } as const]
    : finish(facts);
  return { facts, steps };
}

function finish({ head, roots }: TermFacts): readonly TermStep[] {
  const intent = head?.intent ?? null;
  if (intent === null) return [];
  const positions = intent.databases ?? {};
  const names = roots.map(({ name }) => name);
  return [
    ...(Object.keys(positions).length > 0 ? [{ type: "restore-databases", positions } as const] : []),
    { type: "swap-head", change: { kind: "finish-intent" } },
    { type: "write-marker", change: { kind: "content", names, id: intent.record.id } },
  ];
}

/** Makes what was uploaded the current state. */
export function uploaded(facts: TermFacts): Answer {
  const { made, roots } = facts;
  if (made === null) return { facts, steps: [] };
  const { record, indexes } = made;
  const names = roots.map(({ name }) => name);
  return {
    facts,
    steps: [
      { type: "write-marker", change: { kind: "pending", names, id: record.id } },
      { type: "swap-head", change: { kind: "current", record, indexes } },
      { type: "write-marker", change: { kind: "content", names, id: record.id } },
    ],
  };
}
