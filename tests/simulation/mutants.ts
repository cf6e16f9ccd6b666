/** Broken variants of the rules and of what carries them out. The checks must catch each, for the reason named. */

import type { LeaseMachine, Step } from "../../src/lease/machine.ts";
import type { TermEffect, TermStep } from "../../src/manager/term_machine.ts";
import type { stepTerm } from "../../src/manager/term_rules.ts";
import { FAULTS, type Faults } from "./faults.ts";
import type { Mutant } from "./mutant.ts";

export interface MutantCase {
  /** "a holder that …", "a head that …" */
  readonly what: string;
  readonly mutant: Mutant;
  /** What the violation must say. */
  readonly caught: RegExp;
  /** In so many histories at most. */
  readonly seeds: number;
  readonly faults?: Faults;
}

const TOGETHER = /run at once/;

/** Changes the state that the shipped rules of the lease return. */
function after(change: (step: Step, before: LeaseMachine, nowMs: number) => LeaseMachine): Mutant {
  return {
    lease: (shipped) => (settings, state, event, turn) => {
      const stepped = shipped(settings, state, event, turn);
      return { ...stepped, state: change(stepped, state, turn.nowMs) };
    },
  };
}

const trustsWallClock: Mutant = {
  lease: (shipped, local) => (settings, state, event, turn) => {
    const stepped = shipped(settings, state, event, turn);
    const next = stepped.state;
    if (next.phase !== "contending" || next.seen === null) return stepped;
    const record = next.seen.found?.record;
    if (record?.state !== "held") return stepped;
    const expiresInMs = local.writtenWallMs(record.nonce) + record.ttlMs - local.wallMs;
    return { ...stepped, state: { ...next, seen: { ...next.seen, readyMs: turn.nowMs + expiresInMs } } };
  },
};

const waitsHalfTheTtl: Mutant = {
  lease: (shipped) => (settings, state, event, turn) => {
    if (event.type !== "read" || event.found === null) return shipped(settings, state, event, turn);
    const { etag, record } = event.found;
    const found = { etag, record: { ...record, ttlMs: record.ttlMs / 2 } };
    return shipped(settings, state, { type: "read", found }, turn);
  },
};

/** The guard is told the wrong deadline, too. */
const deadlineFromLastResend = after(({ state, effects }, before, nowMs) => {
  const resent = before.phase !== "resting" && before.attempt !== null &&
    effects.some((effect) => effect.type === "put" && effect.record.nonce === before.attempt?.record.nonce);
  if (!resent || state.phase === "resting" || state.attempt === null) return state;
  return { ...state, attempt: { ...state.attempt, firstSentMs: nowMs } };
});

const neverFencesItself: Mutant = {
  ...after(({ state }) => state.phase === "owning" ? { ...state, deadlineMs: Infinity } : state),
  guardIgnoresDeadline: true,
};

const reusesItsNonce: Mutant = {
  lease: (shipped) => (settings, state, event, turn) =>
    shipped(settings, state, event, { ...turn, nonce: settings.holder }),
};

/** Claims whatever is held, as if every record were a dead predecessor's. */
const inheritsEverything: Mutant = {
  lease: (shipped) => (settings, state, event, turn) => {
    if (state.phase !== "contending" || event.type !== "read" || event.found === null) {
      return shipped(settings, state, event, turn);
    }
    return shipped(settings, { ...state, inherited: [event.found.record.nonce] }, event, turn);
  },
};

/** A released lease is taken under the token that it had. */
const keepsItsToken: Mutant = {
  lease: (shipped) => (settings, state, event, turn) => {
    const stepped = shipped(settings, state, event, turn);
    return {
      ...stepped,
      effects: stepped.effects.map((effect) =>
        effect.type === "put" && effect.base?.record.state === "released"
          ? { ...effect, record: { ...effect.record, token: effect.base.record.token } }
          : effect
      ),
    };
  },
};

// ---- the head

const takesOverWithoutEpoch: Mutant = {
  head: (shipped) => (state, event) => {
    const stepped = shipped(state, event);
    return {
      ...stepped,
      effects: stepped.effects.map((effect) =>
        effect.type === "put" && stepped.state.standing === "outside" && state.base !== null
          ? { ...effect, head: { ...effect.head, epoch: state.base.head.epoch } }
          : effect
      ),
    };
  },
};

/** Believes that a put whose answer was lost did not happen, and that what is there is what it knew. */
const forgetsUnsettled: Mutant = {
  head: (shipped) => (state, event) => {
    if (event.type === "settle" && state.standing === "ours") {
      return { state, effects: [{ type: "settled", outcome: { kind: "done" } }] };
    }
    return shipped(state, event);
  },
};

/** A put whose answer was lost counts as done. */
const takesUnknownForDone: Mutant = {
  head: (shipped) => (state, event) => {
    const next = state.work?.next;
    if (event.type !== "unknown" || next === null || next === undefined) return shipped(state, event);
    return shipped(state, {
      type: "written",
      etag: `${next.epoch}.${next.seq}.${next.nonce}.${next.current}`,
    });
  },
};

/** Puts on whatever is there without a look at the lease: another one's version is just a newer base. */
const followsAnyVersion: Mutant = {
  head: (shipped) => (state, event) => {
    const found = event.type === "read" && state.standing === "ours" ? event.found : null;
    const stepped = shipped(found === null ? state : { ...state, base: found }, event);
    return stepped.effects.some(({ type }) => type === "prove")
      ? shipped(stepped.state, { type: "proven" })
      : stepped;
  },
};

// ---- procedures

/** Leaves steps out, as if they were done. */
function without(isLeftOut: (step: TermStep) => boolean): Mutant {
  return {
    term: (shipped) => (state, event) => {
      let turned = shipped(state, event);
      for (let effect = turned.effects[0]; effect !== undefined; effect = turned.effects[0]) {
        if (effect.type === "ended" || !isLeftOut(effect)) return turned;
        const learned = effect.type === "settle-head" ? { head: turned.state.facts.head } : {};
        turned = shipped(turned.state, { type: "done", learned });
      }
      return turned;
    },
  };
}

const isMarker = (step: TermStep, kind: string) => step.type === "write-marker" && step.change.kind === kind;

const isSwapFiles = (step: TermStep) => step.type === "swap-files";
const isIntent = (kind: string) => (step: TermStep) => step.type === "swap-head" && step.change.kind === kind;

/** Runs the marker's change right before the swap that it describes. */
const marksBeforeSwap: Mutant = {
  term: (shipped) => reordered(shipped, (step) => isMarker(step, "content"), isSwapFiles),
};

/** The intent is written after the files were exchanged. */
const swapsBeforeIntent: Mutant = {
  term: (shipped) => reordered(shipped, isSwapFiles, isIntent("set-intent")),
};

/** Reorders what a decision has just put onto the list, too: the effect at hand goes back behind `isIt`. */
function reordered(
  shipped: typeof stepTerm,
  isIt: (step: TermStep) => boolean,
  isBefore: (step: TermStep) => boolean,
): typeof stepTerm {
  return (state, event) => {
    const turned = shipped(state, event);
    const [effect] = turned.effects;
    if (effect === undefined || effect.type === "ended" || !isBefore(effect)) return turned;
    const at = turned.state.todo.findIndex(isIt);
    const step = turned.state.todo[at];
    if (step === undefined || step.type === "decide") return turned;
    const todo: TermStep[] = [effect, ...turned.state.todo.slice(0, at), ...turned.state.todo.slice(at + 1)];
    const doing: TermEffect = step;
    return { state: { ...turned.state, doing, todo }, effects: [doing] };
  };
}

const overwritesStale = without((step) => step.type === "move-aside");
const leavesIntent: Mutant = {
  term: (shipped) => {
    const skipping = without(isIntent("finish-intent")).term?.(shipped) ?? shipped;
    return (state, event) => (state.procedure === "prepare" ? skipping : shipped)(state, event);
  },
};
const skipsPending = without((step) => isMarker(step, "pending"));
const skipsClaim = without((step) => isMarker(step, "claim"));
const skipsRoll = without((step) => step.type === "roll-swap");
const settlesNothing = without((step) => step.type === "settle-head");

/** A restore makes the old record current again instead of a new one. */
const rewinds: Mutant = {
  term: (shipped) => (state, event) => {
    const turned = shipped(state, event);
    const [effect] = turned.effects;
    if (effect?.type !== "swap-head" || effect.change.kind !== "set-intent") return turned;
    const { source } = turned.state.facts.wanted ?? {};
    const head = turned.state.facts.head;
    if (source === undefined || head === null) return turned;
    const change = { kind: "current", record: source, indexes: head.indexes } as const;
    const doing: TermEffect = { type: "swap-head", change };
    return { state: { ...turned.state, doing }, effects: [doing] };
  },
};

/** Keeps local data though somebody else held the lease since. */
const keepsStale: Mutant = {
  term: (shipped) => (state, event) => {
    const { previous, marker } = state.facts;
    const item = marker.files["data"];
    if (
      state.procedure !== "prepare" || previous === null || item === undefined || item.checkpoint === null
    ) {
      return shipped(state, event);
    }
    const asOurs = { ...previous, epoch: item.token, current: item.checkpoint, intent: null };
    return shipped({ ...state, facts: { ...state.facts, previous: asOurs } }, event);
  },
};

/** Writes that land after a pause of their sender: what a deadline counted from a resend stumbles over. */
const LATE_LANDINGS: Faults = {
  ...FAULTS,
  lateLanding: 0.5,
  lostRequest: 0.2,
  pauseManagerPerSecond: 0.05,
  longestPauseMs: 12_000,
  crashPerSecond: 0,
  crashAtEffect: 0,
  doubled: 0,
  unavailable: 0,
};

/** Managers and machines that stop for long. */
const PAUSES: Faults = { ...FAULTS, pauseManagerPerSecond: 0.03, crashPerSecond: 0.002 };
/** Answers of the store that say nothing. */
const SILENCE: Faults = { ...FAULTS, lostReply: 0.15, lateLanding: 0.1, restorePerSecond: 0.06 };
/** Death at each step of restores. */
const DEATHS: Faults = { ...FAULTS, crashAtEffect: 0.06, restorePerSecond: 0.08 };
const TWO_COPIES: Faults = { ...FAULTS, machineLost: 0.2, cloned: 0.4, crashPerSecond: 0.02 };

export { LATE_LANDINGS };

export const MUTANTS: readonly MutantCase[] = [
  { what: "a contender that trusts the wall clock", mutant: trustsWallClock, caught: TOGETHER, seeds: 100 },
  { what: "a contender that waits half a TTL", mutant: waitsHalfTheTtl, caught: TOGETHER, seeds: 200 },
  {
    what: "a store that ignores conditions",
    mutant: { storeIgnoresConditions: true },
    caught: /token|term|follows/,
    seeds: 50,
  },
  { what: "a holder that never fences itself", mutant: neverFencesItself, caught: TOGETHER, seeds: 200 },
  {
    what: "a holder that counts from its last resend",
    mutant: deadlineFromLastResend,
    caught: TOGETHER,
    seeds: 10_000,
    faults: LATE_LANDINGS,
  },
  { what: "a holder that reuses its nonce", mutant: reusesItsNonce, caught: /run at once|token/, seeds: 200 },
  { what: "a contender that inherits every record", mutant: inheritsEverything, caught: TOGETHER, seeds: 50 },
  { what: "a new term that keeps the token", mutant: keepsItsToken, caught: /token/, seeds: 50 },
  {
    what: "a fast return that does not wait for the programs",
    mutant: { returnsWithoutProof: true },
    caught: /still runs/,
    seeds: 200,
  },
  {
    what: "a fast return on a copy of the folder elsewhere",
    mutant: { inheritsElsewhere: true },
    caught: TOGETHER,
    seeds: 500,
    faults: TWO_COPIES,
  },
  {
    what: "a hand-over while the program runs",
    mutant: { handsOverWhileRunning: true },
    caught: TOGETHER,
    seeds: 200,
  },
  {
    what: "a guard that ignores its deadline",
    mutant: { guardIgnoresDeadline: true },
    caught: TOGETHER,
    seeds: 200,
    faults: PAUSES,
  },
  {
    what: "a guard that kills late",
    mutant: { guardLateMs: 4_000 },
    caught: TOGETHER,
    seeds: 500,
    faults: PAUSES,
  },
  {
    what: "a guard that outlives its manager's death idly",
    mutant: { guardIgnoresDeath: true },
    caught: TOGETHER,
    seeds: 5_000,
  },
  {
    what: "a thaw before the lease is proven",
    mutant: { thawsBeforeProof: true },
    caught: TOGETHER,
    seeds: 1_000,
    faults: PAUSES,
  },
  {
    what: "a take-over that does not raise the epoch",
    mutant: takesOverWithoutEpoch,
    caught: /the head is at/,
    seeds: 50,
  },
  {
    what: "a head that takes an unknown put for done",
    mutant: takesUnknownForDone,
    caught: /finished checkpoint/,
    seeds: 5_000,
    faults: SILENCE,
  },
  {
    what: "a head that follows any version",
    mutant: followsAnyVersion,
    caught: /a put of term/,
    seeds: 20_000,
    faults: PAUSES,
  },
  {
    what: "a head that settles nothing",
    mutant: forgetsUnsettled,
    caught: /waits to be finished/,
    seeds: 5_000,
    faults: SILENCE,
  },
  {
    what: "procedures that do not settle",
    mutant: settlesNothing,
    caught: /waits to be finished/,
    seeds: 5_000,
    faults: SILENCE,
  },
  {
    what: "a checkpoint named before its packs are there",
    mutant: { namesBeforeUpload: "pack" },
    caught: /packs/,
    seeds: 20,
  },
  {
    what: "a checkpoint named before its root is there",
    mutant: { namesBeforeUpload: "root" },
    caught: /root object/,
    seeds: 20,
  },
  {
    what: "a checkpoint without the pending marker",
    mutant: skipsPending,
    caught: /moves .* aside/,
    seeds: 5_000,
    faults: DEATHS,
  },
  {
    what: "a take-over without the claim marker",
    mutant: skipsClaim,
    caught: /moves .* aside/,
    seeds: 5_000,
    faults: DEATHS,
  },
  {
    what: "a restore that swaps before its intent",
    mutant: swapsBeforeIntent,
    caught: /starts on|overwrites|marker says/,
    seeds: 20_000,
    faults: DEATHS,
  },
  {
    what: "a restore that marks before it swaps",
    mutant: marksBeforeSwap,
    caught: /marker says/,
    seeds: 200,
  },
  { what: "a restore that rewinds", mutant: rewinds, caught: /current state went/, seeds: 200 },
  {
    what: "a start that leaves a begun restore",
    mutant: leavesIntent,
    caught: /waits to be finished/,
    seeds: 2_000,
    faults: DEATHS,
  },
  {
    what: "a start that does not roll a swap forward",
    mutant: skipsRoll,
    caught: /middle of a swap/,
    seeds: 2_000,
    faults: DEATHS,
  },
  {
    what: "a start that overwrites stale data",
    mutant: overwritesStale,
    caught: /saved nowhere/,
    seeds: 200,
  },
  {
    what: "a start that keeps stale data",
    mutant: keepsStale,
    caught: /starts on|current state went/,
    seeds: 200,
  },
];
