/** Real programs that KILL ends, beside a control group that the test writes. */

import assert from "node:assert/strict";
import { systemClock } from "../../src/platform/clock.ts";
import { oomKillReader } from "../../src/platform/machine.ts";
import { OomKills } from "../../src/supervisor/oom.ts";
import { scratchFolder } from "../support/manager_process.ts";
import { shellSpec } from "../support/process_specs.ts";
import { Supervised } from "../support/supervised.ts";

Deno.test("Supervisor tells want of memory by the count of the control group, and restarts what success_exit would excuse", async () => {
  using root = scratchFolder();
  const group = `${root.path}/sys/fs/cgroup/app`;
  await Deno.mkdir(group, { recursive: true });
  await Deno.mkdir(`${root.path}/proc/self`, { recursive: true });
  await Deno.writeTextFile(`${root.path}/proc/self/cgroup`, "0::/app\n");
  await Deno.writeTextFile(`${group}/memory.events`, "oom 1\noom_kill 1\n");
  const read = oomKillReader((path) => {
    try {
      return Deno.readTextFileSync(root.path + path);
    } catch {
      return null;
    }
  });
  // As the kernel does it: counted first, killed then. The second time nothing is counted.
  const script = `[ -e ${root.path}/again ] || echo 'oom_kill 2' > ${group}/memory.events
    : > ${root.path}/again; kill -KILL $$`;
  const once = { restart: "on-failure", successExit: ["SIGKILL"] } as const;
  await using app = new Supervised(
    { oomKills: new OomKills(systemClock(), read) },
    shellSpec("eater", script, once),
  );
  const outcome = await app.start().supervisor.outcome;
  const causes = app.events.flatMap((event) => event.type === "exited" ? [event.cause] : []);
  const killed = { kind: "signal", signal: "SIGKILL", number: 9 };
  assert.deepEqual(causes, [{ ...killed, oom: true }, killed]);
  assert.deepEqual([app.status("eater").state, app.status("eater").restarts], ["completed", 1]);
  assert.equal(outcome.decidedBy, null);
});

Deno.test("Supervisor takes no KILL of its own for want of memory", async () => {
  let count = 0;
  const kills = new OomKills(systemClock(), () => count);
  await using app = new Supervised(
    { oomKills: kills },
    shellSpec("deaf", "trap '' TERM; echo up; while :; do sleep 0.02; done", { timeoutStopMs: 50 }),
  );
  await app.start().untilLine("deaf", "up");
  count = 1;
  await app.supervisor.stopProcess("deaf");
  assert.deepEqual(app.status("deaf").lastExit, { kind: "signal", signal: "SIGKILL", number: 9 });
});
