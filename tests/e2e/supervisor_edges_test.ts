/** restart_with on the program as it ships: a person's restart and stop, and the crash of what others depend on. */

import assert from "node:assert/strict";
import { FaultScene } from "../support/fault_scene.ts";
import { type Json, waitFor } from "../support/manager_process.ts";
import { PLAIN } from "../support/surroundings.ts";

const says = (name: string) =>
  `trap 'echo ${name}-down; exit 0' TERM; echo ${name}-up; while :; do sleep 0.05; done`;

Deno.test("who restarts with another stops before and starts after it, by hand and by a crash", async () => {
  await using scene = new FaultScene(PLAIN, () => ({
    db: {
      command: says("db"),
      shell: true,
      restart_delay: "100ms",
      probes: { readiness: { log: { contains: "db-up" } } }, // so that web speaks after it
    },
    web: {
      command: says("web"),
      shell: true,
      depends_on: { db: { condition: "ready", restart_with: true } },
    },
  }));
  const { manager } = scene;
  await scene.running();
  const words = () => [...manager.stdout.matchAll(/(db|web)-(up|down)/g)].map(([word]) => word);
  const until = (...wanted: string[]) =>
    waitFor(
      wanted.join(", "),
      () => JSON.stringify(words()) === JSON.stringify(wanted),
      60_000,
      () => words().join(", ") + manager.tail(),
    );
  const post = async (path: string): Promise<Json> => {
    const answer = await manager.fetch(path, { json: {} });
    assert.equal(answer.status, 200, await answer.clone().text());
    return await answer.json();
  };
  const all = ["db-up", "web-up"];
  await until(...all);
  await post("/processes/db/restart");
  all.push("web-down", "db-down", "db-up", "web-up");
  await until(...all);
  await post("/processes/db/stop");
  all.push("web-down", "db-down");
  await until(...all);
  const [waiting] = (await scene.when("web", "waiting", ({ state }) => state === "waiting")).waiting_for;
  assert.equal(waiting.name, "db");
  await post("/processes/db/start");
  all.push("db-up", "web-up");
  await until(...all);
  const { pid } = await scene.when("db", "up", (process) => process.pid !== null);
  Deno.kill(pid, "SIGKILL");
  all.push("web-down", "db-up", "web-up");
  await until(...all);
  const { restarts, last_exit } = await manager.json("/processes/web");
  assert.deepEqual([restarts, last_exit.code], [0, 0]);
});
