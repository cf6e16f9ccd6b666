/** The lease's rules over thousands of simulated histories, and mutants of them that the same checks must catch. */

import assert from "node:assert/strict";
import type { LeaseMachine, Step } from "../../src/lease/machine.ts";
import { FAULTS, type Faults, type Mutant, simulate } from "./lease_world.ts";

const SEEDS = Number(Deno.env.get("STATE_MANAGER_SIMULATION_SEEDS") ?? 2_000);
const FIRST_SEED = Number(
  Deno.env.get("STATE_MANAGER_SIMULATION_FIRST_SEED") ?? 1,
);

Deno.test("lease rules keep one holder and tokens in step in every simulated history", () => {
  let terms = 0;
  for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
    const outcome = simulate(seed);
    assert.equal(outcome.violation, null, `seed ${seed}: ${outcome.violation}`);
    terms += outcome.terms;
  }
  assert.ok(
    terms > SEEDS,
    `only ${terms} terms in ${SEEDS} histories: the simulation does not try hard enough`,
  );
});

/** Changes the state that the shipped rules return. */
function after(
  change: (step: Step, before: LeaseMachine, nowMs: number) => LeaseMachine,
): Mutant {
  return {
    rules: (rules) => (settings, state, event, turn) => {
      const stepped = rules(settings, state, event, turn);
      return { ...stepped, state: change(stepped, state, turn.nowMs) };
    },
  };
}

const trustsWallClock: Mutant = {
  rules: (rules, local) => (settings, state, event, turn) => {
    const stepped = rules(settings, state, event, turn);
    const next = stepped.state;
    if (next.phase !== "contending" || next.seen === null) return stepped;
    const record = next.seen.found?.record;
    if (record?.state !== "held") return stepped;
    const expiresInMs = local.writtenWallMs(record.nonce) + record.ttlMs -
      local.wallMs;
    return {
      ...stepped,
      state: {
        ...next,
        seen: { ...next.seen, readyMs: turn.nowMs + expiresInMs },
      },
    };
  },
};

const waitsHalfTheTtl: Mutant = {
  rules: (rules) => (settings, state, event, turn) => {
    if (event.type !== "read" || event.found === null) {
      return rules(settings, state, event, turn);
    }
    const { etag, record } = event.found;
    const found = { etag, record: { ...record, ttlMs: record.ttlMs / 2 } };
    return rules(settings, state, { type: "read", found }, turn);
  },
};

const deadlineFromLastResend = after(({ state, effects }, before, nowMs) => {
  const resent = before.phase !== "resting" && before.attempt !== null &&
    effects.some((effect) =>
      effect.type === "put" &&
      effect.record.nonce === before.attempt?.record.nonce
    );
  if (!resent || state.phase === "resting" || state.attempt === null) {
    return state;
  }
  return { ...state, attempt: { ...state.attempt, firstSentMs: nowMs } };
});

const neverFencesItself = after(({ state }) =>
  state.phase === "owning" ? { ...state, deadlineMs: Infinity } : state
);

const reusesItsNonce: Mutant = {
  rules: (rules) => (settings, state, event, turn) =>
    rules(settings, state, event, { ...turn, nonce: settings.holder }),
};

/** Writes that land after a pause of their sender: what a deadline counted from a resend stumbles over. */
const LATE_LANDINGS: Faults = {
  ...FAULTS,
  lateLanding: 0.5,
  lostRequest: 0.2,
  pausePerSecond: 0.05,
  longestPauseMs: 12_000,
  crashPerSecond: 0,
  doubled: 0,
  refusedForNow: 0,
};

const MUTANTS: readonly {
  what: string;
  mutant: Mutant;
  seeds: number;
  faults?: Faults;
}[] = [
  { what: "trusts the wall clock", mutant: trustsWallClock, seeds: 50 },
  { what: "waits half a TTL", mutant: waitsHalfTheTtl, seeds: 50 },
  {
    what: "puts without condition",
    mutant: { storeIgnoresConditions: true },
    seeds: 500,
  },
  {
    what: "counts from the last resend",
    mutant: deadlineFromLastResend,
    seeds: 5_000,
    faults: LATE_LANDINGS,
  },
  { what: "never fences itself", mutant: neverFencesItself, seeds: 50 },
  { what: "reuses its nonce", mutant: reusesItsNonce, seeds: 50 },
];

for (const { what, mutant, seeds, faults } of MUTANTS) {
  Deno.test(`lease simulation catches a holder that ${what}`, () => {
    for (let seed = 1; seed <= seeds; seed++) {
      if (/together|token/.test(simulate(seed, faults, mutant).violation ?? "")) return;
    }
    assert.fail(`not caught in ${seeds} histories: the checker is blind to it`);
  });
}

Deno.test("lease rules also stand the faults that catch the last-resend mutant", () => {
  for (let seed = 1; seed <= Math.min(SEEDS, 500); seed++) {
    const { violation } = simulate(seed, LATE_LANDINGS);
    assert.equal(violation, null, `seed ${seed}: ${violation}`);
  }
});
