/**
 * Whole sessions over thousands of simulated histories, with the shipped rules of lease, hand-over, head, procedures and
 * guard; and broken variants of them that the same checks must catch. A failure names its seed: replay it with
 * STATE_MANAGER_SIMULATION_FIRST_SEED=<seed> STATE_MANAGER_SIMULATION_SEEDS=1.
 */

import assert from "node:assert/strict";
import { MINIMA, type Tallied } from "./faults.ts";
import { LATE_LANDINGS, MUTANTS } from "./mutants.ts";
import { runSeeds } from "./seed_ranges.ts";
import { simulate } from "./world.ts";

const SEEDS = Number(Deno.env.get("STATE_MANAGER_SIMULATION_SEEDS") ?? 20_000);
const FIRST_SEED = Number(Deno.env.get("STATE_MANAGER_SIMULATION_FIRST_SEED") ?? 1);
/** What `MINIMA` is written for. */
const MINIMA_SEEDS = 20_000;
/** Fewer say nothing about how often something happens. */
const FEWEST_FOR_MINIMA = 2_000;
Deno.test("sessions keep one writer and every finished checkpoint in every simulated history", async () => {
  const worker = new URL("simulation_worker.ts", import.meta.url);
  const total = await runSeeds(worker, { first: FIRST_SEED, count: SEEDS });
  const names = Object.keys(MINIMA) as Tallied[];
  const lines = names.map((what) => `${String(total.get(what) ?? 0).padStart(9)}  ${what}`);
  await Deno.stdout.write(new TextEncoder().encode(`\n${SEEDS} histories:\n${lines.join("\n")}\n`));
  if (SEEDS < FEWEST_FOR_MINIMA) return;
  const rare = names.filter((what) => (total.get(what) ?? 0) < MINIMA[what] * SEEDS / MINIMA_SEEDS);
  assert.deepEqual(rare, [], "the simulation does not try these hard enough");
});

Deno.test("sessions replay exactly when a seed is run again", () => {
  for (const seed of [1, 2, 3]) assert.deepEqual(simulate(seed), simulate(seed));
});

for (const { what, mutant, caught, seeds, faults } of MUTANTS) {
  Deno.test(`simulation catches ${what}`, () => {
    for (let seed = 1; seed <= seeds; seed++) {
      const { violation } = simulate(seed, { mutant, ...(faults === undefined ? {} : { faults }) });
      if (violation !== null && caught.test(violation)) return;
    }
    assert.fail(`not caught in ${seeds} histories: the checker is blind to it`);
  });
}

Deno.test("sessions also stand the faults that catch the rarest broken variants", () => {
  const storms = new Set(MUTANTS.flatMap(({ faults }) => faults ?? []));
  assert.ok(storms.has(LATE_LANDINGS));
  for (const faults of storms) {
    for (let seed = 1; seed <= Math.min(SEEDS, 500); seed++) {
      const { violation, trace } = simulate(seed, { faults });
      assert.equal(violation, null, `seed ${seed}: ${violation}\n${trace.join("\n")}`);
    }
  }
});
