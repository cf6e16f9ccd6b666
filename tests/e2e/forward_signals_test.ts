/** Signals that the manager gets for a program. */

import assert from "node:assert/strict";
import { constants } from "node:os";
import { PASSABLE } from "../../src/platform/signals.ts";
import { ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";

const numberOf = (signal: typeof PASSABLE[number]) => constants.signals[signal];

Deno.test("every signal that can be passed on reaches the program that asks for it, QUIT too without a stop", async () => {
  using folder = scratchFolder();
  const traps = PASSABLE.map((signal) => `trap 'echo got-${signal}' ${numberOf(signal)}`).join("; ");
  const config = {
    storage: { directory: `${folder.path}/store` },
    processes: {
      app: {
        command: `${traps}; echo up; while :; do sleep 0.05; done`,
        shell: true,
        forward_signals: PASSABLE,
      },
      other: { command: ["sleep", "1000"] }, // which each of them would end
    },
  };
  await Deno.writeTextFile(`${folder.path}/config.json`, JSON.stringify(config));
  await using manager = new ManagerProcess({
    args: ["--config", `${folder.path}/config.json`, "--data-dir", `${folder.path}/data`],
  });
  const seen = (text: string) =>
    waitFor(text, () => manager.stdout.includes(text), 60_000, () => manager.tail());
  await seen("up");
  await manager.state("running");
  for (const signal of PASSABLE) {
    manager.signal(signal);
    await seen(`got-${signal}`);
  }
  const told = /"state: running".*"name":"other","state":"(starting|running)"/; // what SIGUSR2 asks for
  await waitFor("the state in the log", () => told.test(manager.stderr), 60_000, () => manager.tail());
  const { processes } = await manager.json("/", { headers: { accept: "application/json" } });
  assert.deepEqual(processes.map(({ restarts }: { restarts: number }) => restarts), [0, 0]);
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(60_000), 0);
});
