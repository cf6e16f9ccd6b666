/** Stopping: the last state is in the store, exit codes are the program's, the budget holds. */

import assert from "node:assert/strict";
import { unlessStalled } from "../support/machine_stall.ts";
import { ManagerProcess, runProgram, scratchFolder, waitFor } from "../support/manager_process.ts";
import { testOnStores, type TestStore } from "../support/test_stores.ts";

function start(
  root: string,
  store: TestStore,
  program: readonly string[],
  ...extra: string[]
): ManagerProcess {
  Deno.mkdirSync(`${root}/files`, { recursive: true });
  return new ManagerProcess({
    args: [
      "run",
      ...store.args,
      ...[
        "--files",
        `app=${root}/files`,
        "--data-dir",
        `${root}/data`,
        "--checkpoint-interval",
        "1h",
      ],
      ...extra,
      "--",
      ...program,
    ],
    env: store.env,
  });
}

async function restoredText(
  root: string,
  store: TestStore,
  name: string,
): Promise<string> {
  const to = `${root}/restored`;
  const result = await runProgram(["restore", ...store.args, "--to", to], {
    env: store.env,
  });
  assert.equal(result.code, 0, result.stderr);
  return await Deno.readTextFile(`${to}/app/${name}`);
}

testOnStores(
  "a program that ignores SIGTERM is killed in time for the last checkpoint, all within 9 s",
  (store) => unlessStalled((root) => stubbornStop(root, store)),
);

async function stubbornStop(root: string, store: TestStore): Promise<void> {
  const program = `trap "" TERM; echo started > files-ready; while :; do date +%s%N > last; sleep 0.05; done`;
  await using manager = start(root, store, [
    "sh",
    "-c",
    `cd ${root}/files && ${program}`,
  ]);
  await manager.state("running");
  await waitFor(
    "the program to write",
    () => Deno.statSync(`${root}/files/last`).isFile,
  );
  const begin = performance.now();
  manager.signal("SIGTERM");
  const code = await manager.exit();
  const tookMs = performance.now() - begin;
  assert.ok(tookMs < 9000, `took ${tookMs} ms\n${manager.tail()}`);
  assert.equal(code, 137, manager.tail());
  const last = await Deno.readTextFile(`${root}/files/last`);
  assert.equal(await restoredText(root, store, "last"), last);
}

testOnStores(
  "what the program writes while it stops is in the last checkpoint",
  async (store) => {
    using scratch = scratchFolder();
    const script =
      `trap 'echo goodbye > ${scratch.path}/files/end; exit 7' TERM; echo ready; while :; do sleep 0.05; done`;
    await using manager = start(scratch.path, store, ["sh", "-c", script]);
    await manager.state("running");
    await waitFor("the trap to be set", () => manager.stdout.includes("ready"));
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 7, manager.tail());
    assert.equal(await restoredText(scratch.path, store, "end"), "goodbye\n");
  },
);

testOnStores(
  "the command's own end ends the manager with its code, after the last checkpoint",
  async (store) => {
    using scratch = scratchFolder();
    const script = `echo result > ${scratch.path}/files/out; echo to-stdout; echo to-stderr >&2; exit 42`;
    await using manager = start(scratch.path, store, ["sh", "-c", script]);
    assert.equal(await manager.exit(), 42, manager.tail());
    assert.match(manager.stdout, /^to-stdout$/m);
    assert.match(manager.stderr, /to-stderr/);
    assert.equal(await restoredText(scratch.path, store, "out"), "result\n");
  },
);

Deno.test("exit codes are those of a shell: 126 for not executable, 127 for not found, 128+n for a signal", async () => {
  using scratch = scratchFolder();
  const store: TestStore = {
    args: ["--directory", `${scratch.path}/store`],
    env: {},
    config: {},
  };
  Deno.writeTextFileSync(`${scratch.path}/plain`, "not a program", {
    mode: 0o644,
  });
  const cases: [string[], number][] = [
    [["/no/such/program"], 127],
    [[`${scratch.path}/plain`], 126],
    [["sh", "-c", "kill -9 $$"], 137],
    [["true"], 0],
  ];
  for (const [program, wanted] of cases) {
    await using manager = start(scratch.path, store, program);
    assert.equal(
      await manager.exit(),
      wanted,
      `${program.join(" ")}\n${manager.tail()}`,
    );
  }
});

Deno.test("a last checkpoint that cannot be shipped ends with 74, says so, and loses nothing local", async () => {
  using scratch = scratchFolder();
  const path = `${scratch.path}/store`;
  const store: TestStore = { args: ["--directory", path], env: {}, config: {} };
  const script = `echo precious > ${scratch.path}/files/data; sleep 100000`;
  await using manager = start(scratch.path, store, ["sh", "-c", script]);
  await manager.state("running");
  await waitFor(
    "the program to write",
    () => Deno.statSync(`${scratch.path}/files/data`).isFile,
  );
  Deno.renameSync(path, `${path}-away`); // the disk of the store is gone
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(), 74, manager.tail());
  assert.match(manager.stderr, /NOT in the bucket/);
  assert.equal(
    Deno.readTextFileSync(`${scratch.path}/files/data`),
    "precious\n",
  );
  assert.equal(
    JSON.parse(Deno.readTextFileSync(`${scratch.path}/data/exit.json`)).code,
    "state-not-saved",
  );
});

Deno.test(
  "SIGTERM while waiting for the lease ends within 2 s and starts nothing",
  () => unlessStalled(stopWhileWaiting),
);

async function stopWhileWaiting(root: string): Promise<void> {
  const store: TestStore = {
    args: ["--directory", `${root}/store`],
    env: {},
    config: {},
  };
  await using holder = start(`${root}/a`, store, ["sleep", "100000"]);
  await holder.state("running");
  await using waiter = start(
    `${root}/b`,
    store,
    ["sh", "-c", `touch ${root}/started`],
    "--shutdown-budget",
    "100s",
  );
  await waiter.state("waiting");
  const begin = performance.now();
  waiter.signal("SIGTERM");
  assert.equal(await waiter.exit(), 143, waiter.tail());
  assert.ok(performance.now() - begin < 2000);
  assert.throws(() => Deno.statSync(`${root}/started`));
}
