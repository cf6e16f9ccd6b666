/** The end of all while processes are in every state: asked for, by the loss of the lease, by the death of the manager. */

import assert from "node:assert/strict";
import { FaultScene } from "../support/fault_scene.ts";
import { programsInEveryState } from "../support/faulty_programs.ts";
import { descendants, type Json, waitFor } from "../support/manager_process.ts";
import { S3Server } from "../support/s3_server.ts";
import { PLAIN, SURROUNDINGS, type Surroundings, testEach } from "../support/surroundings.ts";

const NAMES = Object.keys(programsInEveryState());

/** `name` runs, and is deaf to TERM by now: it has said so. */
async function deaf(scene: FaultScene, name: string): Promise<void> {
  await waitFor(`${name} to be up`, async () => {
    const { lines } = await scene.manager.json(`/processes/${name}/logs`);
    return lines.some(({ text }: Json) => text === "up");
  }, 60_000);
}

/** Brings each process into the state of its name. */
async function reachEveryState(scene: FaultScene): Promise<void> {
  await scene.running();
  for (const name of ["is-running", "is-stopping", "is-draining"]) await deaf(scene, name);
  await scene.when("is-stopped", "up", ({ state }: Json) => state === "running");
  for (const name of ["is-stopping", "is-draining", "is-stopped"]) {
    const stopped = await scene.manager.fetch(`/processes/${name}/stop`, {
      json: { wait: name === "is-stopped" ? "60s" : "0s" },
    });
    await stopped.body?.cancel();
    assert.equal(stopped.status, name === "is-stopped" ? 200 : 202, name);
  }
  for (const name of NAMES) {
    const wanted = name.replace("is-", "");
    await scene.when(name, wanted, ({ state }: Json) => state === wanted);
  }
}

async function nothingLeft(scene: FaultScene): Promise<void> {
  await waitFor(
    "all to be gone",
    () => NAMES.every((name) => scene.alive(name) === 0),
    60_000,
    () => NAMES.filter((name) => scene.alive(name) > 0).join(", ") + scene.manager.tail(),
  );
}

testEach(
  [PLAIN, ...SURROUNDINGS],
  "TERM ends all in time while processes are in every state",
  async (surroundings) => {
    await using scene = new FaultScene(surroundings, programsInEveryState);
    await reachEveryState(scene);
    const pid = surroundings === PLAIN ? scene.manager.pid : await scene.managerPid();
    scene.stop(pid);
    // What is deaf has ten minutes by its own key: all of them together have two seconds.
    assert.equal(await scene.manager.exit(90_000), 0, scene.manager.tail());
    await nothingLeft(scene);
    assert.match(scene.manager.stderr, /is-running: /);
    assert.ok(!/is-(waiting|backoff|skipped): started/.test(scene.manager.stderr));
  },
);

testEach(SURROUNDINGS, "a second TERM kills what still has time to end", async (surroundings) => {
  await using scene = new FaultScene(surroundings, programsInEveryState, {
    config: { shutdown: { budget: "10m", flush_reserve: "2m" } },
  });
  await scene.running();
  await deaf(scene, "is-running");
  const pid = await scene.managerPid();
  scene.stop(pid);
  await scene.manager.state("stopping");
  await scene.when("is-running", "asked", ({ state }: Json) => state === "stopping");
  scene.stop(pid);
  assert.equal(await scene.manager.exit(90_000), 0, scene.manager.tail());
  await nothingLeft(scene);
});

/** The programs of a manager whose store is a service that can fail. */
function onService(server: S3Server, surroundings: Surroundings, change: Json = {}): FaultScene {
  return new FaultScene(surroundings, programsInEveryState, {
    config: {
      storage: { bucket: server.bucket, endpoint: server.endpoint, region: "us-east-1" },
      // So long that a loaded machine, with five of them at once, never loses it by itself.
      lease: { ttl: "8s", renew: "1500ms", on_unreachable: "stop" },
      ...change,
    },
    env: { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey },
  });
}

testEach(
  [PLAIN, ...SURROUNDINGS],
  "loss of the lease kills processes in every state, and ends with 75",
  async (surroundings) => {
    await using server = await S3Server.start({ bucket: "bucket" });
    await using scene = onService(server, surroundings);
    await reachEveryState(scene);
    server.fail({ status: 503, code: "SlowDown" });
    assert.equal(await scene.manager.exit(60_000), 75, scene.manager.tail());
    await nothingLeft(scene);
  },
);

Deno.test("loss of the lease while all is being stopped kills at once what still has time to end", async () => {
  await using server = await S3Server.start({ bucket: "bucket" });
  await using scene = onService(server, PLAIN, {
    shutdown: { budget: "10m", flush_reserve: "2m" },
  });
  await reachEveryState(scene);
  scene.stop(scene.manager.pid);
  await scene.manager.state("stopping");
  assert.equal(scene.alive("is-running"), 1);
  server.fail({ status: 503, code: "SlowDown" });
  await nothingLeft(scene);
  await waitFor("the log to tell", () => scene.manager.stderr.includes("is-running: signal SIGKILL"));
});

testEach(SURROUNDINGS, "kill -9 of the manager ends all, whatever state it was in", async (surroundings) => {
  await using scene = new FaultScene(surroundings, programsInEveryState);
  await reachEveryState(scene);
  const below = descendants(scene.manager.pid);
  Deno.kill(await scene.managerPid(), "SIGKILL");
  assert.notEqual(await scene.manager.exit(60_000), 0);
  await waitFor(
    "all to be gone",
    () => below.every((pid) => "ZX".includes(scene.stateOf(pid))),
    60_000,
  );
});
