/**
 * Executes what term_rules.ts decides: one effect at a time, by the step that the caller gives for it. The order of
 * durable steps is the rules', never the caller's.
 */

import { assert } from "../platform/assert.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import type { Learned, Procedure, TermEffect, TermEvent, TermFacts } from "./term_machine.ts";
import { initialTerm, stepTerm } from "./term_rules.ts";

/** How each kind of effect is carried out; what is left out cannot come up in the procedure. Rejects when it failed. */
export type TermSteps = {
  readonly [T in TermEffect["type"]]?: (effect: Extract<TermEffect, { type: T }>) => Promise<Learned | void>;
};

/** Runs one procedure to its end and gives what is known then. Rejects with the error of the step that failed. */
export async function runTerm(
  procedure: Procedure,
  facts: TermFacts,
  steps: TermSteps,
  onFacts: (facts: TermFacts) => void = () => {},
): Promise<TermFacts> {
  let machine = initialTerm(procedure, facts);
  let event: TermEvent = { type: "begin" };
  let failure: unknown = null;
  while (true) {
    const { state, effects } = stepTerm(machine, event);
    machine = state;
    onFacts(state.facts);
    const [effect] = effects;
    assert(effect !== undefined && effects.length === 1, "a turn of a procedure has one effect");
    if (effect.type === "ended") {
      const { outcome } = effect;
      if (outcome.kind === "done") return state.facts;
      if (outcome.kind === "failed") throw failure;
      const { code, message, hint, details } = outcome.refusal;
      throw new StateManagerError(code, message, { details, ...(hint === undefined ? {} : { hint }) });
    }
    try {
      event = { type: "done", learned: await perform(steps, effect) ?? {} };
    } catch (error) {
      failure = error;
      event = { type: "failed", code: asStateManagerError(error).code };
    }
  }
}

async function perform(steps: TermSteps, effect: TermEffect): Promise<Learned | void> {
  // The map's key and the effect's type are the same by its type; the checker cannot follow that through a union.
  const step = steps[effect.type] as ((effect: TermEffect) => Promise<Learned | void>) | undefined;
  assert(step !== undefined, `there is a step for ${effect.type}`);
  return await step(effect);
}
