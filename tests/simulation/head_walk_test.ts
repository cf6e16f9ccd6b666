/**
 * The head and a term's procedures, walked breadth first through every interleaving of a small model (head_walk.ts) with a
 * crash, a late put and a lost answer in one history, and a restore besides; and the shortest way to harm of broken
 * variants. STATE_MANAGER_SIMULATION_WALK=all adds larger ones. What the walk leaves out of a state
 * (head_walk_encoding.ts) is tried against every single move.
 */

import assert from "node:assert/strict";
import type { TermEffect, TermMachine } from "../../src/manager/term_machine.ts";
import { say } from "../support/say.ts";
import { Chance } from "./chance.ts";
import { type HeadBudget, headModel, type HeadMutant, plainHeadModel } from "./head_walk.ts";
import { walk } from "./walker.ts";
import { compareFutures, randomStates, reachedStates } from "./walker_comparison.ts";

const NOTHING: HeadBudget = { crashes: 0, latePuts: 0, lostReplies: 0, restores: 0, terms: 2 };
const THREE: HeadBudget = { ...NOTHING, crashes: 1, latePuts: 1, lostReplies: 1 };
const STATES_LIMIT = 12_000_000;
/** A walk that tells all states apart sees several times as many, slowly. */
const COMPARED_STATES = 10_000;

const BUDGETS: HeadBudget[] = [THREE, { ...THREE, restores: 1 }];
if (Deno.env.get("STATE_MANAGER_SIMULATION_WALK") === "all") {
  BUDGETS.push({ ...THREE, terms: 3 });
  BUDGETS.push({ ...THREE, crashes: 2, restores: 1 });
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

const RESTORED: HeadBudget = { ...NOTHING, crashes: 1, restores: 1 };
const MANY: HeadBudget = { ...THREE, crashes: 2, restores: 1, terms: 3 };

const COMPARED = [
  {
    which: `of all with ${faultsOf(NOTHING)}`,
    budget: NOTHING,
    states: reachedStates(plainHeadModel(NOTHING)),
  },
  {
    which: `of a walk with ${faultsOf(RESTORED)}`,
    budget: RESTORED,
    states: reachedStates(headModel(RESTORED)),
  },
  {
    which: `at random with ${faultsOf(MANY)}`,
    budget: MANY,
    states: randomStates(headModel(MANY), { chance: new Chance(1), histories: 600, length: 120 }),
  },
];

for (const { which, budget, states } of COMPARED) {
  Deno.test(`head walk takes states for one only where they have one future, ${which}`, () => {
    const { states: count, groups, differ } = compareFutures(headModel(budget), states);
    say(`${count} states in ${groups}`);
    assert.equal(differ, null, differ?.join("\n"));
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
    budget: { terms: 3 },
  },
  {
    what: "a failed restore that settles nothing",
    mutant: without(({ type }, { procedure }) => type === "settle-head" && procedure !== "prepare"),
    budget: { latePuts: 1, restores: 1 },
  },
];

for (const { what, mutant, budget } of MUTANTS) {
  Deno.test(`head walk finds the shortest harm of ${what}`, () => {
    const all = { ...NOTHING, ...budget };
    const model = headModel(all, mutant);
    const { found, states } = walk(model, STATES_LIMIT);
    assert.ok(found !== null, `no harm found in ${states} states: the checker is blind to it`);
    say(`${found.path.join("\n    ")}\n    => ${found.violation} (after ${states} states)`);

    if (states < COMPARED_STATES) {
      const plain = walk(plainHeadModel(all, mutant), STATES_LIMIT);
      assert.equal(plain.found?.path.length, found.path.length, "told all apart, states lead there as soon");
    }
    const random = randomStates(model, { chance: new Chance(1), histories: 50, length: 120 });
    const { differ } = compareFutures(model, random);
    assert.equal(differ, null, differ?.join("\n"));
  });
}
