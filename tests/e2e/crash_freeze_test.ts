/** A holder that stands still past its lease: the manager alone, or the whole tree. Nobody is hurt by what it does later. */

import assert from "node:assert/strict";
import { ChaosScene, nowMs, overlaps, START_LIMIT_MS, stateOfProcess } from "../support/chaos_scene.ts";
import { say } from "../support/say.ts";
import { descendants, waitFor } from "../support/manager_process.ts";
import { testOnStores } from "../support/test_stores.ts";
import { signalAll } from "../support/signal_all.ts";

const TTL_MS = 3000;

testOnStores(
  "a manager that was stopped for twice its TTL in a checkpoint: its program did not run beside the next one, and nothing of it arrives late",
  async (store) => {
    await using scene = new ChaosScene(store, { ttlMs: TTL_MS });
    const a = scene.machine("a");
    const b = scene.machine("b");
    const first = a.start();
    await a.nextLine("value", 0, () => first.tail());
    await first.checkpoint();
    const second = b.start();
    await second.state("waiting");
    await waitFor(
      "the waiter to see the holder",
      () => second.stderr.includes("lease held by"),
      60_000,
      () => second.tail(),
    );
    let asked = Promise.resolve();
    // Again where it was over before we looked.
    for (let isOver = true; isOver;) {
      isOver = false;
      asked = first.fetch("/checkpoint", { json: {} }).then((response) => response.body?.cancel())
        .catch(() => {}).then(() => void (isOver = true));
      await waitFor("the checkpoint to be under way", async () => {
        return isOver || (await first.json("/")).checkpoint.running;
      });
    }
    const stoppedMs = nowMs();
    first.signal("SIGSTOP");
    await b.nextLine("value", 0, () => second.tail());
    await waitFor("twice the TTL", () => nowMs() > stoppedMs + 2 * TTL_MS);
    await second.state("running", START_LIMIT_MS);
    const before = await scene.bucket();
    first.signal("SIGCONT");
    assert.equal(await first.exit(), 75, first.tail());
    await asked;
    assert.deepEqual(await scene.bucket(), before);
    assert.equal((await scene.lease())?.token, 2);
    assert.deepEqual(scene.shouts(), []);
    assert.deepEqual(overlaps(scene.journal()), []);
    await waitFor(
      "nothing of it to be left",
      () => a.processes().every((pid) => stateOfProcess(pid) === null),
    );
  },
);

testOnStores(
  "a whole tree that stood still for twice its TTL changes nothing after the thaw, and its programs die at once",
  async (store) => {
    await using scene = new ChaosScene(store, { ttlMs: TTL_MS });
    const a = scene.machine("a");
    const b = scene.machine("b");
    const first = a.start();
    await a.nextLine("value", 0, () => first.tail());
    await first.checkpoint();
    const second = b.start();
    await second.state("waiting");
    await waitFor(
      "the waiter to see the holder",
      () => second.stderr.includes("lease held by"),
      60_000,
      () => second.tail(),
    );
    const programs = [a.lastLine()?.pid ?? 0];
    const tree = [first.pid, ...descendants(first.pid)];
    assert.ok(tree.includes(programs[0] ?? 0), "the program is of the tree");
    const stoppedMs = nowMs();
    signalAll(tree, "SIGSTOP");
    await b.nextLine("value", 0, () => second.tail());
    await waitFor("twice the TTL", () => nowMs() > stoppedMs + 2 * TTL_MS);
    await second.state("running", START_LIMIT_MS);
    assert.deepEqual(scene.shouts(), [], "nobody ran beside the other while it stood still");
    const before = await scene.bucket();
    const thawedMs = nowMs();
    signalAll(tree, "SIGCONT");
    // Closer than waitFor looks: the window is what is to be seen.
    while (programs.some((pid) => stateOfProcess(pid) !== null) && nowMs() < thawedMs + 60_000) {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    const diedMs = nowMs();
    say(`programs dead ${Math.round(diedMs - thawedMs)} ms after the thaw`);
    // Some milliseconds, unless the machine stands still just then.
    assert.ok(diedMs - thawedMs < 10_000, `its programs lived for ${diedMs - thawedMs} ms after the thaw`);
    assert.equal(await first.exit(), 75, first.tail());
    assert.deepEqual(await scene.bucket(), before);
    assert.equal((await scene.lease())?.token, 2);
    const late = scene.shouts().filter(({ timeMs }) => timeMs < thawedMs || timeMs > diedMs);
    assert.deepEqual(late, [], "outside the window between thaw and death nobody ran beside the other");
  },
);
