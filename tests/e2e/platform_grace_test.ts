/** The program as it ships says, when it starts, that its platform would kill it before it is done. */

import assert from "node:assert/strict";
import { ManagerProcess, runProgram, scratchFolder, waitFor } from "../support/manager_process.ts";

Deno.test("a start on a platform that waits less than the budget is warned of, and not where the operator says how long it waits", async () => {
  using folder = scratchFolder();
  const path = `${folder.path}/config.json`;
  const config = {
    storage: { directory: `${folder.path}/store` },
    processes: { app: { command: ["true"] } },
  };
  await Deno.writeTextFile(path, JSON.stringify({ ...config, shutdown: { budget: "20s" } }));
  const env = { FLY_APP_NAME: "web" };
  const warning =
    /shutdown\.budget 20s is more than the 5s that Fly waits by default.*kill_timeout in fly\.toml/;
  await using manager = new ManagerProcess({
    args: ["--config", path, "--data-dir", `${folder.path}/data`],
    env,
  });
  await waitFor("the warning", () => warning.test(manager.stderr), 60_000, () => manager.tail());
  const check = async () => {
    const { code, stdout, stderr } = await runProgram(["config", "check", path], { env });
    assert.equal(code, 0, stderr);
    return stdout + stderr;
  };
  assert.match(await check(), warning);
  await Deno.writeTextFile(
    path,
    JSON.stringify({ ...config, shutdown: { budget: "20s", platform_grace: "30s" } }),
  );
  assert.doesNotMatch(await check(), /budget/);
});
