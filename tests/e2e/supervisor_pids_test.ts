/** Numbers of processes that are given away again: what the former owner was told never reaches the new one. */

import assert from "node:assert/strict";
import { FaultScene } from "../support/fault_scene.ts";
import { type Json, waitFor } from "../support/manager_process.ts";
import { SURROUNDINGS } from "../support/surroundings.ts";

const [init] = SURROUNDINGS;
assert.ok(init);
/** A namespace that is made ready for the next number only gives it when nobody else is quicker. */
const TRIES = 50;

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
    const ask = async (path: string, json: Json = {}) => {
      const response = await scene.manager.fetch(`/processes/${path}`, { json });
      await response.body?.cancel();
      return response.status;
    };
    for (const owner of ["former", "stopped"]) {
      const number = await waitFor("its number", async () => {
        const text = await new Response((await scene.manager.fetch("/processes")).body).text();
        if (owner === "stopped") {
          return (JSON.parse(text).processes as Json[]).find(({ name }) => name === owner)?.pid;
        }
        return Number(/"former: exit code 1","fields":\{"pid":(\d+)/.exec(scene.manager.stderr)?.[1]);
      });
      if (owner === "stopped") assert.equal(await ask("stopped/stop", { wait: "10s" }), 200);
      const stranger = await waitFor(`number ${number} to be given away`, async () => {
        for (let turn = 0; turn < TRIES; turn++) {
          await ask("stranger/stop", { wait: "10s" });
          await setLast(pid, number - 1);
          await ask("stranger/start");
          const process = await scene.when("stranger", "up", ({ pid }: Json) => pid !== null);
          if (process.pid === number) return process;
        }
        return null;
      });
      await scene.when("stranger", "running", ({ state }: Json) => state === "running");
      for (const signal of ["SIGTERM", "SIGHUP", "SIGUSR1"]) {
        await ask(`${owner}/signal`, { signal, to: "group" });
      }
      assert.equal(await ask(`${owner}/stop`, { wait: "10s" }), 200);
      const after = await scene.when("stranger", "there", ({ state }: Json) => state === "running");
      assert.deepEqual([after.pid, after.started], [stranger.pid, stranger.started]);
      const { lines } = await scene.manager.json("/processes/stranger/logs");
      assert.deepEqual(lines, []);
    }
  },
});

/** The next process of the namespace of `pid` gets the number after `last`. */
async function setLast(pid: number, last: number): Promise<void> {
  const write = `echo ${last} > /proc/sys/kernel/ns_last_pid`;
  const { success, stderr } = await new Deno.Command("nsenter", {
    args: [`--pid=/proc/${pid}/ns/pid`, "sh", "-c", write],
  }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
}
