/**
 * Every fault of a program, each as process 1 of a container, below tini, without rights and on a read-only root: one
 * manager carries all of them at once. docs/architecture.md names the test of each fault.
 */

import assert from "node:assert/strict";
import { failingPrograms, type FaultyProgram, stubbornPrograms } from "../support/faulty_programs.ts";
import { descendants, type Json, waitFor } from "../support/manager_process.ts";
import { FaultScene } from "../support/fault_scene.ts";
import { SURROUNDINGS } from "../support/surroundings.ts";

const isUp = (process: Json) => ["starting", "running"].includes(process.state) && process.pid !== null;

/** All is there: the programs, those of their processes that are to live, and none of those that are not. */
async function comeUp(scene: FaultScene, programs: Record<string, FaultyProgram>): Promise<void> {
  await waitFor(
    "all to come up",
    async () => {
      const processes = await scene.processes();
      return Object.entries(programs).every(([name, { alive }]) =>
        alive === 0 || (isUp(processes[name]) && scene.alive(name) === alive)
      );
    },
    60_000,
    () =>
      Object.entries(programs).map(([name, { alive }]) => `${name}: ${scene.alive(name)} of ${alive}`)
        .join("\n"),
  );
}

async function failsAsItShould(scene: FaultScene): Promise<void> {
  const failed = async (name: string) =>
    await scene.when(name, "failed", ({ state }: Json) => state === "failed");
  const missing = await failed("no-file");
  assert.deepEqual([missing.last_exit.kind, missing.last_exit.code, missing.restarts], [
    "spawn-error",
    127,
    0,
  ]);
  const noRight = await failed("no-right");
  assert.deepEqual([noRight.last_exit.kind, noRight.last_exit.code, noRight.restarts], [
    "spawn-error",
    126,
    0,
  ]);
  const loop = await failed("crash-loop");
  assert.deepEqual([loop.last_exit.code, loop.restarts], [3, 4]);
  assert.match(loop.reason, /failed 5 times within 60 s/);
  const killed = await failed("killed-loop");
  assert.deepEqual([killed.last_exit.kind, killed.last_exit.signal, killed.restarts], [
    "signal",
    "SIGKILL",
    4,
  ]);
}

/** A program that is being written is tried until it is whole. */
async function startsWhenWritten(scene: FaultScene): Promise<void> {
  const busy = await scene.when("busy", "being tried again", ({ restarts }: Json) => restarts >= 2);
  assert.match(busy.last_exit.error, /busy/i);
  scene.endWriting();
  await scene.when("busy", "running", isUp);
}

/** What a follower that does not read makes of it: nothing, neither for the program nor for others. */
async function followsSlowly(scene: FaultScene): Promise<Disposable> {
  const abort = new AbortController();
  const follow = async () =>
    await scene.manager.fetch("/processes/slow-follower/logs?follow=true", {
      signal: abort.signal,
      headers: { accept: "text/plain" },
    });
  const asleep = await follow();
  assert.equal(asleep.status, 200);
  const awake = await follow();
  let bytes = 0;
  for await (const chunk of awake.body ?? []) {
    bytes += chunk.length;
    if (bytes > 8 << 20) break; // more than the sleeper's socket and queue hold
  }
  return { [Symbol.dispose]: () => abort.abort() };
}

/** All at once. Each ends by its own deadline, with its own cause, and leaves nothing. */
async function stopAll(scene: FaultScene, programs: Record<string, FaultyProgram>): Promise<void> {
  const names = Object.keys(programs);
  await Promise.all(names.map(async (name) => {
    const view = await scene.manager.json(`/processes/${name}/stop`, { json: { wait: "60s" } });
    assert.equal(view.state, "stopped", `${name}: ${JSON.stringify(view)}`);
    assert.equal(view.stop, null, name);
    const { kind, code, signal } = view.last_exit;
    const { stopped } = programs[name] ?? {};
    // A leader that was asked to end within its first instruction has not yet said what it does then.
    const ends = name === "always-ending" && kind === "signal"
      ? { kind: "exit", code: 0 }
      : { kind, code, signal };
    assert.deepEqual(ends, { code: undefined, signal: undefined, ...stopped }, name);
  }));
  assert.deepEqual(names.filter((name) => scene.alive(name) > 0), [], "left behind");
}

/** Neither a program nor a rule is another than before. */
async function refusesBrokenFile(scene: FaultScene, pid: number): Promise<void> {
  const pids = async () =>
    Object.entries(await scene.processes()).filter(([name]) => name !== "always-ending")
      .map(([name, process]) => `${name} ${process.pid}`).join("\n");
  const before = await pids();
  scene.breakConfig();
  scene.signal(pid, "SIGHUP");
  await waitFor(
    "the log to tell",
    () => scene.manager.stderr.includes("not reloaded, everything stays as it is"),
    60_000,
    () => scene.manager.tail(),
  );
  assert.equal(await pids(), before);
}

for (const surroundings of SURROUNDINGS) {
  Deno.test({
    name:
      `${surroundings.name}: every faulty program ends as it should, and nothing of it is left ${surroundings.needs}`,
    ignore: surroundings.missing,
    async fn() {
      const programs = stubbornPrograms();
      await using scene = new FaultScene(surroundings, ({ plain, busy }) => ({
        ...Object.fromEntries(Object.entries(programs).map(([name, { config }]) => [name, config])),
        ...failingPrograms(plain, busy),
      }));
      await scene.running();
      const pid = await scene.managerPid();
      await scene.when("hanging-probe", "probed", ({ probe_failure }: Json) => probe_failure !== null);
      await scene.when("telling", "ready", ({ ready, restarts }: Json) => ready && restarts === 0);
      await failsAsItShould(scene);
      await startsWhenWritten(scene);
      {
        using _sleeper = await followsSlowly(scene);
        await comeUp(scene, programs);
      }
      await refusesBrokenFile(scene, pid);
      await stopAll(scene, programs);
      await waitFor(
        "every zombie to be reaped",
        () => descendants(pid).every((each) => scene.stateOf(each) !== "Z"),
        60_000,
        () => descendants(pid).map((each) => `${each} ${scene.stateOf(each)}`).join("\n"),
      );
      // What was stopped is started anew as if nothing had been.
      for (const name of ["deaf-leader", "escapee", "suspended"]) {
        await scene.manager.json(`/processes/${name}/start`, { json: {} });
        await scene.when(name, "running again", isUp);
      }
      scene.stop(pid);
      assert.equal(await scene.manager.exit(90_000), 0, scene.manager.tail());
    },
  });
}
