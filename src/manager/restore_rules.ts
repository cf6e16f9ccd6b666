/**
 * The order of a restore to the past, while no program runs, and of what comes after one that failed. Pure.
 * If we die before the intent, nothing happened; after it, the next start finishes it in the head and brings back what
 * the swap had not; a swap that has begun goes forward before anything else. Of single paths the new record holds the
 * whole tree, as it is now but for them: whoever finishes it brings back all of that.
 */

import { assert } from "../platform/assert.ts";
import { REPAIR } from "./start_rules.ts";
import type { Answer, RootPaths, TermFacts, TermStep } from "./term_machine.ts";

export function restore(wanted: NonNullable<TermFacts["wanted"]>): readonly TermStep[] {
  const { source, names, databases } = wanted;
  return [
    { type: "settle-head" },
    { type: "decide", question: "settled" },
    ...(names.length > 0 ? [{ type: "stage", record: source, names, ...pathsOf(wanted) } as const] : []),
    { type: "compose", source, names, ...pathsOf(wanted), databases },
    { type: "decide", question: "composed" },
  ];
}

/** From the first step on it is finished, by us or by the next holder. */
export function composed(facts: TermFacts): Answer {
  const { composed: record, composedIndexes: indexes, wanted, roots } = facts;
  assert(record !== null && wanted !== null, "a restore knows what it brings back");
  const { names, databases, onStart } = wanted;
  const { id } = record;
  const someDatabases = Object.keys(databases).length > 0;
  const swap: readonly TermStep[] = [
    { type: "swap-files", id, names, ...pathsOf(wanted) },
    { type: "write-marker", change: { kind: "content", names, id } },
    { type: "finish-swap" },
  ];
  return {
    facts,
    steps: [
      {
        type: "swap-head",
        change: {
          kind: "set-intent",
          record,
          ...(indexes === undefined ? {} : { indexes }),
          onStart,
          files: names,
          ...(someDatabases ? { databases } : {}),
        },
      },
      ...(names.length > 0 ? swap : []),
      // Before the head says that it is done: until then whoever comes next does it again.
      ...(someDatabases ? [{ type: "restore-databases", positions: databases } as const] : []),
      { type: "swap-head", change: { kind: "finish-intent" } },
      { type: "write-marker", change: { kind: "content", names: roots.map(({ name }) => name), id } },
    ],
  };
}

function pathsOf({ paths }: NonNullable<TermFacts["wanted"]>): { readonly paths?: RootPaths } {
  return paths === undefined ? {} : { paths };
}

/** The intent may have landed, or land yet, though we were told otherwise: nothing starts before that is known. */
export const RECOVER: readonly TermStep[] = [
  ...REPAIR,
  { type: "remove-leftovers", keep: [] },
  { type: "settle-head" },
  { type: "decide", question: "settled" },
];
