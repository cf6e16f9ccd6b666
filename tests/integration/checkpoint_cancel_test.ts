/** Work that is cancelled at any of its requests to the store: what it leaves is garbage, and the next prunes remove it. */

import assert from "node:assert/strict";
import { StateManagerError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { KEEP_NOTHING, PruneScene } from "../support/prune_scene.ts";

isRoot(); // loads libc once, which older runtimes count as a leak of the test that does it

const HOUR_MS = 3_600_000;
/** More requests than the longest work here makes. */
const MOST_REQUESTS = 60;

/** The n-th request of any kind aborts the work, and is still carried out or not. */
function cancelling(store: ObjectStore, nth: number, abort: AbortController, isDone: boolean): ObjectStore {
  let left = nth;
  const request = async <T>(call: () => Promise<T>): Promise<T> => {
    if (--left > 0) return await call();
    if (left === 0) {
      abort.abort(new StateManagerError("cancelled", "cancelled by a test"));
      if (isDone) await call();
    }
    throw abort.signal.reason;
  };
  return {
    ...store,
    get: (key, options) => request(() => store.get(key, options)),
    head: (key, options) => request(() => store.head(key, options)),
    put: (key, body, options) => request(() => store.put(key, body, options)),
    list: (options) => request(() => store.list(options)),
    delete: (key, options) => request(() => store.delete(key, options)),
  };
}

class CancelScene extends PruneScene {
  cancel = new AbortController();

  override environment(signal = this.cancel.signal) {
    return super.environment(signal);
  }

  /** False: the work came to its end before that request. */
  async cancelledAt(nth: number, isDone: boolean, work: () => Promise<unknown>): Promise<boolean> {
    const whole = this.store;
    this.cancel = new AbortController();
    this.store = cancelling(whole, nth, this.cancel, isDone);
    try {
      await work();
    } catch (error) {
      if (!this.cancel.signal.aborted) throw error;
    }
    const { aborted } = this.cancel.signal;
    this.store = whole;
    this.cancel = new AbortController();
    return aborted;
  }
}

for (const isDone of [false, true]) {
  const when = isDone ? "after" : "before";
  Deno.test(`checkpoint that is cancelled ${when} any of its requests leaves nothing that prunes do not remove`, async () => {
    let nth = 1;
    for (let wasCancelled = true; wasCancelled && nth < MOST_REQUESTS; nth++) {
      await using scene = new CancelScene(nth, memoryStore());
      scene.keep = { ...KEEP_NOTHING, last: 10 };
      for (const name of ["a", "b"]) scene.write(name, 90_000);
      await scene.checkpoint();
      scene.write("b", 90_000);
      scene.write("c", 90_000);
      wasCancelled = await scene.cancelledAt(nth, isDone, () => scene.checkpoint());
      // The same process goes on in the same term, as after a cancel; the swap that was told as failed may have landed.
      await scene.session?.settle();
      for (let i = 0; i < 3; i++) {
        await scene.pruner().prune({ dryRun: false });
        scene.pass(HOUR_MS);
      }
      assert.deepEqual(await scene.unnamed(), [], `request ${nth}`);
      const listed = scene.head.checkpoints.length;
      assert.ok(listed === 1 || listed === 2, `request ${nth}`);
      await scene.checkpoint();
      await scene.restoresAll();
    }
    assert.ok(nth > 4 && nth < MOST_REQUESTS, `${nth} requests`);
  });
}
