/** Signals that the manager gets for a program. */

import assert from "node:assert/strict";
import { constants } from "node:os";
import { PASSABLE } from "../../src/platform/signals.ts";
import { ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";

const numberOf = (signal: typeof PASSABLE[number]) => constants.signals[signal];

/** Another one for each. */
const nextOf = (signal: typeof PASSABLE[number]) =>
  PASSABLE[(PASSABLE.indexOf(signal) + 1) % PASSABLE.length] ?? signal;

Deno.test("every signal that can be passed on reaches the program that asks for it, or as the other one that it asks for, QUIT too without a stop", async () => {
  using folder = scratchFolder();
  const echoing = (said: string) => ({
    command: `${
      PASSABLE.map((signal) => `trap 'echo ${said}-${signal}.' ${numberOf(signal)}`).join("; ")
    }; echo ${said}; while :; do sleep 0.05; done`,
    shell: true,
  });
  const config = {
    storage: { directory: `${folder.path}/store` },
    processes: {
      app: { ...echoing("got"), forward_signals: PASSABLE },
      turned: {
        ...echoing("turned"),
        forward_signals: Object.fromEntries(PASSABLE.map((signal) => [signal, nextOf(signal)])),
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
  await seen("got\n");
  await seen("turned\n");
  await manager.state("running");
  for (const signal of PASSABLE) {
    manager.signal(signal);
    await seen(`got-${signal}.`);
    await seen(`turned-${nextOf(signal)}.`);
  }
  const told = /"state: running".*"name":"other","state":"(starting|running)"/; // what SIGUSR2 asks for
  await waitFor("the state in the log", () => told.test(manager.stderr), 60_000, () => manager.tail());
  const { processes } = await manager.json("/", { headers: { accept: "application/json" } });
  assert.deepEqual(processes.map(({ restarts }: { restarts: number }) => restarts), [0, 0, 0]);
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(60_000), 0);
});

Deno.test("a signal that shutdown.signals names stops the manager in order, one that it does not changes nothing", async () => {
  using folder = scratchFolder();
  const config = {
    storage: { directory: `${folder.path}/store` },
    files: { data: { path: `${folder.path}/files` } },
    processes: {
      app: { command: "trap 'echo told; exit' TERM; echo up; while :; do sleep 0.05; done", shell: true },
    },
    shutdown: { signals: ["PWR"] },
  };
  await Deno.writeTextFile(`${folder.path}/config.json`, JSON.stringify(config));
  await using manager = new ManagerProcess({
    args: ["--config", `${folder.path}/config.json`, "--data-dir", `${folder.path}/data`],
  });
  await manager.state("running");
  await waitFor("up", () => manager.stdout.includes("up"), 60_000, () => manager.tail());
  // Those that would stop or end a program that does not take them.
  for (const signal of ["SIGPIPE", "SIGTTIN", "SIGTTOU", "SIGTSTP", "SIGWINCH"] as const) {
    manager.signal(signal);
  }
  assert.equal((await manager.state("running")).state, "running");
  assert.ok(!manager.stdout.includes("told"));
  manager.signal("SIGPWR");
  assert.equal(await manager.exit(60_000), 0);
  assert.match(manager.stdout, /told/);
  assert.match(manager.stderr, /SIGPWR: stopping/);
});
