/** Verification by schedule on a clock of the test's own: when it runs, what is kept of it, and that one runs at a time. */

import assert from "node:assert/strict";
import { emptyHead } from "../../src/checkpoint/mod.ts";
import type { CatalogEvent } from "../../src/database/mod.ts";
import type { VerifyWish } from "../../src/manager/control.ts";
import { Verifier, type VerifierOptions } from "../../src/manager/verifier.ts";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import { checkpointRecord, verifyResult } from "../support/fake_control.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const HOUR_MS = 3_600_000;

function scene(settings = { intervalMs: 24 * HOUR_MS, percent: 2 }, verify?: VerifierOptions["verify"]) {
  const clock = new VirtualClock();
  const ran: VerifyWish[] = [];
  const recorded: CatalogEvent[] = [];
  const verifier = new Verifier({
    clock,
    settings,
    head: () => ({ ...emptyHead("r"), checkpoints: [checkpointRecord(1)], current: checkpointRecord(1).id }),
    record: (event) => void recorded.push(event),
    verify: (wish, work) => {
      ran.push(wish);
      return verify === undefined ? Promise.resolve(verifyResult()) : verify(wish, work);
    },
  });
  return { clock, ran, recorded, verifier };
}

const finding = {
  object: "checkpoints/packs/00000001/x",
  problem: "missing",
  detail: "",
  checkpoints: [],
  files: [],
  filesTotal: 0,
} as const;

Deno.test("verification by schedule waits for the start to be over, then keeps its interval", async () => {
  const { clock, ran, verifier } = scene();
  verifier.start();
  verifier.start(); // a restore in between starts the programs anew
  await clock.advance(10 * 60_000);
  assert.deepEqual(ran, []);
  assert.notEqual(verifier.status().next, null);
  await clock.advance(10 * 60_000);
  assert.deepEqual(ran, [{ checkpoint: null, level: 3, percent: 2 }]);
  await clock.advance(23 * HOUR_MS);
  assert.equal(ran.length, 1);
  await clock.advance(2 * HOUR_MS);
  assert.equal(ran.length, 2);
  assert.equal(verifier.status().last?.outcome, "passed");
  verifier.stop();
  await clock.advance(60_000);
  assert.equal(clock.sleeping, 0);
  assert.equal(verifier.status().next, null);
});

Deno.test("an interval of 0 is no schedule, and 0 percent the footers alone", async () => {
  const never = scene({ intervalMs: 0, percent: 2 });
  never.verifier.start();
  await never.clock.advance(48 * HOUR_MS);
  assert.deepEqual(never.ran, []);
  const { clock, ran, verifier } = scene({ intervalMs: HOUR_MS, percent: 0 });
  verifier.start();
  await clock.advance(HOUR_MS);
  assert.equal(ran[0]?.level, 2);
  verifier.stop();
  await clock.advance(60_000);
});

Deno.test("damage stays in the status and goes into the history; one checkpoint that is whole changes neither", async () => {
  let findings = [finding];
  const { recorded, verifier } = scene(
    undefined,
    () => Promise.resolve(verifyResult({ findings, findingsTotal: findings.length })),
  );
  await verifier.verify({ checkpoint: null, level: 2, percent: 0 });
  assert.deepEqual([verifier.status().last?.outcome, verifier.status().last?.objects], ["damaged", [
    finding.object,
  ]]);
  assert.deepEqual(recorded.map(({ kind, subject }) => [kind, subject]), [["verify", "all"]]);
  findings = [];
  await verifier.verify({ checkpoint: "v1", level: 2, percent: 0 });
  assert.equal(verifier.status().last?.outcome, "damaged");
  await verifier.verify({ checkpoint: null, level: 2, percent: 0 });
  assert.equal(verifier.status().last?.outcome, "passed");
});

Deno.test("one runs at a time; one that cannot be carried out is told as such", async () => {
  const gate = Promise.withResolvers<never>();
  const { verifier } = scene(undefined, () => gate.promise);
  const first = verifier.verify({ checkpoint: null, level: 2, percent: 0 });
  await assert.rejects(
    verifier.verify({ checkpoint: null, level: 1, percent: 0 }),
    (error) => isError(error, "busy"),
  );
  assert.equal(verifier.status().running, true);
  gate.reject(new StateManagerError("store-unreachable", "list: no answer"));
  await assert.rejects(first, (error) => isError(error, "store-unreachable"));
  assert.deepEqual([verifier.status().running, verifier.status().last?.outcome], [false, "not-run"]);
  await assert.rejects(
    verifier.verify({ checkpoint: "7", level: 1, percent: 0 }),
    (error) => isError(error, "checkpoint-not-found"),
  );
});

Deno.test("a stop ends the one by schedule and says nothing of it", async () => {
  const signals: (AbortSignal | undefined)[] = [];
  const { clock, verifier } = scene(undefined, (_wish, { signal }) => {
    signals.push(signal);
    return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
  });
  verifier.start();
  await clock.advance(20 * 60_000);
  assert.equal(signals.length, 1);
  verifier.stop();
  await clock.advance(60_000);
  assert.deepEqual([signals[0]?.aborted, verifier.status().running, verifier.status().last], [
    true,
    false,
    null,
  ]);
  assert.equal(clock.sleeping, 0);
});
