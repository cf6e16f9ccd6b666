/** The program as it ships: several `POST /config` at the same time, and what is told of the lease before and after. */

import assert from "node:assert/strict";
import { type Json, ManagerProcess, scratchFolder } from "../support/manager_process.ts";

Deno.test("of configurations at the same time one is taken, and answers with the state that follows", async () => {
  using scratch = scratchFolder();
  await using manager = new ManagerProcess({ args: ["--data-dir", `${scratch.path}/data`] });
  await manager.state("unconfigured");
  assert.equal(await manager.statusOf("/lease"), 404);
  const configuration = {
    storage: { directory: `${scratch.path}/store` },
    processes: { web: { command: ["sleep", "100000"] } },
  };
  const configure = async (): Promise<[number, Json]> => {
    const response = await manager.fetch("/config", { json: configuration });
    return [response.status, await response.json()];
  };
  const answers = await Promise.all([configure(), configure(), configure(), configure()]);
  const taken = answers.filter(([status]) => status === 201);
  assert.deepEqual(taken.map(([, { state, reason }]) => [state, reason]), [["waiting", null]]);
  for (const [status, { code }] of answers.filter(([status]) => status !== 201)) {
    assert.equal(status, 409);
    assert.ok(code === "busy" || code === "already-configured", code);
  }
  await manager.state("running");
  const [status, { code }] = await configure();
  assert.deepEqual([status, code], [409, "already-configured"]);

  await manager.json("/release-lease", { json: {} });
  await manager.state("released");
  const lease = await manager.json("/lease");
  assert.deepEqual([lease.state, lease.token, lease.remaining_seconds], ["released", null, null]);
});
