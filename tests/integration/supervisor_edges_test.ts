/** depends_on with restart_with, on real processes: who stops before whom, and starts after it. */

import assert from "node:assert/strict";
import type { ProcessSpec } from "../../src/supervisor/mod.ts";
import { shellSpec } from "../support/process_specs.ts";
import { Supervised, until } from "../support/supervised.ts";

/** Ends by TERM, a moment later; by USR1 with a failure, by USR2 with success. */
const PROGRAM = "trap 'sleep 0.1; echo down; exit 0' TERM; trap 'exit 3' USR1; trap 'exit 0' USR2; " +
  "echo up; while :; do sleep 0.02; done";
const program = (name: string, change: Partial<ProcessSpec> = {}) =>
  shellSpec(name, PROGRAM, { essential: false, restart: "always", timeoutStopMs: 120_000, ...change });
const on = (...names: string[]): Partial<ProcessSpec> => ({
  dependsOn: Object.fromEntries(names.map((name) => [name, "started"])),
  restartWith: names,
});

/** db, web on it, edge on web, and one that depends on db in the plain way. */
async function chain(change: Partial<ProcessSpec> = {}): Promise<Supervised> {
  const all = new Supervised(
    program("edge", on("web")),
    program("web", on("db")),
    program("db", change),
    program("plain", { dependsOn: { db: "started" } }),
  ).start();
  await ups(all, { edge: 1, web: 1, db: 1, plain: 1 });
  return all;
}

/** Waits until each has said so often that it is up, and runs. */
async function ups(all: Supervised, wanted: Readonly<Record<string, number>>): Promise<void> {
  const said = (name: string) => all.lines(name).filter((line) => line === "up").length;
  await until(
    () =>
      Object.entries(wanted).every(([name, count]) =>
        said(name) === count && ["starting", "running"].includes(all.status(name).state)
      ),
    `up so often: ${JSON.stringify(wanted)}`,
  );
}

/** Starts and ends of these in order, since the n-th of all. */
function history(all: Supervised, names: readonly string[], since = 0): string[] {
  return all.events.slice(since).flatMap((event) =>
    (event.type === "started" || event.type === "exited") && names.includes(event.name)
      ? [`${event.name} ${event.type}`]
      : []
  );
}

const TREE = ["edge", "web", "db"];
const RESTARTED = ["edge exited", "web exited", "db exited", "db started", "web started", "edge started"];

Deno.test("a restart that is asked for stops dependents before and starts them after, through chains, and spares others", async () => {
  await using all = await chain();
  let since = all.events.length;
  all.supervisor.restartProcess("db");
  assert.match(all.status("db").reason ?? "", /^ends when these have: web$/);
  assert.equal(all.status("db").state === "running" || all.status("db").state === "starting", true);
  await all.supervisor.restarted("db");
  await ups(all, { edge: 2, web: 2, db: 2, plain: 1 });
  assert.deepEqual(history(all, TREE, since), RESTARTED);

  since = all.events.length;
  const changed = [
    program("edge", on("web")),
    program("web", on("db")),
    program("db", { ownEnv: { NEW: "1" } }),
    program("plain", { dependsOn: { db: "started" } }),
  ];
  assert.deepEqual(all.supervisor.redefine(changed, { restart: true }), ["db"]);
  await ups(all, { edge: 3, web: 3, db: 3, plain: 1 });
  assert.deepEqual(history(all, TREE, since), RESTARTED);
  assert.deepEqual(TREE.map((name) => all.status(name).restarts), [0, 0, 0]);
});

Deno.test("a crash stops dependents, which start again after the restart, and is no failure of theirs", async () => {
  await using all = await chain({ restartDelayMs: 100 });
  const since = all.events.length;
  all.supervisor.signalProcess("db", "SIGUSR1");
  await ups(all, { edge: 2, web: 2, db: 2, plain: 1 });
  const told = history(all, TREE, since);
  assert.equal(told[0], "db exited");
  assert.ok(told.indexOf("edge exited") < told.indexOf("web exited"), told.join(", "));
  assert.ok(told.indexOf("web exited") < told.indexOf("db started"), told.join(", "));
  assert.deepEqual(told.slice(-3), ["db started", "web started", "edge started"]);
  assert.deepEqual(TREE.map((name) => all.status(name).restarts), [0, 0, 1]);
  const exits = all.events.slice(since).filter((event) => event.type === "exited" && event.name !== "db");
  assert.ok(exits.every((event) => event.type === "exited" && event.requested), JSON.stringify(exits));
});

Deno.test("a program with no restart delay waits for its dependents to be down", async () => {
  await using all = await chain({ restartDelayMs: 0 });
  await until(() => (all.status("db").uptimeMs ?? 0) > 1_000, "it to be restarted at once when it ends");
  const since = all.events.length;
  all.supervisor.signalProcess("db", "SIGUSR1");
  await ups(all, { edge: 2, web: 2, db: 2, plain: 1 });
  assert.deepEqual(history(all, TREE, since), [
    "db exited",
    "edge exited",
    "web exited",
    "db started",
    "web started",
    "edge started",
  ]);
});

Deno.test("a person's stop stops dependents first; they wait, and one that a person stopped stays stopped", async () => {
  await using all = await chain();
  await all.supervisor.stopProcess("edge");
  const since = all.events.length;
  await all.supervisor.stopProcess("db");
  assert.deepEqual(history(all, TREE, since), ["web exited", "db exited"]);
  const { state, stoppedByRequest, waitingFor } = all.status("web");
  assert.deepEqual([state, stoppedByRequest, waitingFor[0]?.name], ["waiting", false, "db"]);
  all.supervisor.startProcess("db");
  await ups(all, { web: 2, db: 2, plain: 1 });
  assert.equal(all.status("edge").state, "stopped");
  // A start takes back a stop that waits for others.
  const stopped = all.supervisor.stopProcess("db", { waitMs: 0 });
  all.supervisor.startProcess("db");
  await stopped;
  await ups(all, { web: 3, db: 2, plain: 1 });
});

Deno.test("dependents of one that fails for good are skipped, and start with it again; one that completes is not missed", async () => {
  await using all = await chain({
    restart: "on-failure",
    startLimit: { burst: 1, intervalMs: 60_000, rearmMs: null },
  });
  all.supervisor.signalProcess("db", "SIGUSR1");
  await all.untilState("db", "failed");
  await all.untilState("web", "skipped");
  await all.untilState("edge", "skipped");
  assert.equal(all.status("web").reason, "db is failed, started was wanted");
  all.supervisor.startProcess("db");
  await ups(all, { edge: 2, web: 2, db: 2, plain: 1 });
  all.supervisor.signalProcess("db", "SIGUSR2");
  await all.untilState("db", "completed");
  await ups(all, { edge: 2, web: 2, plain: 1 });
  all.supervisor.startProcess("db");
  await ups(all, { edge: 3, web: 3, db: 3, plain: 1 });
});

Deno.test("while all stands still no dependent is told, and the end of all is in levels as ever", async () => {
  await using all = await chain({ restartDelayMs: 0 });
  const { pid } = all.status("db");
  assert.ok(pid);
  all.supervisor.freeze("checkpoint");
  Deno.kill(pid, "SIGKILL");
  await until(() => all.status("db").pid === null, "it is dead, which was seen");
  assert.deepEqual(["starting", "running"].includes(all.status("web").state), true);
  all.supervisor.thaw("checkpoint");
  await ups(all, { edge: 2, web: 2, db: 2, plain: 1 });
  const since = all.events.length;
  all.supervisor.restartProcess("db");
  await all.stop(60_000);
  assert.deepEqual(history(all, TREE, since), ["edge exited", "web exited", "db exited"]);
});
