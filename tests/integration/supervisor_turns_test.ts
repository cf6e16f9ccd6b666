/** Many starts at once, with a clock by which each of them takes long. */

import assert from "node:assert/strict";
import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { Supervisor } from "../../src/supervisor/supervisor.ts";
import { shellSpec } from "../support/process_specs.ts";
import { until } from "../support/supervised.ts";

const START_MS = 8;
const COUNT = 12;
const clock = systemClock();

/** A supervisor of `COUNT` sleepers; how many were started by each look. */
function sleepers() {
  let started = 0;
  const supervisor = new Supervisor({
    specs: Array.from({ length: COUNT }, (_, n) => shellSpec(`p${n}`, "exec sleep 1000")),
    clock: { ...clock, monotonicMs: () => clock.monotonicMs() + started * START_MS },
    random: systemRandom(),
    output: () => null,
    onEvent: () => {},
    units: { watch: () => void started++, forget: () => {} },
  });
  return { supervisor, started: () => started };
}

Deno.test("starts that take long give the event loop its turns, and none is forgotten", async () => {
  const { supervisor, started } = sleepers();
  supervisor.start();
  const first = started();
  assert.ok(first > 0 && first <= 2, `${first} in the first turn`);
  let turns = 0;
  await until(() => {
    turns++;
    return started() === COUNT && supervisor.status().every(({ state }) => state === "running");
  }, "all run");
  assert.ok(turns > 1);
  await supervisor.stop({ deadlineMonotonicMs: clock.monotonicMs() + 60_000 });
});

Deno.test("starts that wait for their turn do not come after a stop or a fence", async () => {
  for (const end of ["stop", "kill"] as const) {
    const { supervisor, started } = sleepers();
    supervisor.start();
    const first = started();
    if (end === "stop") await supervisor.stop({ deadlineMonotonicMs: clock.monotonicMs() + 60_000 });
    else await supervisor.kill();
    await clock.sleep(50);
    assert.equal(started(), first, end);
    assert.deepEqual(supervisor.status().filter(({ pid }) => pid !== null), []);
  }
});
