/** Cron schedules: when they tick, by a clock of the test's own. */

import assert from "node:assert/strict";
import type { Clock } from "../../src/platform/clock.ts";
import { parseCron, sleepUntilWall } from "../../src/platform/cron.ts";
import { outcomeOf } from "../../src/supervisor/outcome.ts";
import { newMachine } from "../../src/supervisor/machine.ts";
import { Scheduler } from "../../src/supervisor/scheduler.ts";
import { processSpec } from "../support/process_specs.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const at = (text: string) => Date.parse(text);
const iso = (ms: number | null | undefined) =>
  ms === null || ms === undefined ? null : new Date(ms).toISOString();

Deno.test("parseCron gives the next moment in its time zone, through a change of summer time", () => {
  const berlin = parseCron({ cron: "0 3 * * *", timeZone: "Europe/Berlin" });
  assert.equal(iso(berlin?.(at("2026-03-28T12:00:00Z"))), "2026-03-29T01:00:00.000Z");
  assert.equal(iso(berlin?.(at("2026-10-24T12:00:00Z"))), "2026-10-25T02:00:00.000Z");
  const utc = parseCron({ cron: "*/15 * * * *", timeZone: "UTC" });
  assert.equal(iso(utc?.(at("2026-03-28T12:00:00Z"))), "2026-03-28T12:15:00.000Z");
  assert.equal(iso(parseCron({ cron: "0 0 30 2 *", timeZone: "UTC" })?.(0)), null);
});

Deno.test("parseCron refuses what is no expression or no time zone", () => {
  for (
    const cron of ["", "x", "* * * *", "61 * * * *", "* * * * * * 2030", "2030-01-01T00:00:00", "@never"]
  ) {
    assert.equal(parseCron({ cron, timeZone: "UTC" }), null, cron);
  }
  assert.equal(parseCron({ cron: "* * * * *", timeZone: "Nowhere/Land" }), null);
});

/** Wall time may be set apart from the time that passes. */
class SetClock implements Clock {
  readonly #inner = new VirtualClock();
  offsetMs = 0;
  monotonicMs(): number {
    return this.#inner.monotonicMs();
  }
  wallMs(): number {
    return this.#inner.wallMs() + this.offsetMs;
  }
  sleep(ms: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    return this.#inner.sleep(ms, options);
  }
  async advance(ms: number): Promise<void> {
    await this.#inner.advance(ms);
  }
  get sleeping(): number {
    return this.#inner.sleeping;
  }
}

function scene(cron: string) {
  const clock = new SetClock();
  const ticks: string[] = [];
  const scheduler = new Scheduler({
    clock,
    onTick: () => ticks.push(iso(clock.wallMs())?.slice(11, 19) ?? ""),
  });
  scheduler.schedule(new Map([["job", { cron, timeZone: "UTC" }]]));
  return { clock, ticks, scheduler };
}

Deno.test("Scheduler ticks at each moment once, says when the next is, and leaves no timer when stopped", async () => {
  const { clock, ticks, scheduler } = scene("*/10 * * * *");
  assert.equal(iso(scheduler.nextWallMs("job")), "2030-01-01T00:10:00.000Z");
  await clock.advance(35 * 60_000);
  assert.deepEqual(ticks, ["00:10:00", "00:20:00", "00:30:00"]);
  scheduler.stop();
  assert.equal(scheduler.nextWallMs("job"), null);
  await clock.advance(60 * 60_000);
  assert.equal(ticks.length, 3);
  assert.equal(clock.sleeping, 0);
});

Deno.test("Scheduler does not make up for ticks that were missed when the clock was set forward", async () => {
  const { clock, ticks, scheduler } = scene("0 * * * *");
  await clock.advance(10 * 60_000);
  clock.offsetMs = 3 * 3_600_000; // 03:10
  await clock.advance(30_000);
  assert.deepEqual(ticks, []);
  await clock.advance(60 * 60_000);
  assert.deepEqual(ticks, ["04:00:00"]);
  scheduler.stop();
  await clock.advance(0);
});

Deno.test("Scheduler does not tick twice when the clock is set back", async () => {
  const { clock, ticks, scheduler } = scene("0 * * * *");
  await clock.advance(61 * 60_000);
  clock.offsetMs = -10 * 60_000; // 00:51
  await clock.advance(20 * 60_000);
  assert.deepEqual(ticks, ["01:00:00"]);
  await clock.advance(60 * 60_000);
  assert.deepEqual(ticks, ["01:00:00", "02:00:00"]);
  scheduler.stop();
  await clock.advance(0);
});

Deno.test("Scheduler begins anew when the clock is set back by days: the time before was wrong", async () => {
  const { clock, ticks, scheduler } = scene("0 * * * *");
  clock.offsetMs = 30 * 86_400_000;
  await clock.advance(61 * 60_000);
  assert.deepEqual(ticks, ["01:00:00"]);
  clock.offsetMs = -30 * 86_400_000; // 01:01
  await clock.advance(60 * 60_000);
  assert.deepEqual(ticks, ["01:00:00", "02:00:00"]);
  scheduler.stop();
  await clock.advance(0);
});

Deno.test("Scheduler keeps one tick of what stands still until it goes on, and none of what has ended", async () => {
  const { clock, ticks, scheduler } = scene("*/10 * * * *");
  await clock.advance(5 * 60_000);
  scheduler.freeze();
  await clock.advance(30 * 60_000);
  scheduler.freeze(); // again, for who was forked meanwhile
  assert.deepEqual(ticks, []);
  scheduler.thaw();
  assert.deepEqual(ticks, ["00:35:00"]);
  scheduler.thaw();
  await clock.advance(10 * 60_000);
  assert.deepEqual(ticks, ["00:35:00", "00:40:00"]);
  scheduler.freeze();
  await clock.advance(10 * 60_000);
  scheduler.schedule(new Map());
  scheduler.thaw();
  scheduler.stop();
  await clock.advance(0);
  assert.deepEqual(ticks, ["00:35:00", "00:40:00"]);
});

Deno.test("sleepUntilWall comes at once for a moment that is over, and rejects when aborted", async () => {
  const clock = new SetClock();
  await sleepUntilWall(clock, clock.wallMs() - 1, new AbortController().signal);
  await assert.rejects(
    sleepUntilWall(clock, clock.wallMs() + 1, AbortSignal.abort(new Error("over"))),
    /over/,
  );
});

Deno.test("outcomeOf waits for no scheduled job that rests, but for nothing else where there are only jobs", () => {
  const schedule = { cron: "@daily", timeZone: "UTC" };
  const job = { spec: processSpec({ name: "job", schedule, essential: false }) };
  const main = { spec: processSpec({ name: "main" }) };
  const machine = (state: "completed" | "waiting" | "running" | "failed") => ({
    ...newMachine(),
    state,
    wanted: "up" as const,
  });
  const mainDone = { ...main, machine: machine("completed") };
  assert.equal(outcomeOf([{ ...job, machine: machine("waiting") }, mainDone], false)?.exitCode, 0);
  assert.equal(outcomeOf([{ ...job, machine: machine("failed") }, mainDone], false)?.exitCode, 0);
  assert.equal(outcomeOf([{ ...job, machine: machine("running") }, mainDone], false), null);
  assert.equal(outcomeOf([{ ...job, machine: machine("completed") }], false), null);
  assert.equal(outcomeOf([{ ...job, machine: machine("completed") }], true)?.exitCode, 0);
});

Deno.test("Scheduler takes over other schedules and leaves those alone that are the same", async () => {
  const { clock, ticks, scheduler } = scene("0 * * * *");
  await clock.advance(30 * 60_000);
  const same = { cron: "0 * * * *", timeZone: "UTC" };
  scheduler.schedule(new Map([["job", same], ["other", { cron: "30 * * * *", timeZone: "UTC" }]]));
  await clock.advance(61 * 60_000);
  assert.deepEqual(ticks, ["01:00:00", "01:30:00"]);
  scheduler.schedule(new Map([["other", same]]));
  assert.equal(scheduler.nextWallMs("job"), null);
  await clock.advance(60 * 60_000);
  assert.deepEqual(ticks, ["01:00:00", "01:30:00", "02:00:00"]);
  scheduler.stop();
  scheduler.schedule(new Map([["job", same]]));
  await clock.advance(0);
  assert.equal(clock.sleeping, 0);
});
