/**
 * The lease with its programs, the guard and the fast return, walked breadth first through every interleaving of a small
 * model (lease_walk.ts), and the shortest way to harm of each broken variant. The walk with a crash, a late request and a
 * lost reply in one history has millions of states: STATE_MANAGER_SIMULATION_WALK=all adds it to those with two of them.
 */

import assert from "node:assert/strict";
import type { LeaseMachine, Step } from "../../src/lease/machine.ts";
import { type Budget, leaseModel, type LeaseMutant } from "./lease_walk.ts";
import { walk } from "./walker.ts";

const NOTHING: Budget = { crashes: 0, lateRequests: 0, lostReplies: 0, pauses: 0, releases: 0, terms: 2 };
const STATES_LIMIT = 12_000_000;

const BUDGETS: Budget[] = [
  { ...NOTHING, crashes: 1, lostReplies: 1 },
  { ...NOTHING, lateRequests: 1, lostReplies: 1 },
  { ...NOTHING, crashes: 1, releases: 1 },
];
if (Deno.env.get("STATE_MANAGER_SIMULATION_WALK") === "all") {
  BUDGETS.push({ ...NOTHING, crashes: 1, lateRequests: 1 });
  BUDGETS.push({ ...NOTHING, crashes: 1, lateRequests: 1, lostReplies: 1 });
}

function faultsOf(budget: Budget): string {
  return Object.entries(budget).filter(([, count]) => count > 0).map(([name, count]) => `${name} ${count}`)
    .join(", ");
}

async function print(text: string): Promise<void> {
  await Deno.stdout.write(new TextEncoder().encode(`\n${text}\n`));
}

for (const budget of BUDGETS) {
  Deno.test(`lease rules hold in every interleaving of ${faultsOf(budget)}`, async () => {
    const { states, moves, depth, found } = walk(leaseModel(budget), STATES_LIMIT);
    await print(`${states} states, ${moves} moves, ${depth} deep`);
    assert.equal(found, null, `${found?.violation}\n${found?.path.join("\n")}`);
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
      mutant: { thawsBeforeProof: true, guardIsLateTicks: 1_000 },
      budget: { ...NOTHING, lateRequests: 1 },
    },
  ];

for (const { what, mutant, budget } of VARIANTS) {
  Deno.test(`lease walk finds the shortest harm of ${what}`, async () => {
    const { states, found } = walk(leaseModel(budget, mutant), STATES_LIMIT);
    assert.notEqual(found, null, `not found in ${states} states: the walk is blind to it`);
    await print(`${found?.path.join("\n")}\n=> ${found?.violation} (after ${states} states)`);
  });
}
