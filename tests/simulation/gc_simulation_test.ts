/**
 * Garbage collection beside take-overs, over thousands of simulated histories with the shipped rules; and broken variants
 * that the same checks must catch. A failure names its seed: replay it with STATE_MANAGER_SIMULATION_FIRST_SEED=<seed>
 * STATE_MANAGER_SIMULATION_GC_SEEDS=1.
 */

import assert from "node:assert/strict";
import { say } from "../support/say.ts";
import { type GcMutant, simulateGc } from "./gc_world.ts";
import { runSeeds } from "./seed_ranges.ts";

const SEEDS = Number(Deno.env.get("STATE_MANAGER_SIMULATION_GC_SEEDS") ?? 20_000);
const FIRST_SEED = Number(Deno.env.get("STATE_MANAGER_SIMULATION_FIRST_SEED") ?? 1);
const MINIMA_SEEDS = 20_000;
/** Fewer say nothing about how often something happens. */
const FEWEST_FOR_MINIMA = 2_000;

/** How often each must be hit in `MINIMA_SEEDS` histories, at least; a test of fewer expects its share. */
const MINIMA: Readonly<Record<string, number>> = {
  "term": 40_000,
  "checkpoint": 150_000,
  "prune": 100_000,
  "prune that failed": 10_000,
  "repack": 5_000,
  "orphans found": 6_000,
  "upload given up": 1_500,
  "object deleted": 200_000,
  "name released": 40_000,
  "delete of an earlier term": 600,
  "put after its delete": 100,
  "stale listing": 5_000,
  "late landing": 12_000,
  "doubled request": 12_000,
  "lost reply": 12_000,
  "lost request": 10_000,
  "pause": 20_000,
  "crash": 20_000,
  "crash between two requests": 1_000,
};

Deno.test("garbage collection never takes a chunk from a kept checkpoint, and takes all garbage in the end", async () => {
  const worker = new URL("gc_worker.ts", import.meta.url);
  const total = await runSeeds(worker, { first: FIRST_SEED, count: SEEDS });
  const lines = [...total].sort().map(([what, times]) => `${String(times).padStart(9)}  ${what}`);
  say(`${SEEDS} histories:\n${lines.join("\n")}`);
  if (SEEDS < FEWEST_FOR_MINIMA) return;
  const rare = Object.entries(MINIMA).filter(([what, least]) =>
    (total.get(what) ?? 0) < least * SEEDS / MINIMA_SEEDS
  );
  assert.deepEqual(rare, [], "the simulation does not try these hard enough");
});

Deno.test("garbage collections replay exactly when a seed is run again", () => {
  for (const seed of [1, 2, 3]) assert.deepEqual(simulateGc(seed), simulateGc(seed));
});

const LOST = /has lost chunk|names it/;
const LOSS = /has lost chunk|names it|which is not there|is not there/;

const MUTANTS: readonly { readonly what: string; readonly mutant: GcMutant; readonly caught: RegExp }[] = [
  { what: "checkpoints that refer to doomed packs (rule A)", mutant: { refersToDoomed: true }, caught: LOST },
  {
    what: "deletes that no committed head names (rule B)",
    mutant: { deletesUncommitted: true },
    caught: LOSS,
  },
  {
    what: "a collection beside a checkpoint of the same process (rule C)",
    mutant: { collectsBesideCheckpoint: true },
    caught: LOSS,
  },
  { what: "names that come off the list of the doomed", mutant: { undooms: true }, caught: LOST },
  { what: "pack names that are used again", mutant: { namesByContent: true }, caught: LOSS },
  { what: "reads that failed and count as empty", mutant: { ignoresFailedReads: true }, caught: LOSS },
  { what: "marking of the newest checkpoint alone", mutant: { marksNewestOnly: true }, caught: LOSS },
  { what: "manifests that do not count as needed", mutant: { forgetsManifests: true }, caught: LOST },
  {
    what: "manifests of forgotten checkpoints that count as needed",
    mutant: { keepsManifests: true },
    caught: /kept for ever/,
  },
  {
    what: "heads that name packs before the store has them",
    mutant: { commitsBeforePuts: true },
    caught: LOSS,
  },
  {
    what: "a store that ignores conditions",
    mutant: { putsUnconditionally: true },
    caught: /a head of term|has lost|is not there|names it/,
  },
];
const MUTANT_SEEDS = 2_000;

for (const { what, mutant, caught } of MUTANTS) {
  Deno.test(`garbage simulation catches ${what}`, () => {
    for (let seed = 1; seed <= MUTANT_SEEDS; seed++) {
      const { violation } = simulateGc(seed, { mutant });
      if (violation !== null && caught.test(violation)) {
        say(`seed ${seed}: ${violation}`);
        return;
      }
    }
    assert.fail(`not caught in ${MUTANT_SEEDS} histories: the checker is blind to it`);
  });
}
