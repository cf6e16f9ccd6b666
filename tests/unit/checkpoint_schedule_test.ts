/** Checkpoints at the times of a cron expression, by a clock of the test's own. */

import assert from "node:assert/strict";
import { CheckpointLoop } from "../../src/manager/checkpoint_loop.ts";
import type { Checkpointer } from "../../src/manager/checkpointer.ts";
import { load, problemsOf } from "../support/config_files.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

Deno.test("CheckpointLoop makes one at each time of its schedule, and tries again soon after a failure", async () => {
  const clock = new VirtualClock();
  const made: string[] = [];
  let failures = 0;
  const checkpointer = {
    idle: () => Promise.resolve(),
    create: () => {
      made.push(new Date(clock.wallMs()).toISOString().slice(11, 19));
      return failures-- > 0 ? Promise.reject(new Error("no")) : Promise.resolve();
    },
  } as unknown as Checkpointer;
  const loop = new CheckpointLoop({
    checkpointer,
    afterwards: () => {},
    intervalMs: 0,
    schedule: { cron: "0 */2 * * *", timeZone: "UTC" },
    clock,
    log: silent,
  });
  loop.start(false);
  assert.equal(loop.nextWallMs, Date.UTC(2030, 0, 1, 2));
  await clock.advance(3 * 3_600_000);
  assert.deepEqual(made, ["02:00:00"]);
  failures = 1;
  await clock.advance(3_600_000 + 4_000);
  assert.deepEqual(made, ["02:00:00", "04:00:00"]);
  await clock.advance(2_000);
  assert.deepEqual(made, ["02:00:00", "04:00:00", "04:00:05"]);
  assert.equal(loop.nextWallMs, Date.UTC(2030, 0, 1, 6));
  loop.stop();
  await clock.advance(0);
  assert.equal(clock.sleeping, 0);
});

Deno.test("schedule makes a process a job by default, and checkpoint.schedule takes the interval's place", async () => {
  const { config } = await load({
    file: {
      storage: { directory: "/mnt/store" },
      processes: {
        job: { command: ["x"], schedule: { cron: "0 3 * * *", time_zone: "Europe/Berlin" } },
      },
      checkpoint: { schedule: "@hourly" },
    },
  });
  const job = config?.processes["job"];
  assert.deepEqual([job?.restart, job?.essential, job?.schedule], [
    "no",
    false,
    { cron: "0 3 * * *", timeZone: "Europe/Berlin" },
  ]);
  assert.equal(config?.checkpoint.intervalMs, 0);
  assert.deepEqual(config?.checkpoint.schedule, { cron: "@hourly", timeZone: "UTC" });
});

Deno.test("schedule that is none, never comes, or stands beside an interval is refused", async () => {
  const problems = await problemsOf(load({
    file: {
      storage: { directory: "/mnt/store" },
      processes: {
        a: { command: ["x"], schedule: "every day" },
        b: { command: ["x"], schedule: "0 0 30 2 *" },
        c: { command: ["x"], schedule: { cron: "@daily", time_zone: "Berlin" } },
      },
    },
  }));
  assert.match(problems["/processes/a/schedule"] ?? "", /five cron fields/);
  assert.match(problems["/processes/b/schedule"] ?? "", /comes at some time/);
  assert.match(problems["/processes/c/schedule"] ?? "", /IANA/);
  const both = await problemsOf(load({
    file: { storage: { directory: "/mnt/store" }, checkpoint: { schedule: "@daily", interval: "5m" } },
  }));
  assert.match(both["/checkpoint/schedule"] ?? "", /both interval and schedule/);
});
