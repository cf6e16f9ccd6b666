/**
 * The lease with its programs, the guard and the fast return, walked breadth first through every interleaving of a small
 * model (lease_walk.ts) with a crash, a late request and a lost reply in one history; and the shortest way to harm of each
 * broken variant. STATE_MANAGER_SIMULATION_WALK=all adds larger ones. What the walk leaves out of a state
 * (lease_walk_encoding.ts) is tried against every single move.
 */

import assert from "node:assert/strict";
import type { LeaseMachine, Step } from "../../src/lease/machine.ts";
import { say } from "../support/say.ts";
import { Chance } from "./chance.ts";
import { leaseModel, plainLeaseModel } from "./lease_walk.ts";
import type { Budget, LeaseMutant } from "./lease_walk_state.ts";
import { walk } from "./walker.ts";
import { compareFutures, randomStates, reachedStates } from "./walker_comparison.ts";

const NOTHING: Budget = { crashes: 0, lateRequests: 0, lostReplies: 0, pauses: 0, releases: 0, terms: 2 };
const THREE: Budget = { ...NOTHING, crashes: 1, lateRequests: 1, lostReplies: 1 };
const STATES_LIMIT = 12_000_000;

const BUDGETS: Budget[] = [
  THREE,
  { ...THREE, releases: 1 },
  { ...NOTHING, crashes: 1, lateRequests: 1, pauses: 1 },
];
if (Deno.env.get("STATE_MANAGER_SIMULATION_WALK") === "all") {
  BUDGETS.push({ ...THREE, pauses: 1 });
  BUDGETS.push({ ...THREE, crashes: 2 });
}

function faultsOf(budget: Budget): string {
  return Object.entries(budget).filter(([, count]) => count > 0).map(([name, count]) => `${name} ${count}`)
    .join(", ");
}

for (const budget of BUDGETS) {
  Deno.test(`lease rules hold in every interleaving of ${faultsOf(budget)}`, () => {
    const { states, moves, depth, found } = walk(leaseModel(budget), STATES_LIMIT);
    say(`${states} states, ${moves} moves, ${depth} deep`);
    assert.equal(found, null, `${found?.violation}\n${found?.path.join("\n")}`);
  });
}

const LOST: Budget = { ...NOTHING, lostReplies: 1 };
const MANY: Budget = { ...THREE, crashes: 2, pauses: 1, releases: 1, terms: 3 };
const SAMPLED = { histories: 600, length: 120 };

const COMPARED = [
  { which: `of all with ${faultsOf(LOST)}`, budget: LOST, states: reachedStates(plainLeaseModel(LOST)) },
  {
    which: `at random with ${faultsOf(THREE)}`,
    budget: THREE,
    states: randomStates(leaseModel(THREE), { chance: new Chance(1), ...SAMPLED }),
  },
  {
    which: `at random with ${faultsOf(MANY)}`,
    budget: MANY,
    states: randomStates(leaseModel(MANY), { chance: new Chance(2), ...SAMPLED }),
  },
];

for (const { which, budget, states } of COMPARED) {
  Deno.test(`lease walk takes states for one only where they have one future, ${which}`, () => {
    const { states: count, groups, differ } = compareFutures(leaseModel(budget), states);
    say(`${count} states in ${groups}`);
    assert.equal(differ, null, differ?.join("\n"));
  });
}

function after(change: (step: Step, before: LeaseMachine) => LeaseMachine): LeaseMutant {
  return {
    step: (shipped) => (settings, state, event, turn) => {
      const stepped = shipped(settings, state, event, turn);
      return { ...stepped, state: change(stepped, state) };
    },
  };
}

const waitsHalfTheTtl: LeaseMutant = {
  step: (shipped) => (settings, state, event, turn) => {
    if (event.type !== "read" || event.found === null) return shipped(settings, state, event, turn);
    const { etag, record } = event.found;
    return shipped(settings, state, {
      type: "read",
      found: { etag, record: { ...record, ttlMs: record.ttlMs / 2 } },
    }, turn);
  },
};

const inheritsEverything: LeaseMutant = {
  step: (shipped) => (settings, state, event, turn) => {
    const nonce = event.type === "read" ? event.found?.record.nonce : undefined;
    if (state.phase !== "contending" || nonce === undefined) return shipped(settings, state, event, turn);
    return shipped(settings, { ...state, inherited: [nonce] }, event, turn);
  },
};

const reusesItsNonce: LeaseMutant = {
  noncesRepeat: true,
  step: (shipped) => (settings, state, event, turn) =>
    shipped(settings, state, event, { ...turn, nonce: `of ${settings.holder}` }),
};

const VARIANTS: readonly { readonly what: string; readonly mutant: LeaseMutant; readonly budget: Budget }[] =
  [
    {
      what: "a contender that waits half a TTL",
      mutant: waitsHalfTheTtl,
      budget: { ...NOTHING, lateRequests: 1 },
    },
    { what: "a store that ignores conditions", mutant: { storeIgnoresConditions: true }, budget: NOTHING },
    {
      what: "a holder that never fences itself, with no guard",
      mutant: {
        ...after(({ state }) => state.phase === "owning" ? { ...state, deadlineMs: Infinity } : state),
      },
      budget: { ...NOTHING, lateRequests: 1 },
    },
    { what: "a contender that inherits every record", mutant: inheritsEverything, budget: NOTHING },
    {
      what: "a holder that reuses its nonce",
      mutant: reusesItsNonce,
      budget: { ...NOTHING, lateRequests: 1 },
    },
    { what: "a guard that kills late", mutant: { guardIsLateTicks: 3 }, budget: { ...NOTHING, pauses: 1 } },
    {
      what: "a fast return that does not wait for the programs",
      mutant: { returnsWithoutProof: true },
      budget: { ...NOTHING, crashes: 1 },
    },
    {
      what: "a thaw before the lease is proven",
      mutant: { thawsBeforeProof: true, guardIsLateTicks: Infinity },
      budget: { ...NOTHING, lateRequests: 1 },
    },
  ];

for (const { what, mutant, budget } of VARIANTS) {
  Deno.test(`lease walk finds the shortest harm of ${what}`, () => {
    const model = leaseModel(budget, mutant);
    const { states, found } = walk(model, STATES_LIMIT);
    assert.notEqual(found, null, `not found in ${states} states: the walk is blind to it`);
    say(`${found?.path.join("\n    ")}\n    => ${found?.violation} (after ${states} states)`);

    const plain = walk(plainLeaseModel(budget, mutant), STATES_LIMIT);
    assert.equal(plain.found?.path.length, found?.path.length, "told all apart, states lead there as soon");
    const random = randomStates(model, { chance: new Chance(1), histories: 100, length: 120 });
    const { differ } = compareFutures(model, random);
    assert.equal(differ, null, differ?.join("\n"));
  });
}
