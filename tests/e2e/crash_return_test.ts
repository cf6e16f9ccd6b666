/** A restart on the same data folder after kill -9, and a copy of that folder that poses as it. */

import assert from "node:assert/strict";
import { say } from "../support/say.ts";
import { ChaosScene, nowMs, overlaps } from "../support/chaos_scene.ts";
import { waitFor } from "../support/manager_process.ts";
import { testOnStores } from "../support/test_stores.ts";

const TTL_MS = 15_000;
/** Longer than any start takes, and nobody waits for its end. */
const LONG_TTL_MS = 90_000;

testOnStores(
  "a restart after kill -9 on the same data folder does not wait for the lease to run out",
  async (store) => {
    await using scene = new ChaosScene(store, { ttlMs: LONG_TTL_MS });
    const machine = scene.machine("a");
    let manager = machine.start();
    await machine.nextLine("value", 0, () => manager.tail());
    for (const kind of ["manager", "tree"] as const) {
      if (kind === "tree") await manager.killTree();
      else {
        manager.signal("SIGKILL");
        await manager.exit();
      }
      const mark = scene.journal().length;
      const startedMs = nowMs();
      manager = machine.start();
      const start = await machine.nextLine("start", mark, () => manager.tail());
      const tookMs = Math.round(start.timeMs - startedMs);
      say(
        `kill of the ${kind}: the program runs again ${tookMs} ms after the manager's start, TTL ${LONG_TTL_MS} ms`,
      );
      assert.ok(tookMs < LONG_TTL_MS / 2, `it took ${tookMs} ms\n${manager.tail()}`);
      await machine.nextLine("value", mark, () => manager.tail());
    }
    assert.equal((await scene.lease())?.token, 3);
    assert.deepEqual(scene.shouts(), []);
    assert.deepEqual(overlaps(scene.journal()), []);
  },
);

testOnStores("a copy of a living manager's data folder waits as any other", async (store) => {
  await using scene = new ChaosScene(store, { ttlMs: TTL_MS });
  const original = scene.machine("original");
  const manager = original.start();
  await original.nextLine("value", 0, () => manager.tail());
  let hasMet = false;
  // Again where the copy started so slowly that the holder has renewed meanwhile.
  for (let number = 1; !hasMet && number <= 5; number++) {
    // Right after a renewal: the copy remembers a nonce that stays the record's for some seconds.
    const before = (await scene.lease())?.nonce;
    const nonce = await waitFor("a renewal", async () => {
      const now = (await scene.lease())?.nonce;
      return now !== before ? now : null;
    });
    const copy = scene.clone(original, `copy${number}`);
    const second = copy.start();
    await second.state("waiting");
    await waitFor(
      "the copy to see the holder",
      () => second.stderr.includes("lease held by"),
      60_000,
      () => second.tail(),
    );
    hasMet = (await scene.lease())?.nonce === nonce;
    await waitFor("a renewal beside the copy", async () => (await scene.lease())?.nonce !== nonce);
    assert.equal((await scene.lease())?.token, 1, second.tail());
    assert.deepEqual(copy.journal(), []);
    assert.equal((await manager.json("/")).state, "running");
    assert.deepEqual(scene.shouts(), []);
    await second.killTree();
  }
  assert.ok(hasMet, "the copy met the very record that it remembers");
});
