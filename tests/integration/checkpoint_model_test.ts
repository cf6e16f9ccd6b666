/**
 * Random histories of a repository against a model: whatever happened, each kept checkpoint is what the tree was then, and
 * each damaged object is named. More of it: STATE_MANAGER_MODEL_RUNS=200. A failure prints seed and path: replay it with
 * STATE_MANAGER_MODEL_SEED=<seed> STATE_MANAGER_MODEL_PATH=<path>, and make it smaller with STATE_MANAGER_MODEL_SHRINK=1.
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import type { KeepRules } from "../../src/checkpoint/keep_rules.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { parseEncryptionKey } from "../../src/checkpoint/encryption_key.ts";
import { EDITS } from "../support/model_edits.ts";
import { type Harm, ModelScene, type Step } from "../support/model_scene.ts";
import type { Death } from "../support/mortal_store.ts";
import { say } from "../support/say.ts";

const RUNS = Number(Deno.env.get("STATE_MANAGER_MODEL_RUNS") ?? 3);
const SEED = Number(Deno.env.get("STATE_MANAGER_MODEL_SEED") ?? Date.now() % 1_000_000);
const PATH = Deno.env.get("STATE_MANAGER_MODEL_PATH");
const SHRINKS = Deno.env.get("STATE_MANAGER_MODEL_SHRINK") === "1";
/** Requests of the longest step; a step that needs fewer is not cut off. */
const LONGEST_STEP = 24;

isRoot(); // loads libc once, which older runtimes count as a leak of the test that does it

const death: fc.Arbitrary<Death | null> = fc.option(
  fc.record({ after: fc.nat({ max: LONGEST_STEP }), done: fc.boolean() }),
  { freq: 2 },
);
const some = fc.nat({ max: 3 });
const keep: fc.Arbitrary<KeepRules> = fc.record({
  last: fc.integer({ min: 1, max: 4 }),
  hourly: some,
  daily: some,
  weekly: some,
  monthly: some,
  withinMs: fc.constantFrom(0, 0, 3_600_000 * 30),
  labels: fc.constant([]),
});
const edits = fc.array(
  fc.record({
    kind: fc.constantFrom(...EDITS),
    which: fc.nat({ max: 10_000 }),
    where: fc.nat({ max: 10_000 }),
    size: fc.oneof(fc.nat({ max: 3000 }), fc.nat({ max: 300_000 })),
  }),
  { minLength: 1, maxLength: 6 },
);
const number = fc.nat({ max: 10_000 });
const level = fc.constantFrom(1, 2, 3, 4);
const checkpoint: fc.Arbitrary<Step> = fc.record({
  do: fc.constant("checkpoint"),
  pinned: fc.nat({ max: 7 }).map((chance) => chance === 0),
  death,
  moved: fc.boolean(),
});
const others: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant("prune"), keep, death, moved: fc.boolean() }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("pass"), hours: fc.constantFrom(1, 5, 26, 24 * 8, 24 * 32) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("verify"), level }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restore"), which: number, death }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("restore-path"), which: number, path: number }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("put-back"), which: number, path: number, death }) },
);
/** Edits come before most checkpoints, else they would all be one. */
const rounds = fc.array(
  fc.tuple(
    fc.option(fc.record({ do: fc.constant("edit" as const), edits }), { freq: 6 }),
    checkpoint,
    fc.array(others, { maxLength: 3 }),
  ).map(([edit, made, after]): Step[] => [...(edit === null ? [] : [edit]), made, ...after]),
  { minLength: 3, maxLength: 7, size: "max" },
);
const harms: fc.Arbitrary<Harm[]> = fc.array(
  fc.record({
    which: number,
    damage: fc.constantFrom("deleted", "truncated", "flipped"),
    at: fc.nat({ max: 2 ** 30 - 1 }),
    level,
  }),
  { minLength: 8, maxLength: 8, size: "max" },
);

Deno.test({
  name:
    "every kept checkpoint is what the tree was, after any history of edits, prunes and deaths, and any harm is named [needs root]",
  ignore: Deno.uid() !== 0, // some folders' ACLs keep their own owner out
  async fn() {
    say(`seed ${SEED}, ${RUNS} runs`);
    const counts = new Map<string, number>();
    const key = parseEncryptionKey(new Uint8Array(32).map((_, i) => i + SEED % 200));
    assert.ok(typeof key !== "string", "a key of 32 bytes");
    await fc.assert(
      fc.asyncProperty(
        fc.record({ seed: number, files: fc.integer({ min: 3, max: 25 }), encrypted: fc.boolean() }),
        rounds,
        harms,
        async ({ seed, files, encrypted }, steps, harmed) => {
          await using scene = await ModelScene.create(seed, { files, key: encrypted ? key : null, counts });
          for (const step of steps.flat()) await scene.perform(step);
          await scene.isWhole();
          for (const harm of harmed) await scene.findsHarm(harm);
        },
      ),
      { numRuns: RUNS, seed: SEED, endOnFailure: !SHRINKS, ...(PATH === undefined ? {} : { path: PATH }) },
    );
    say([...counts].sort().map(([what, times]) => `${String(times).padStart(7)}  ${what}`).join("\n"));
  },
});
