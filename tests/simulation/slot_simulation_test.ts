/**
 * The slot fence, compaction and retention over thousands of simulated histories, and broken variants that the same
 * checks must catch. A failure names its seed: replay it with STATE_MANAGER_SIMULATION_FIRST_SEED=<seed>
 * STATE_MANAGER_SIMULATION_SLOT_SEEDS=1.
 */

import assert from "node:assert/strict";
import { say } from "../support/say.ts";
import { simulateSlots, type SlotMutant } from "./slot_world.ts";

const SEEDS = Number(Deno.env.get("STATE_MANAGER_SIMULATION_SLOT_SEEDS") ?? 2_000);
const FIRST_SEED = Number(Deno.env.get("STATE_MANAGER_SIMULATION_FIRST_SEED") ?? 1);

Deno.test("slots hold one chain of commits in every simulated history", () => {
  const total: Record<string, number> = {};
  for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
    const { violation, trace, tally } = simulateSlots(seed);
    assert.equal(violation, null, `seed ${seed}: ${violation}\n${trace.join("\n")}`);
    for (const [what, times] of Object.entries(tally)) total[what] = (total[what] ?? 0) + times;
  }
  say(`${SEEDS} histories: ${Object.entries(total).map(([what, times]) => `${times} × ${what}`).join(", ")}`);
});

Deno.test("slot histories replay exactly when a seed is run again", () => {
  for (const seed of [1, 2, 3]) assert.deepEqual(simulateSlots(seed), simulateSlots(seed));
});

const MUTANTS: readonly { readonly what: string; readonly mutant: SlotMutant; readonly caught: RegExp }[] = [
  {
    what: "refusals believed without reading back",
    mutant: { believesRefusals: true },
    caught: /called durable/,
  },
  { what: "lost replies taken for success", mutant: { believesSilence: true }, caught: /called durable/ },
  { what: "unconditional puts", mutant: { putsUnconditionally: true }, caught: /written (again|twice)/ },
  { what: "programs that start before the seal", mutant: { startsUnsealed: true }, caught: /not the newest/ },
  { what: "a resend with other bytes", mutant: { resendsOtherBytes: true }, caught: /called durable/ },
  { what: "retention that ignores pins", mutant: { ignoresPins: true }, caught: /finds no way/ },
  {
    what: "an absorbed commit that is not restored",
    mutant: { skipsAbsorbed: true },
    caught: /made on another/,
  },
  {
    what: "local files counted as uploaded by number",
    mutant: { countsByTxid: true },
    caught: /made on another|another is in/,
  },
  { what: "a base with a larger token", mutant: { ignoresBaseToken: true }, caught: /has token/ },
  {
    what: "slots that are emptied at once",
    mutant: { emptiesSlotsAtOnce: true },
    caught: /written (again|twice)/,
  },
  { what: "merges that lose a commit", mutant: { mergesWithoutLast: true }, caught: /sees another commit/ },
];
const MUTANT_SEEDS = 2_000;

for (const { what, mutant, caught } of MUTANTS) {
  Deno.test(`slot simulation catches ${what}`, () => {
    for (let seed = 1; seed <= MUTANT_SEEDS; seed++) {
      const { violation } = simulateSlots(seed, { mutant });
      if (violation !== null && caught.test(violation)) return;
    }
    assert.fail(`not caught in ${MUTANT_SEEDS} histories: the checker is blind to it`);
  });
}
