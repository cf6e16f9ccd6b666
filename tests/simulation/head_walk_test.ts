/**
 * The head and a term's procedures, walked breadth first through every interleaving of a small model (head_walk.ts): two
 * machines, two terms, a crash, a lost answer, a restore, a late put; and the shortest way to harm of broken variants.
 * Two faults in one history here; STATE_MANAGER_SIMULATION_WALK=all adds the larger ones.
 */

import assert from "node:assert/strict";
import type { TermEffect, TermMachine } from "../../src/manager/term_machine.ts";
import { say } from "../support/say.ts";
import { type HeadBudget, headModel, type HeadMutant } from "./head_walk.ts";
import { walk } from "./walker.ts";

const NOTHING: HeadBudget = { crashes: 0, latePuts: 0, lostReplies: 0, restores: 0, terms: 2 };
const STATES_LIMIT = 12_000_000;

const BUDGETS: HeadBudget[] = [
  { ...NOTHING, crashes: 1, lostReplies: 1 },
  { ...NOTHING, crashes: 1, restores: 1 },
];
if (Deno.env.get("STATE_MANAGER_SIMULATION_WALK") === "all") {
  BUDGETS.push({ ...NOTHING, crashes: 1, latePuts: 1 });
  BUDGETS.push({ ...NOTHING, latePuts: 1, restores: 1 });
  BUDGETS.push({ ...NOTHING, crashes: 1, latePuts: 1, lostReplies: 1 });
}

function faultsOf(budget: HeadBudget): string {
  return Object.entries(budget).filter(([, count]) => count > 0).map(([name, count]) => `${name} ${count}`)
    .join(", ");
}

for (const budget of BUDGETS) {
  Deno.test(`head and procedures hold in every interleaving of ${faultsOf(budget)}`, () => {
    const { states, moves, depth, found } = walk(headModel(budget), STATES_LIMIT);
    say(`${states} states, ${moves} moves, ${depth} deep`);
    assert.equal(found, null, `${found?.violation}\n${found?.path.join("\n")}`);
  });
}

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

interface Case {
  readonly what: string;
  readonly mutant: HeadMutant;
  readonly budget: Partial<HeadBudget>;
}

const MUTANTS: readonly Case[] = [
  { what: "a store that ignores conditions", mutant: { ignoresConditions: true }, budget: { latePuts: 1 } },
  {
    what: "a start that does not claim what is ours",
    mutant: without((effect) => isChange(effect, "claim")),
    budget: { crashes: 2, terms: 3 },
  },
  {
    what: "a checkpoint that is not called pending",
    mutant: without((effect) => isChange(effect, "pending")),
    budget: { crashes: 1 },
  },
  {
    what: "a restore without intent",
    mutant: without((effect) => isChange(effect, "set-intent")),
    budget: { restores: 1 },
  },
  {
    what: "a successor that leaves an intent",
    mutant: without((effect, { procedure }) => procedure === "prepare" && isChange(effect, "finish-intent")),
    budget: { crashes: 1, restores: 1 },
  },
  {
    what: "stale data that is not moved aside",
    mutant: without(({ type }) => type === "move-aside"),
    budget: { crashes: 1, terms: 3 },
  },
  {
    what: "a failed restore that settles nothing",
    mutant: without(({ type }, { procedure }) => type === "settle-head" && procedure !== "prepare"),
    budget: { latePuts: 1, restores: 1 },
  },
];

for (const { what, mutant, budget } of MUTANTS) {
  Deno.test(`head walk finds the shortest harm of ${what}`, () => {
    const { found, states } = walk(headModel({ ...NOTHING, ...budget }, mutant), STATES_LIMIT);
    assert.ok(found !== null, `no harm found in ${states} states: the checker is blind to it`);
    say(`${found.path.join("\n    ")}\n    => ${found.violation} (after ${states} states)`);
  });
}
