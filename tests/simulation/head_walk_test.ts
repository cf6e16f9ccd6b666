/**
 * The head and a term's procedures, walked breadth first through every interleaving of a small model (head_walk.ts): two
 * machines, two terms, one crash, one late put, one lost answer, one restore; and the shortest way to harm of broken variants.
 */

import assert from "node:assert/strict";
import type { TermEffect, TermMachine } from "../../src/manager/term_machine.ts";
import { say } from "../support/say.ts";
import { type HeadBudget, headModel, type HeadMutant } from "./head_walk.ts";
import { walk } from "./walker.ts";

const ALL: HeadBudget = { crashes: 1, latePuts: 1, lostReplies: 1, restores: 1, terms: 2 };
const STATES_LIMIT = 4_000_000;

Deno.test("head and procedures hold in every interleaving of two terms, a crash, a late put, a lost answer and a restore", () => {
  const { states, moves, depth, found } = walk(headModel(ALL), STATES_LIMIT);
  say(`${states} states, ${moves} moves, ${depth} deep`);
  assert.equal(found, null, `${found?.violation}\n${found?.path.join("\n")}`);
});

/** Leaves out steps of the shipped procedures. */
function without(leftOut: (effect: TermEffect, machine: TermMachine) => boolean): HeadMutant {
  return {
    term: (shipped) => (machine, event) => {
      let turned = shipped(machine, event);
      for (
        let [effect] = turned.effects;
        effect !== undefined && effect.type !== "ended";
        [effect] = turned.effects
      ) {
        if (!leftOut(effect, turned.state)) break;
        turned = shipped(turned.state, { type: "done", learned: {} });
      }
      return turned;
    },
  };
}

const isChange = (effect: TermEffect, ...kinds: string[]) =>
  "change" in effect && kinds.includes(effect.change.kind);

const MUTANTS: readonly { readonly what: string; readonly mutant: HeadMutant }[] = [
  { what: "a store that ignores conditions", mutant: { ignoresConditions: true } },
  {
    what: "a start that does not claim what is ours",
    mutant: without((effect) => isChange(effect, "claim")),
  },
  {
    what: "a checkpoint that is not called pending",
    mutant: without((effect) => isChange(effect, "pending")),
  },
  { what: "a restore without intent", mutant: without((effect) => isChange(effect, "set-intent")) },
  {
    what: "a successor that leaves an intent",
    mutant: without((effect, { procedure }) => procedure === "prepare" && isChange(effect, "finish-intent")),
  },
  { what: "stale data that is not moved aside", mutant: without(({ type }) => type === "move-aside") },
  {
    what: "a failed restore that settles nothing",
    mutant: without(({ type }, { procedure }) => type === "settle-head" && procedure !== "prepare"),
  },
];

for (const { what, mutant } of MUTANTS) {
  Deno.test(`head walk finds the shortest harm of ${what}`, () => {
    const { found, states } = walk(headModel(ALL, mutant), STATES_LIMIT);
    assert.ok(found !== null, `no harm found in ${states} states: the checker is blind to it`);
    say(`${found.path.join("\n    ")}\n    => ${found.violation} (after ${states} states)`);
  });
}
