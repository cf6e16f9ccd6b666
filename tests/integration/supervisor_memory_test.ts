/** Figures and memory limits of real processes. */

import assert from "node:assert/strict";
import { shellSpec } from "../support/process_specs.ts";
import { Supervised, until } from "../support/supervised.ts";

/** Holds so many MiB in a shell variable, says so, and waits. */
const holding = (mebibytes: number) =>
  `x=$(head -c ${mebibytes * 1_048_576} /dev/zero | tr '\\0' x); echo full; sleep 1000; :`;

Deno.test("Process's figures count its children too, and nothing where nothing runs", async () => {
  await using app = new Supervised(
    shellSpec("big", `(${holding(40)}) & setsid sh -c "echo away; sleep 1000" & wait`, { essential: false }),
    shellSpec("done", "true", { essential: false }),
  );
  app.start();
  await app.untilLine("big", "full");
  await app.untilLine("big", "away");
  await app.untilState("done", "completed");
  await until(() => (app.status("big").use?.memoryBytes ?? 0) > 40 * 1_048_576, "the memory of a child");
  const { use } = app.status("big");
  assert.ok(use !== null && use.processes >= 3 && use.cpuSeconds > 0, JSON.stringify(use));
  assert.equal(app.status("done").use, null);
});

Deno.test("Process above its memory limit is warned of, then restarted for its memory, and counts as a failure", async () => {
  const memoryLimit = { warnBytes: 16 * 1_048_576, maxBytes: 24 * 1_048_576, forMs: 0 };
  await using app = new Supervised(
    shellSpec("leak", holding(40), { restart: "on-failure", memoryLimit }),
    shellSpec("small", "sleep 1000", { restart: "on-failure", memoryLimit, essential: false }),
  );
  app.start();
  await until(() => app.events.some((event) => event.type === "exited"), "the restart for its memory");
  const exited = app.events.find((event) => event.type === "exited");
  assert.ok(exited?.type === "exited");
  assert.deepEqual([exited.name, exited.restartFor, exited.requested], ["leak", "memory", false]);
  const reason = app.events.find((event) => event.type === "state" && event.reason !== null);
  assert.match(reason?.type === "state" ? reason.reason ?? "" : "", /memory: \d+ MiB of 24 MiB/);
  await until(() => app.names("started").filter((name) => name === "leak").length >= 2, "its next start");
  assert.deepEqual(app.names("started").filter((name) => name === "small").length, 1);
});
