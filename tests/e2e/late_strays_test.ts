/** A stranger with the environment of a program, below nobody of ours: a restart neither waits for it nor leaves it alive. */

import assert from "node:assert/strict";
import { FaultScene } from "../support/fault_scene.ts";
import { type Json, waitFor } from "../support/manager_process.ts";
import { PLAIN } from "../support/surroundings.ts";

const tagOf = (pid: number) =>
  /(?:^|\0)SM_UNIT=([^\0]*)/.exec(Deno.readTextFileSync(`/proc/${pid}/environ`))?.[1] ?? "";

Deno.test("a program that crashes runs again at once, and who bears its mark without being its child is killed after it", async () => {
  await using scene = new FaultScene(PLAIN, () => ({
    app: {
      command: ["/bin/sleep", "1000"],
      essential: false,
      restart: "always",
      restart_delay: "0s",
      restart_max_delay: "100ms",
    },
  }));
  await scene.running();
  const { pid } = await scene.when("app", "up", ({ state }: Json) => state === "running");
  const stranger = new Deno.Command("sleep", {
    args: ["1000"],
    env: { SM_UNIT: tagOf(pid) },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  try {
    Deno.kill(pid, "SIGKILL");
    const again = await scene.when("app", "up again", (app: Json) => app.pid !== null && app.pid !== pid);
    let end: Deno.CommandStatus | null = null;
    stranger.status.then((status) => end = status);
    const ended = await waitFor("the stranger to be killed", () => end, 60_000, () => scene.manager.tail());
    assert.equal(ended.signal, "SIGKILL");
    await waitFor(
      "the log to tell",
      () => scene.manager.stderr.includes("app had ended; killed who still bore its mark"),
      60_000,
      () => scene.manager.tail(),
    );
    assert.equal((await scene.manager.json("/processes/app")).pid, again.pid, "the next incarnation goes on");
  } finally {
    try {
      stranger.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await stranger.status;
  }
});
