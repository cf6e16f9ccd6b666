/** What a container may use of its machine. */

import assert from "node:assert/strict";
import { planReading } from "../../src/checkpoint/reading_plan.ts";
import { memoryLimitBytes, oomKillReader, usableCores } from "../../src/platform/machine.ts";
import { canMakeControlGroups, cpuQuotaGroup } from "../support/control_group.ts";
import { findTool } from "../support/find_tool.ts";

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

Deno.test("memory limit is also the one that is kept by slowing down", () => {
  const app = "/sys/fs/cgroup/app";
  const files = { "/proc/self/cgroup": "0::/app\n", [`${app}/memory.max`]: String(4 * GIB) };
  assert.equal(limitWith({ ...files, [`${app}/memory.high`]: "max\n" }), 4 * GIB);
  assert.equal(limitWith({ ...files, [`${app}/memory.high`]: `${3 * GIB}\n` }), 3 * GIB);
});

const CORES = 8;
const coresWith = (files: Readonly<Record<string, string>>) =>
  usableCores((path) => files[path] ?? null, CORES);

Deno.test("usable cores are the whole ones of the smallest quota around us, in both versions of control groups", () => {
  assert.equal(coresWith({}), CORES);
  const two = { "/proc/self/cgroup": "0::/kubepods.slice/pod.scope\n" };
  const pod = "/sys/fs/cgroup/kubepods.slice";
  assert.equal(coresWith({ ...two, [`${pod}/pod.scope/cpu.max`]: "max 100000\n" }), CORES);
  assert.equal(coresWith({ ...two, [`${pod}/pod.scope/cpu.max`]: "200000 100000\n" }), 2);
  assert.equal(coresWith({ ...two, [`${pod}/pod.scope/cpu.max`]: "25000 10000\n" }), 2);
  assert.equal(coresWith({ ...two, [`${pod}/pod.scope/cpu.max`]: "50000 100000\n" }), 1);
  assert.equal(coresWith({ ...two, [`${pod}/pod.scope/cpu.max`]: "6400000 100000\n" }), CORES);
  // The outer group is the tighter one, and then the inner one.
  const outer = (inner: string, above: string) => ({
    ...two,
    [`${pod}/pod.scope/cpu.max`]: inner,
    [`${pod}/cpu.max`]: above,
  });
  assert.equal(coresWith(outer("400000 100000\n", "300000 100000\n")), 3);
  assert.equal(coresWith(outer("400000 100000\n", "500000 100000\n")), 4);
  assert.equal(coresWith(outer("max 100000\n", "100000 100000\n")), 1);
  // In a namespace of its own a container is at the root.
  assert.equal(coresWith({ "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "300000 100000\n" }), 3);

  const one = { "/proc/self/cgroup": "9:memory:/docker/x\n5:cpu,cpuacct:/docker/x\n0::/\n" };
  const quota = (folder: string, quotaUs: number, periodUs: number) => ({
    [`/sys/fs/cgroup/cpu${folder}/cpu.cfs_quota_us`]: `${quotaUs}\n`,
    [`/sys/fs/cgroup/cpu${folder}/cpu.cfs_period_us`]: `${periodUs}\n`,
  });
  assert.equal(coresWith({ ...one, ...quota("/docker/x", -1, 100_000), ...quota("", -1, 100_000) }), CORES);
  assert.equal(coresWith({ ...one, ...quota("/docker/x", 200_000, 100_000) }), 2);
  assert.equal(
    coresWith({ ...one, ...quota("/docker/x", 400_000, 100_000), ...quota("/docker", 100_000, 50_000) }),
    2,
  );
  // Without a namespace of groups the path is the machine's, and what is mounted is the container's own group.
  assert.equal(coresWith({ ...one, ...quota("", 300_000, 100_000) }), 3);
});

Deno.test("a checkpoint is read by no more threads than the quota has cores", () => {
  const much = { bytes: 10 * GIB, files: 100_000 };
  const workersAt = (quota: string) => {
    const files = { "/proc/self/cgroup": "0::/app\n", "/sys/fs/cgroup/app/cpu.max": quota };
    return planReading({ cores: coresWith(files), memoryLimitBytes: MACHINE }, much).workers;
  };
  assert.equal(workersAt("100000 100000\n"), 0); // the archiver's own thread
  assert.equal(workersAt("200000 100000\n"), 2);
  assert.equal(workersAt("300000 100000\n"), 3);
  assert.equal(workersAt("max 100000\n"), 4);
});

const coresScript = `import { usableCores } from "${new URL(
  "../../src/platform/machine.ts",
  import.meta.url,
)}"; console.log(usableCores());`;

Deno.test({
  name:
    "usable cores keep to the quota of a real control group, and to that of the group around it [needs cgroups]",
  ignore: !await canMakeControlGroups(),
  async fn(t) {
    await using group = await cpuQuotaGroup();
    assert.ok(group !== null);
    const folder = await Deno.makeTempDir();
    try {
      await Deno.writeTextFile(`${folder}/cores.ts`, coresScript);
      const run = () =>
        group.run([Deno.execPath(), "run", "-A", "--quiet", "--no-config", `${folder}/cores.ts`]);
      const all = await run();
      assert.equal(all, String(usableCores()));
      await t.step("inner", async () => {
        await group.setInner(1.5);
        assert.equal(await run(), "1");
      });
      await t.step("outer", async () => {
        await group.setInner(null);
        await group.setOuter(1);
        assert.equal(await run(), "1");
      });
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "usable cores keep to the affinity of the process [needs taskset]",
  ignore: findTool("taskset") === null,
  async fn() {
    assert.ok(usableCores() >= 1);
    const folder = await Deno.makeTempDir();
    try {
      await Deno.writeTextFile(`${folder}/cores.ts`, coresScript);
      const { stdout } = await new Deno.Command("taskset", {
        args: ["-c", "0", Deno.execPath(), "run", "-A", "--quiet", "--no-config", `${folder}/cores.ts`],
      }).output();
      assert.equal(new TextDecoder().decode(stdout).trim(), "1");
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
