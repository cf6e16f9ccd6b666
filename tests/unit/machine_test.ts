/** What a container may use of its machine. */

import assert from "node:assert/strict";
import { findTool } from "../support/find_tool.ts";
import { memoryLimitBytes, oomKillReader, usableCores } from "../../src/platform/machine.ts";

const GIB = 2 ** 30;
const MACHINE = 64 * GIB;

function limitWith(files: Readonly<Record<string, string>>): number {
  return memoryLimitBytes((path) => files[path] ?? null, MACHINE);
}

Deno.test("memory limit is the smallest of all control groups around us, in both versions, else the machine's memory", () => {
  assert.equal(limitWith({}), MACHINE);
  const two = { "/proc/self/cgroup": "0::/system.slice/app.scope\n" };
  const folder = "/sys/fs/cgroup/system.slice";
  assert.equal(limitWith({ ...two, [`${folder}/app.scope/memory.max`]: "max\n" }), MACHINE);
  assert.equal(limitWith({ ...two, [`${folder}/app.scope/memory.max`]: "1073741824\n" }), GIB);
  const outer = {
    [`${folder}/memory.max`]: String(GIB),
    [`${folder}/app.scope/memory.max`]: String(4 * GIB),
  };
  assert.equal(limitWith({ ...two, ...outer }), GIB);
  // In a namespace of its own a container is at the root.
  assert.equal(
    limitWith({ "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": String(2 * GIB) }),
    2 * GIB,
  );
  const one = { "/proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n" };
  assert.equal(
    limitWith({ ...one, "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": String(GIB) }),
    GIB,
  );
  // The first version says "none" by a number beyond any machine.
  assert.equal(
    limitWith({ ...one, "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "9223372036854771712" }),
    MACHINE,
  );
});

Deno.test("kills for memory are read from the group that our memory is charged to, in both versions", () => {
  const countWith = (files: Readonly<Record<string, string>>) =>
    oomKillReader((path) => files[path] ?? null)();
  const events = "low 0\nhigh 0\nmax 12\noom 4\noom_kill 3\noom_group_kill 0\n";
  const control = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n";
  const two = { "/proc/self/cgroup": "0::/system.slice/app.scope\n" };
  const slice = "/sys/fs/cgroup/system.slice";
  assert.equal(countWith({ ...two, [`${slice}/app.scope/memory.events`]: events }), 3);
  // Without the controller in our own group the next one above it is charged.
  const above = { [`${slice}/memory.events`]: events, "/sys/fs/cgroup/memory.events": "oom_kill 99\n" };
  assert.equal(countWith({ ...two, ...above }), 3);
  const one = { "/proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/x\n0::/\n" };
  assert.equal(countWith({ ...one, "/sys/fs/cgroup/memory/docker/x/memory.oom_control": control }), 5);
  // A container that sees its own group as the root of the hierarchy, under the name that the host has for it.
  assert.equal(countWith({ ...one, "/sys/fs/cgroup/memory/memory.oom_control": control }), 5);
  assert.equal(countWith({}), null);
  assert.equal(countWith(two), null);
  const old = { "/sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n" };
  assert.equal(countWith({ ...one, ...old }), null, "before Linux 4.13");
});

Deno.test({
  name: "usable cores keep to the affinity of the process [needs taskset]",
  ignore: findTool("taskset") === null,
  async fn() {
    assert.ok(usableCores() >= 1);
    const script = `import { usableCores } from "${new URL(
      "../../src/platform/machine.ts",
      import.meta.url,
    )}"; console.log(usableCores());`;
    const folder = await Deno.makeTempDir();
    try {
      await Deno.writeTextFile(`${folder}/cores.ts`, script);
      const { stdout } = await new Deno.Command("taskset", {
        args: ["-c", "0", Deno.execPath(), "run", "-A", "--quiet", "--no-config", `${folder}/cores.ts`],
      }).output();
      assert.equal(new TextDecoder().decode(stdout).trim(), "1");
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
