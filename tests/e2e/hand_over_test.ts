/** A rolling replacement: the new copy asks, the old one stops in order and gives the lease to it. */

import assert from "node:assert/strict";
import { say } from "../support/say.ts";
import { type ChaosMachine, ChaosScene, overlaps, START_LIMIT_MS } from "../support/chaos_scene.ts";
import type { ManagerProcess } from "../support/manager_process.ts";
import { waitFor } from "../support/manager_process.ts";
import { testOnStores } from "../support/test_stores.ts";

/** So long that a machine that stands still for seconds loses none; the holder looks for who asks at each renewal. */
const TTL_MS = 15_000;
const RENEW = { STATE_MANAGER_LEASE_RENEW: "1s" };
const STOP_MS = 300;
const ROUNDS = 6;

testOnStores(
  "a new copy that asks gets everything within seconds, again and again, and the old one does not ask back",
  async (store) => {
    await using scene = new ChaosScene(store, { ttlMs: TTL_MS, stopMs: STOP_MS, handOver: true, env: RENEW });
    let old: { machine: ChaosMachine; manager: ManagerProcess | null } = {
      machine: scene.machine("copy0"),
      manager: null,
    };
    old.manager = old.machine.start();
    await old.machine.nextLine("value", 0, () => old.manager?.tail() ?? "");
    const gaps: number[] = [];
    for (let round = 1; round <= ROUNDS; round++) {
      const machine: ChaosMachine = scene.machine(`copy${round}`);
      const mark = scene.journal().length;
      const token = (await scene.lease())?.token ?? 0;
      const manager = machine.start();
      const tail = () => `${manager.tail()}\n--- the old one\n${old.manager?.tail()}`;
      const found = await machine.nextLine("found", mark, tail);
      const stopping = await old.machine.nextLine("stopping", mark, tail);
      const stopped = await old.machine.nextLine("stopped", mark, tail);
      assert.equal(found.value, stopped.value, `round ${round}: all that the old one reached\n${tail()}`);
      assert.deepEqual(found.torn, []);
      gaps.push(Math.round(found.timeMs - stopping.timeMs - STOP_MS));
      await manager.state("running", START_LIMIT_MS);
      assert.equal((await scene.lease())?.token, token + 1, tail());
      // It stays as one that waits, and leaves without a word.
      await old.manager?.state("waiting");
      old.manager?.signal("SIGTERM");
      assert.equal(await old.manager?.exit(), 143, tail());
      await machine.nextLine("value", mark, tail);
      old = { machine, manager };
    }
    assert.deepEqual(scene.shouts(), []);
    assert.deepEqual(overlaps(scene.journal()), []);
    say(`gaps beyond the program's own stop: ${gaps.join(", ")} ms`);
    const median = [...gaps].sort((a, b) => a - b)[ROUNDS / 2] ?? Infinity;
    // By release, not by the end of the lease, however slow the machine.
    assert.ok(median < TTL_MS / 2, `median gap ${median} ms`);
  },
);

/** `first` has handed over to `second`, and waits. */
async function handedOver(scene: ChaosScene) {
  const machines = [scene.machine("a"), scene.machine("b")] as const;
  const first = machines[0].start();
  await machines[0].nextLine("value", 0, () => first.tail());
  const second = machines[1].start();
  await machines[1].nextLine("value", 0, () => second.tail());
  await first.state("waiting");
  return { machines, first, second };
}

testOnStores(
  "one that handed over, and waits since, asks for the lease when a person says so",
  async (store) => {
    await using scene = new ChaosScene(store, { ttlMs: TTL_MS, handOver: true, env: RENEW });
    const { machines, first, second } = await handedOver(scene);
    first.signal("SIGTERM");
    await first.exit();
    const again = machines[0].start(); // a restart, which may be a platform's, is no such wish
    await waitFor(
      "to be waiting",
      async () => String((await again.json("/"))["reason"]).startsWith("lease held"),
    );
    const mark = scene.journal().length;
    const answer = await again.json("/acquire-lease", { json: {} });
    assert.equal(answer["state"], "waiting");
    await machines[0].nextLine("value", mark, () => `${again.tail()}${second.tail()}`);
    await again.state("running", START_LIMIT_MS);
    await second.state("waiting");
    assert.deepEqual(scene.shouts(), []);
    assert.deepEqual(overlaps(scene.journal()), []);
  },
);

testOnStores("two replicas left alone hand over once at most", async (store) => {
  await using scene = new ChaosScene(store, {
    ...{ ttlMs: TTL_MS, handOver: true, env: { STATE_MANAGER_LEASE_RENEW: "600ms" } },
  });
  const { machines, first, second } = await handedOver(scene);
  const token = (await scene.lease())?.token;
  // Several times as long as a hand-over takes: by renewals that the holder made, not by the clock.
  const nonces = new Set<string>();
  await waitFor("a dozen renewals", async () => {
    const lease = await scene.lease();
    if (lease !== null) nonces.add(lease.nonce);
    return nonces.size > 12;
  }, 60_000);
  assert.equal((await scene.lease())?.token, token, `${first.tail()}${second.tail()}`);
  assert.equal(machines[0].lastLine()?.event, "stopped");
  assert.deepEqual(scene.shouts(), []);
  assert.deepEqual(overlaps(scene.journal()), []);
});
