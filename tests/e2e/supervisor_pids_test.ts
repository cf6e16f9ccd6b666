/** Numbers of processes that are given away again: what the former owner was told never reaches the new one. */

import assert from "node:assert/strict";
import { FaultScene } from "../support/fault_scene.ts";
import { type Json, waitFor } from "../support/manager_process.ts";
import { SURROUNDINGS } from "../support/surroundings.ts";

const [init] = SURROUNDINGS;
assert.ok(init);
/** Somebody else may be quicker, a thread of the manager's too, which keeps the number: then its owner gets another. */
const TRIES = 20;

const ended = (command: string, change: Json = {}): Json => ({
  command: ["/bin/sh", "-c", command],
  essential: false,
  restart: "no",
  timeout_stop: "1s",
  ...change,
});

Deno.test({
  name:
    `a process that was given the number of one that ended is not signalled, killed or counted in its place ${init.needs}`,
  ignore: init.missing,
  async fn() {
    await using scene = new FaultScene(init, () => ({
      former: ended("exit 1", { restart: "always", restart_delay: "1h", restart_max_delay: "1h" }),
      stopped: ended("exec sleep 1000"),
      stranger: ended("trap 'echo hit' HUP USR1; while :; do sleep 1000 & wait $!; done"),
    }));
    await scene.running();
    const pid = await scene.managerPid();
    const ask = (path: string, json: Json = {}) => askFor(scene, path, json);
    for (const owner of ["former", "stopped"]) {
      let round = 0;
      const stranger = await waitFor(`a number of ${owner} to be given away`, async () => {
        const number = await endedNumber(scene, owner, round++);
        for (let turn = 0; turn < TRIES; turn++) {
          await ask("stranger/stop", { wait: "30s" });
          await setLast(pid, number - 1);
          await ask("stranger/start");
          const process = await scene.when("stranger", "up", ({ pid }: Json) => pid !== null);
          if (process.pid === number) return process;
        }
        return null;
      }, 120_000);
      await scene.when("stranger", "running", ({ state }: Json) => state === "running");
      for (const signal of ["SIGTERM", "SIGHUP", "SIGUSR1"]) {
        await ask(`${owner}/signal`, { signal, to: "group" });
      }
      assert.equal(await ask(`${owner}/stop`, { wait: "30s" }), 200);
      const after = await scene.when("stranger", "there", ({ state }: Json) => state === "running");
      assert.deepEqual([after.pid, after.started], [stranger.pid, stranger.started]);
      const { lines } = await scene.manager.json("/processes/stranger/logs");
      assert.deepEqual(lines, []);
    }
  },
});

async function askFor(scene: FaultScene, path: string, json: Json = {}): Promise<number> {
  const response = await scene.manager.fetch(`/processes/${path}`, { json });
  await response.body?.cancel();
  return response.status;
}

/** Number of an incarnation that has ended, by itself or since it was told to; each round another one. */
async function endedNumber(scene: FaultScene, owner: string, round: number): Promise<number> {
  if (round > 0) await askFor(scene, `${owner}/start`);
  if (owner === "former") {
    const ended = /"former: exit code 1","fields":\{"pid":(\d+)/g;
    const numbers = () => [...scene.manager.stderr.matchAll(ended)].map(([, pid]) => Number(pid));
    const number = await waitFor("its end", () => numbers()[round]);
    await scene.when(owner, "at rest", ({ state }: Json) => state === "backoff");
    return number;
  }
  const { pid } = await scene.when(owner, "up", (process: Json) => process.pid !== null);
  assert.equal(await askFor(scene, `${owner}/stop`, { wait: "30s" }), 200);
  return pid;
}

/** The next process of the namespace of `pid`, and of no other, gets the number after `last`. */
async function setLast(pid: number, last: number): Promise<void> {
  const theirs = `/proc/${pid}/ns/pid`;
  assert.notEqual(Deno.readLinkSync(theirs), Deno.readLinkSync("/proc/self/ns/pid"));
  const write = `echo ${last} > /proc/sys/kernel/ns_last_pid`;
  const { success, stderr } = await new Deno.Command("nsenter", {
    args: [`--pid=${theirs}`, "sh", "-c", write],
  }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
}
