/** What is in the store, by a manager that runs and without one. */

import assert from "node:assert/strict";
import { ManagerProcess, runProgram, scratchFolder } from "../support/manager_process.ts";

Deno.test("storage show tells what is in the store, with the manager and without it", async () => {
  using scratch = scratchFolder();
  const [store, data] = [`${scratch.path}/store`, `${scratch.path}/data`];
  await Deno.mkdir(`${scratch.path}/files`);
  await Deno.writeTextFile(`${scratch.path}/files/one`, "content");
  const stored = {
    storage: { directory: store },
    checkpoint: { interval: "24h" },
    files: { app: { path: `${scratch.path}/files` } },
    processes: { web: { command: ["sleep", "1000"] } },
  };
  const config = `${scratch.path}/config.json`;
  await Deno.writeTextFile(config, JSON.stringify(stored), { mode: 0o600 });
  await using manager = new ManagerProcess({ args: ["--config", config, "--data-dir", data] });
  await manager.state("running");
  await manager.checkpoint();
  const shown = async (...more: string[]) => {
    const { code, stdout, stderr } = await runProgram(["storage", "show", "--data-dir", data, ...more]);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  const told = JSON.parse(await shown("--json", "--refresh"));
  assert.ok(told.kinds.packs.objects >= 1);
  assert.equal(told.kinds.repository.objects, 3);
  assert.equal(told.kinds.other.objects, 0);
  assert.deepEqual((await manager.json("/storage")).time, told.time);
  assert.match(await shown(), /^WHAT +OBJECTS +BYTES\npacks +[1-9]/);
  manager.signal("SIGTERM");
  await manager.exit();
  const alone = JSON.parse(await shown("--json", "--config", config));
  assert.deepEqual(alone.kinds.packs, told.kinds.packs);
  assert.equal(alone.growth, null);
});
