/** Stop and finish commands on the program as it ships: they come before the last checkpoint, and hold nothing up. */

import assert from "node:assert/strict";
import { FaultScene } from "../support/fault_scene.ts";
import { runProgram, waitFor } from "../support/manager_process.ts";
import { PLAIN } from "../support/surroundings.ts";

const DEAF = "trap '' TERM; echo up; while :; do sleep 0.05; done";

Deno.test("TERM ends a program in its time whose stop and finish commands hang", async () => {
  await using scene = new FaultScene(PLAIN, () => ({
    hangs: { command: DEAF, shell: true, stop_command: DEAF, finish_command: DEAF },
  }));
  const { manager } = scene;
  await scene.running();
  await waitFor("it to be up", () => manager.stdout.includes("up"), 60_000, () => manager.tail());
  manager.signal("SIGTERM"); // two seconds for all of them
  assert.equal(await manager.exit(90_000), 0, manager.tail());
  const names = ["hangs", "hangs:stop-1", "hangs:finish-1"];
  await waitFor("all to be gone", () => names.every((name) => scene.alive(name) === 0));
  for (const hook of ["stop_command", "finish_command"]) {
    assert.match(manager.stderr, new RegExp(`${hook} of hangs failed.*(its time was over|left no time)`));
  }
});

Deno.test("what stop and finish commands write is in the last checkpoint", async () => {
  const processes = {
    ends: {
      command: ["sleep", "100000"],
      stop_command: 'echo "asked $MAINPID" > "$FAULT_SCENE/files/asked"',
      finish_command: 'echo "$EXIT_CODE $EXIT_STATUS $SERVICE_RESULT" > "$FAULT_SCENE/files/ended"',
    },
  };
  await using scene = new FaultScene(PLAIN, () => processes, {
    config: { shutdown: { budget: "10m", flush_reserve: "2m" } },
  });
  const { manager } = scene;
  await scene.running();
  const { pid } = await scene.when("ends", "up", ({ state }) => state === "running");
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(90_000), 0, manager.tail());
  const to = `${scene.root}/restored`;
  const restored = await runProgram(["restore", "--directory", `${scene.root}/store`, "--to", to], {});
  assert.equal(restored.code, 0, restored.stderr);
  assert.equal(await Deno.readTextFile(`${to}/app/asked`), `asked ${pid}\n`);
  assert.equal(await Deno.readTextFile(`${to}/app/ended`), "killed TERM success\n");
});
