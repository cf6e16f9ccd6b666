/** Single processes under a person's hand, with real ones: start, stop, restart, signal, new definitions. */

import assert from "node:assert/strict";
import { readWaitChannel } from "../../src/platform/proc.ts";
import { isError } from "../../src/platform/errors.ts";
import { processSpec, shellSpec } from "../support/process_specs.ts";
import { Supervised, until } from "../support/supervised.ts";

const SLEEP = ["sleep", "100000"];
const sleeper = (name: string, change = {}) =>
  processSpec({ name, command: SLEEP, essential: false, ...change });

const isWrongState = (error: unknown) => isError(error, "wrong-state") && error.hint !== undefined;

Deno.test("a process that a person stopped stays down, ends nothing, and starts again when asked", async () => {
  await using all = new Supervised(sleeper("web", { restart: "always", essential: true }));
  let over = false;
  all.supervisor.outcome.then(() => over = true);
  all.start();
  await all.untilState("web", "running");
  await all.supervisor.stopProcess("web");
  assert.deepEqual(all.alive("web"), []);
  const { state, wanted, stoppedByRequest, stop } = all.status("web");
  assert.deepEqual({ state, wanted, stoppedByRequest, stop }, {
    state: "stopped",
    wanted: "down",
    stoppedByRequest: true,
    stop: null,
  });
  await all.supervisor.stopProcess("web"); // again: nothing to do
  assert.equal(over, false);
  all.supervisor.startProcess("web");
  all.supervisor.startProcess("web");
  await all.untilState("web", "running");
  assert.equal(all.status("web").stoppedByRequest, false);
  assert.equal(all.names("started").length, 2);
});

Deno.test("one that a person stopped is left down by the next supervisor, and its dependents wait for it", async () => {
  const heldDown = new Set(["db"]);
  await using all = new Supervised(
    { heldDown },
    sleeper("db"),
    sleeper("web", { dependsOn: { db: "started" } }),
  );
  all.start();
  assert.equal(all.status("db").state, "stopped");
  assert.deepEqual(all.status("web").state, "waiting");
  assert.equal(all.status("web").waitingFor[0]?.name, "db");
  all.supervisor.startProcess("db");
  await all.untilState("web", "running");
  assert.deepEqual(all.status("web").waitingFor, []);
  assert.equal(heldDown.size, 0);
});

Deno.test("a stop answers at its deadline with who is in the way, and goes on", async () => {
  const script = 'trap "" TERM; echo ready; while :; do sleep 1; done';
  await using all = new Supervised(shellSpec("web", script, { timeoutStopMs: 60_000 })).start();
  await all.untilLine("web", "ready");
  const { pid } = all.status("web");
  await all.supervisor.stopProcess("web", { waitMs: 50 });
  const { state, stop } = all.status("web");
  assert.equal(state, "stopping");
  const leader = stop?.blockers.find((blocker) => blocker.pid === pid);
  assert.ok(leader, JSON.stringify(stop));
  assert.match(leader.state, /^[A-Z]$/);
  // Where the kernel tells what it waits in: not everywhere.
  const says = () => all.status("web").stop?.blockers.some(({ wchan }) => wchan !== null);
  await until(() => readWaitChannel(pid ?? 0) === null || says() === true, "what they wait in");
  const killInMs = (stop?.killMs ?? 0) - Date.now();
  assert.ok(killInMs > 30_000 && killInMs <= 60_000, `${killInMs}`);
  await until(() => all.names("blocked").includes("web"), "the log to hear of it");
  all.supervisor.signalProcess("web", "SIGKILL", "group");
  await all.supervisor.stopProcess("web");
  assert.deepEqual(all.alive("web"), []);
});

Deno.test("a restart never has two incarnations: what is left of the old one is waited for", async () => {
  const script = 'trap "sleep 0.2" TERM; sh -c \'trap "" TERM; sleep 0.3\' & echo up $$; wait; wait; exit 0';
  await using all = new Supervised(shellSpec("web", script, { restart: "always" })).start();
  for (let round = 0; round < 3; round++) {
    const before = all.status("web").pid;
    await until(() => all.lines("web").includes(`up ${before}`), "it is up");
    all.supervisor.restartProcess("web");
    const seen = new Set<number>();
    const look = setInterval(() => {
      for (const info of all.alive("web")) seen.add(info.groupId);
      const groups = new Set(all.alive("web").map((info) => info.groupId));
      assert.ok(groups.size <= 1, `${[...groups]}`);
    }, 10);
    try {
      await all.supervisor.restarted("web");
      await until(() => all.status("web").pid !== null && all.status("web").pid !== before, "the new one");
    } finally {
      clearInterval(look);
    }
  }
  assert.equal(all.status("web").restarts, 0, "what is asked for is no restart by policy");
});

Deno.test("a signal goes to the leader or to all, by its name or as the reload signal", async () => {
  const script =
    'trap "echo leader" HUP; sh -c \'trap "echo child" HUP; echo ready; while :; do sleep 0.02; done\' &' +
    " while :; do sleep 0.02; done";
  await using all = new Supervised(shellSpec("web", script, { reloadSignal: "SIGHUP" }), sleeper("idle"))
    .start();
  await all.untilLine("web", "ready");
  all.supervisor.signalProcess("web", null);
  await all.untilLine("web", "leader");
  assert.ok(!all.lines("web").includes("child"));
  all.supervisor.signalProcess("web", "SIGHUP", "group");
  await all.untilLine("web", "child");
  assert.throws(
    () => all.supervisor.signalProcess("idle", null),
    (error) => isError(error, "invalid-request"),
  );
  assert.throws(() => all.supervisor.signalProcess("none", "SIGHUP"), (error) => isError(error, "not-found"));
  await all.supervisor.stopProcess("web");
  assert.throws(
    () => all.supervisor.signalProcess("web", "SIGHUP"),
    isWrongState,
  );
});

Deno.test("while frozen nothing is stopped, restarted or signalled; while stopping nothing is started", async () => {
  await using all = new Supervised(sleeper("web")).start();
  await all.untilState("web", "running");
  all.supervisor.freeze("checkpoint");
  const busy = (error: unknown) => isError(error, "busy");
  await assert.rejects(all.supervisor.stopProcess("web"), busy);
  assert.throws(() => all.supervisor.restartProcess("web"), busy);
  assert.throws(() => all.supervisor.signalProcess("web", "SIGCONT"), busy);
  assert.throws(() => all.supervisor.redefine([], { restart: false }), busy);
  assert.equal(all.status("web").stoppedByRequest, false, "what is refused leaves no trace");
  all.supervisor.thaw("checkpoint");
  await all.stop(5_000);
  assert.throws(() => all.supervisor.startProcess("web"), isWrongState);
});

Deno.test("one-shots: completed and succeeded let others start, a failed one is skipped until it was started anew", async () => {
  const marker = Deno.makeTempFileSync();
  try {
    await using all = new Supervised(
      shellSpec("migrate", `test -s ${marker}`, {
        essential: false,
        restart: "on-failure",
        noRestartOn: [1],
      }),
      sleeper("web", { dependsOn: { migrate: "succeeded" } }),
      sleeper("after", { dependsOn: { web: "started" } }),
      sleeper("any", { dependsOn: { migrate: "completed" } }),
    ).start();
    await all.untilState("any", "running");
    assert.equal(all.status("migrate").state, "failed");
    assert.equal(all.status("web").state, "skipped");
    await all.untilState("after", "skipped");
    Deno.writeTextFileSync(marker, "done");
    all.supervisor.startProcess("migrate");
    await all.untilState("after", "running");
    assert.equal(all.status("migrate").state, "completed");
    assert.equal(all.status("web").state, "running");
  } finally {
    Deno.removeSync(marker);
  }
});

Deno.test("new definitions: rules count at once, commands from the next start on, the rest is started or stopped", async () => {
  const before = [sleeper("web"), sleeper("old"), sleeper("same"), sleeper("down")];
  await using all = new Supervised(...before).start();
  for (const name of ["web", "old", "same", "down"]) await all.untilState(name, "running");
  await all.supervisor.stopProcess("down");
  const pids = () => Object.fromEntries(all.supervisor.status().map(({ name, pid }) => [name, pid]));
  const first = pids();
  const after = [
    sleeper("web", { command: ["sleep", "200000"], timeoutStopMs: 1234 }),
    sleeper("same"),
    sleeper("down", { command: ["sleep", "200000"] }),
    sleeper("new", { dependsOn: { web: "started" } }),
  ];
  assert.deepEqual(all.supervisor.redefine(after, { restart: false }), []);
  await all.untilState("new", "running");
  await until(() => all.alive("old").length === 0, "old to end");
  await until(() => all.supervisor.status().length === 4, "old to be forgotten");
  assert.equal(pids()["web"], first["web"], "not restarted unasked");
  assert.deepEqual(all.status("web").changed, ["command"]);
  assert.deepEqual(all.status("same").changed, []);
  // Asked for now, though the definition is the same as the last time.
  assert.deepEqual(all.supervisor.redefine(after, { restart: true }), ["web"]);
  await until(() => pids()["web"] !== first["web"] && all.status("web").state === "running", "web anew");
  assert.deepEqual(all.status("web").changed, []);
  assert.equal(pids()["same"], first["same"]);
  assert.equal(all.status("down").state, "stopped", "what a person stopped stays down");
  // Back to what it was spawned by: nothing to restart for.
  all.supervisor.redefine([sleeper("web", { cwd: "/" }), ...after.slice(1)], { restart: false });
  assert.deepEqual(all.status("web").changed, ["command", "cwd"]);
  all.supervisor.redefine(after, { restart: false });
  assert.deepEqual(all.status("web").changed, []);
  await all.stop(5_000);
  for (const name of ["web", "same", "new"]) assert.deepEqual(all.alive(name), []);
});

Deno.test("one that is taken away and given back while it ends is one process, never two", async () => {
  const script = 'trap "sleep 0.3; exit 0" TERM; echo up; while :; do sleep 0.02; done';
  const web = shellSpec("web", script, { restart: "always", essential: false });
  await using all = new Supervised(web, sleeper("other")).start();
  await all.untilLine("web", "up");
  const { pid } = all.status("web");
  all.supervisor.redefine([sleeper("other")], { restart: false });
  assert.equal(all.status("web").state, "stopping");
  assert.throws(() => all.supervisor.startProcess("web"), isWrongState);
  all.supervisor.redefine([web, sleeper("other")], { restart: false });
  assert.equal(all.status("web").pid, pid, "the old one still ends");
  await until(() => all.status("web").pid !== pid && all.status("web").pid !== null, "the new one");
  // It is looked for in /proc, where one that was spawned a moment ago need not bear its tag yet.
  const groups = () => new Set(all.alive("web").map((info) => info.groupId)).size;
  await until(() => groups() > 0, "the new one in /proc");
  assert.equal(groups(), 1);
});

Deno.test("definitions that cannot be are refused before anything changes; waiting ones may be taken away", async () => {
  await using all = new Supervised(
    sleeper("web", { dependsOn: { never: "ready" } }),
    sleeper("more", { dependsOn: { never: "ready" } }),
    sleeper("never", { dependsOn: { gate: "completed" } }),
    sleeper("gate"),
  ).start();
  await all.untilState("gate", "running");
  const circle = [
    sleeper("gate", { dependsOn: { web: "started" } }),
    sleeper("web", { dependsOn: { gate: "started" } }),
  ];
  assert.throws(
    () => all.supervisor.redefine(circle, { restart: true }),
    (error) => isError(error, "config-invalid"),
  );
  assert.equal(all.supervisor.status().length, 4);
  // All three wait: none of them may slip through and start on its way out.
  all.supervisor.redefine([sleeper("gate")], { restart: true });
  assert.deepEqual(all.supervisor.status().map(({ name }) => name), ["gate"]);
  assert.deepEqual(all.names("started"), ["gate"]);
});
