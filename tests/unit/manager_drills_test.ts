/** Restore drills on a clock of the test's own: when they are due, what is kept of them, and that they end. */

import assert from "node:assert/strict";
import type { DrillInfo } from "../../src/manager/control.ts";
import { Drills, type DrillsOptions } from "../../src/manager/drills.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;

function scene(databases: Record<string, number>, drill?: DrillsOptions["drill"]) {
  const clock = new VirtualClock();
  const ran: string[] = [];
  const end = new AbortController();
  const passed = (): DrillInfo => ({
    atMs: clock.wallMs(),
    outcome: "passed",
    txid: 7,
    durationMs: 5,
    error: null,
  });
  const drills = new Drills({
    clock,
    signal: end.signal,
    databases: () => Object.entries(databases).map(([name, intervalMs]) => ({ name, intervalMs })),
    drill: (name, signal) => {
      ran.push(name);
      return drill === undefined ? Promise.resolve(passed()) : drill(name, signal);
    },
  });
  const close = async () => {
    end.abort(new Error("the end"));
    await drills.idle();
    assert.equal(clock.sleeping, 0);
  };
  return { clock, ran, drills, close };
}

Deno.test("drills run soon after the start, then at each database's own interval, one at a time", async () => {
  const { clock, ran, drills, close } = scene({ often: HOUR_MS, daily: 3 * HOUR_MS, never: 0 });
  drills.start();
  await clock.advance(3 * MINUTE_MS);
  assert.deepEqual(ran, [], "a start and what follows it comes first");
  await clock.advance(5 * MINUTE_MS);
  assert.deepEqual(ran, ["often", "daily"]);
  await clock.advance(HOUR_MS);
  assert.deepEqual(ran, ["often", "daily", "often"]);
  await clock.advance(3 * HOUR_MS);
  assert.equal(ran.filter((name) => name === "daily").length, 2);
  assert.equal(ran.filter((name) => name === "never").length, 0);
  assert.equal(drills.last("daily")?.outcome, "passed");
  assert.equal(drills.last("never"), null);
  await close();
});

Deno.test("a drill that cannot be tried is told as such, and tried again at its next time", async () => {
  let fails = true;
  const { clock, ran, drills, close } = scene({ app: HOUR_MS }, () => {
    if (fails) return Promise.reject(new StateManagerError("store-unreachable", "get: no answer"));
    return Promise.resolve({ atMs: 1, outcome: "failed", txid: null, durationMs: 1, error: "a hole" });
  });
  drills.start();
  await clock.advance(10 * MINUTE_MS);
  assert.deepEqual([drills.last("app")?.outcome, drills.last("app")?.error], ["not-run", "get: no answer"]);
  fails = false;
  await clock.advance(HOUR_MS);
  assert.deepEqual([drills.last("app")?.outcome, ran.length], ["failed", 2]);
  await close();
});

Deno.test("a stop ends the drill under way and says nothing of it; a new start begins again", async () => {
  const signals: AbortSignal[] = [];
  const { clock, drills, close } = scene({ app: HOUR_MS }, (_name, signal) => {
    signals.push(signal);
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  });
  drills.start();
  await clock.advance(10 * MINUTE_MS);
  drills.stop();
  await drills.idle();
  assert.equal(signals[0]?.aborted, true);
  assert.equal(drills.last("app"), null);
  drills.start();
  await clock.advance(HOUR_MS);
  assert.equal(signals.length, 2);
  await close();
});
