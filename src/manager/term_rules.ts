/**
 * Walks a term's procedures, pure: (state, event) → state and effects. One effect at a time; what comes next is asked
 * only when all before it is known. Shipped (term.ts) and simulated alike.
 */

import { TAKE_OVER_ATTEMPTS } from "../checkpoint/mod.ts";
import { assert } from "../platform/assert.ts";
import { CHECKPOINT, settled, settledPoints, uploaded } from "./checkpoint_rules.ts";
import { changeMarker, EMPTY_MARKER } from "./lineage.ts";
import { composed, RECOVER, restore } from "./restore_rules.ts";
import {
  afterRoll,
  begunPoints,
  begunRestore,
  claims,
  leftovers,
  OPEN,
  ownership,
  PREPARE,
  REPAIR,
  roots,
} from "./start_rules.ts";
import type {
  Answer,
  Procedure,
  Question,
  TermEvent,
  TermFacts,
  TermMachine,
  TermOutcome,
  TermStep,
  TermTurn,
} from "./term_machine.ts";

const ANSWERS: Readonly<Record<Question, (facts: TermFacts) => Answer>> = {
  "rolled": afterRoll,
  claims,
  "begun-restore": begunRestore,
  "begun-points": begunPoints,
  leftovers,
  roots,
  ownership,
  settled,
  "settled-points": settledPoints,
  uploaded,
  composed,
};

/** Nothing known yet: what a repair needs, and what the caller spreads the rest over. */
export const NO_FACTS: TermFacts = {
  repoId: "",
  token: 0,
  roots: [],
  settings: { onConflict: "refuse", onStart: "latest", orphans: "stop" },
  marker: EMPTY_MARKER,
  head: null,
  previous: null,
  empty: [],
  decisions: {},
  attempts: 0,
  rolled: null,
  made: null,
  wanted: null,
  composed: null,
  lost: [],
};

export function initialTerm(procedure: Procedure, facts: TermFacts): TermMachine {
  return { procedure, facts, doing: null, todo: stepsOf(procedure, facts) };
}

function stepsOf(procedure: Procedure, facts: TermFacts): readonly TermStep[] {
  switch (procedure) {
    case "repair":
      return REPAIR;
    case "open":
      return OPEN;
    case "prepare":
      return PREPARE;
    case "checkpoint":
      return CHECKPOINT;
    case "restore":
      assert(facts.wanted !== null, "a restore knows what it brings back");
      return restore(facts.wanted);
    case "recover":
      return RECOVER;
  }
}

/** `begin` first, then one `done` or `failed` for each effect. After `ended` nothing follows. */
export function stepTerm(state: TermMachine, event: TermEvent): TermTurn {
  switch (event.type) {
    case "begin":
      assert(state.doing === null, "a procedure begins once");
      return next(state);
    case "done": {
      const { doing, facts } = state;
      assert(doing !== null, "a step that is done was asked for");
      const learned = { ...facts, ...event.learned };
      const after = doing.type === "write-marker"
        ? { ...learned, marker: changeMarker(facts.marker, doing.change) }
        : learned;
      return next({ ...state, facts: after });
    }
    case "failed":
      return failed(state, event);
  }
}

/** The next effect; the questions before it are answered on the way. */
function next(state: TermMachine): TermTurn {
  const [step, ...todo] = state.todo;
  if (step === undefined) return end(state, { kind: "done" });
  if (step.type !== "decide") return { state: { ...state, doing: step, todo }, effects: [step] };
  const { facts, steps, refusal } = ANSWERS[step.question](state.facts);
  if (refusal !== undefined) return end({ ...state, facts }, { kind: "refused", refusal });
  return next({ ...state, facts, todo: [...steps, ...todo] });
}

function failed(state: TermMachine, { code }: Extract<TermEvent, { type: "failed" }>): TermTurn {
  const { doing, facts } = state;
  // The former holder swapped between our read and our swap: its work counts, and the claims are made anew.
  const again = doing?.type === "take-over-head" && code === "precondition-failed" &&
    facts.attempts < TAKE_OVER_ATTEMPTS;
  if (again) return next({ ...state, doing: null, todo: OPEN });
  return end(state, { kind: "failed", code });
}

function end(state: TermMachine, outcome: TermOutcome): TermTurn {
  return { state: { ...state, doing: null, todo: [] }, effects: [{ type: "ended", outcome }] };
}
