/** Processes with a schedule, run for real, each second. */

import assert from "node:assert/strict";
import { shellSpec } from "../support/process_specs.ts";
import { Supervised, until } from "../support/supervised.ts";

const EACH_SECOND = { cron: "* * * * * *", timeZone: "UTC" };

Deno.test("Scheduled job runs at each tick, not before, never twice at once, and its failure is not the end", async () => {
  await using app = new Supervised(
    shellSpec("job", "echo run; sleep 1.2; exit 3", { schedule: EACH_SECOND, essential: false }),
  );
  app.start();
  assert.equal(app.status("job").state, "waiting");
  assert.ok(app.status("job").nextStartMs !== null);
  await until(() => app.lines("job").length >= 2, "two runs");
  const states = app.events.flatMap((event) => event.type === "state" ? [event.state] : []);
  assert.ok(states.includes("failed"), states.join());
  // One that ran was over before the next began.
  const begins = app.events.flatMap((event, index) => event.type === "started" ? [index] : []);
  const ends = app.events.flatMap((event, index) => event.type === "exited" ? [index] : []);
  assert.ok((ends[0] ?? Infinity) < (begins[1] ?? -1));
  await app.stop(5_000);
  assert.equal(app.status("job").nextStartMs, null);
});

Deno.test("Scheduled job that a person stopped is not started by a tick, and a person starts one without a tick", async () => {
  await using app = new Supervised(
    shellSpec("often", "echo run", { schedule: EACH_SECOND, essential: false }),
    shellSpec("rare", "echo run", { schedule: { cron: "0 0 1 1 *", timeZone: "UTC" }, essential: false }),
  );
  app.start();
  await app.supervisor.stopProcess("often");
  app.supervisor.startProcess("rare");
  await app.untilLine("rare", "run");
  const before = Date.now();
  await until(() => Date.now() - before > 1_500, "a tick to pass");
  assert.equal(app.status("often").state, "stopped");
  assert.deepEqual(app.lines("often"), []);
  app.supervisor.startProcess("often");
  await app.untilLine("often", "run");
});

Deno.test("Scheduled service starts at once and is restarted at each tick without counting as a failure", async () => {
  await using app = new Supervised(
    shellSpec("service", "echo up; exec sleep 1000", { schedule: EACH_SECOND, restart: "always" }),
  );
  app.start();
  await app.untilLine("service", "up");
  await until(() => app.names("started").length >= 3, "two restarts");
  const exits = app.events.filter((event) => event.type === "exited");
  assert.ok(exits.every((event) => event.requested && event.restartFor === "schedule"));
});
