/** The end of everything as PID 1: who is asked to end before the KILL, and who is not. */

import assert from "node:assert/strict";
import { endEverything } from "../../src/supervisor/mod.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

async function signalsAt({ graceMs = 0, selfPid = 1 }): Promise<string[]> {
  const signals: string[] = [];
  const clock = new VirtualClock();
  const ended = endEverything(clock, { graceMs, selfPid, signalAll: (signal) => signals.push(signal) });
  for (let waited = 0; waited < 1_000; waited += 10) await clock.advance(10);
  await ended;
  return signals;
}

Deno.test("endEverything asks before it kills, unless there is no grace, and is for PID 1 alone", async () => {
  assert.deepEqual(await signalsAt({ graceMs: 500 }), ["SIGTERM", "SIGKILL"]);
  assert.deepEqual(await signalsAt({ graceMs: 0 }), ["SIGKILL"]);
  assert.deepEqual(await signalsAt({ graceMs: 500, selfPid: 7 }), []);
});
