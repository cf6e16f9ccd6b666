/** The clock on the wall is set forward and back while programs run, wait, end by schedule, and the lease is held. */

import assert from "node:assert/strict";
import { byClockFile, hasFaketime } from "../support/faketime.ts";
import { FaultScene } from "../support/fault_scene.ts";
import { type Json, scratchFolder, waitFor } from "../support/manager_process.ts";
import { PLAIN } from "../support/surroundings.ts";

const JUMPS = ["+30d", "-30d", "+0", "+90m"];

const sh = (command: string, change: Json = {}): Json => ({
  command,
  shell: true,
  essential: false,
  ...change,
});

Deno.test({
  name:
    "a clock that is set forward or back ends no program and no lease, and neither delays nor hurries a start or a stop [needs faketime]",
  ignore: !hasFaketime,
  async fn() {
    using scratch = scratchFolder();
    const clock = `${scratch.path}/clock`;
    Deno.writeTextFileSync(clock, "+0\n");
    await using scene = new FaultScene(PLAIN, () => ({
      steady: sh("exec sleep 1000"),
      falls: sh("exit 1", {
        restart_delay: "500ms",
        restart_max_delay: "500ms",
        start_limit: { burst: 500, interval: "1h" },
      }),
      deaf: sh(`trap "" TERM; echo up; exec sleep 1000`, { timeout_stop: "2s" }),
      job: sh("echo run", { schedule: "* * * * * *" }),
    }), {
      config: { lease: { ttl: "10s" } },
      env: byClockFile(clock),
    });
    await scene.running();
    const steady = await scene.when("steady", "up", ({ state }: Json) => state === "running");
    const runs = () => scene.manager.stdout.split("job | run").length - 1;
    for (const jump of JUMPS) {
      await scene.when("deaf", "up", ({ state }: Json) => state === "running");
      const beginMs = performance.now();
      const stopping = await scene.manager.fetch("/processes/deaf/stop", { json: { wait: "0s" } });
      await stopping.body?.cancel();
      Deno.writeTextFileSync(clock, `${jump}\n`);
      const { restarts } = await scene.when("falls", "there", () => true);
      const before = runs();
      await scene.when("deaf", "killed", ({ state }: Json) => state === "stopped");
      assert.ok(performance.now() - beginMs > 1_500, `${jump}: stopped too soon`);
      await scene.when("falls", "started again", (process: Json) => process.restarts >= restarts + 4);
      await waitFor(
        `the job to run after ${jump}`,
        () => runs() >= before + 2,
        60_000,
        () => scene.manager.tail(),
      );
      await scene.manager.json("/processes/deaf/start", { json: {} });
    }
    const seen = await scene.when("steady", "there", ({ state }: Json) => state === "running");
    assert.deepEqual([seen.pid, seen.restarts], [steady.pid, 0]);
    // That the clock did jump: a day of each is in what the manager wrote.
    const days = new Set(
      [...scene.manager.stderr.matchAll(/"time":"(\d{4}-\d\d)/g)].map(([, month]) => month),
    );
    assert.ok(days.size >= 3, [...days].join());
    scene.stop(scene.manager.pid);
    assert.equal(await scene.manager.exit(), 0, scene.manager.tail());
  },
});
