/** The kernel kills a program for want of memory, in a control group made for it. */

import assert from "node:assert/strict";
import { type Json, ManagerProcess, runProgram, scratchFolder, waitFor } from "../support/manager_process.ts";
import { canMakeMemoryCgroup, makeMemoryCgroup } from "../support/memory_cgroup.ts";

const MIB = 1_048_576;
/** The manager, its guard and its archiver fit in; the program fills the rest. */
const LIMIT_BYTES = 700 * MIB;

Deno.test({
  name:
    "a program that runs out of memory is said to have, everywhere, and is restarted; one that is only killed is not [needs a memory cgroup]",
  ignore: !canMakeMemoryCgroup(),
  async fn() {
    using folder = scratchFolder();
    await using group = makeMemoryCgroup(LIMIT_BYTES);
    assert.ok(group !== null);
    // The first run is the kernel's first choice and keeps all that it reads; the next one rests.
    const script = `[ -e ${folder.path}/again ] && exec sleep 1000
      : > ${folder.path}/again; echo 1000 > /proc/self/oom_score_adj; exec tail /dev/zero`;
    const config = {
      storage: { directory: `${folder.path}/store` },
      processes: {
        eater: {
          command: script,
          shell: true,
          restart: "on-failure",
          restart_delay: "10ms",
          success_exit: ["SIGKILL"],
          essential: false,
        },
        rest: { command: ["sleep", "1000"] },
      },
    };
    await Deno.writeTextFile(`${folder.path}/config.json`, JSON.stringify(config));
    const data = ["--data-dir", `${folder.path}/data`];
    await using manager = new ManagerProcess({
      args: ["--config", `${folder.path}/config.json`, ...data],
      wrap: group.wrap,
    });
    const eater = async (): Promise<Json> => await manager.json("/processes/eater");
    const again = await waitFor(
      "the next run",
      async () => {
        const view = await eater();
        return view.restarts === 1 && view.state === "running" ? view : null;
      },
      120_000,
      () => manager.tail(),
    );
    const killed = { kind: "signal", signal: "SIGKILL", number: 9 };
    assert.deepEqual(again.last_exit, { ...killed, oom: true });
    const run = async (...args: string[]) => {
      const { code, stdout, stderr } = await runProgram([...args, ...data]);
      assert.equal(code, 0, stderr);
      return stdout;
    };
    assert.match(await run("ps"), /^eater .*SIGKILL \(out of memory\)/m);
    assert.match(manager.stderr, /eater: signal SIGKILL \(out of memory\)/);
    const crashes = await waitFor("a crash file", async () => {
      const { crashes } = JSON.parse(await run("crashes", "eater", "--json"));
      return crashes.length > 0 ? crashes : null;
    });
    assert.deepEqual(crashes.map(({ cause }: Json) => cause), ["SIGKILL-oom"]);
    assert.match(await run("crashes", "eater", "latest"), /^cause: signal SIGKILL \(out of memory\)$/m);

    Deno.kill(again.pid, "SIGKILL");
    const over = await waitFor(
      "the end of the next run",
      async () => {
        const view = await eater();
        return view.state === "completed" ? view : null;
      },
      60_000,
      () => manager.tail(),
    );
    assert.deepEqual(over.last_exit, killed);
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(60_000), 0);
  },
});
