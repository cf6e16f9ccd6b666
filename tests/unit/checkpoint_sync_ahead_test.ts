/** Syncs beside the building of a stage: when they begin, that they never overlap, and that their failure counts. */

import assert from "node:assert/strict";
import { SyncAhead } from "../../src/checkpoint/sync_ahead.ts";

const MIB = 1024 * 1024;

/** Syncs that end when the test says so. */
function syncs() {
  const begun: PromiseWithResolvers<void>[] = [];
  const ahead = new SyncAhead(() => {
    const one = Promise.withResolvers<void>();
    begun.push(one);
    return one.promise;
  });
  return { begun, ahead };
}

/** Promises that are settled have told all who wait for them. */
const turn = () => new Promise((resolve) => setTimeout(resolve, 0));

Deno.test("a sync ahead begins after many bytes or many files, and never while another one runs", async () => {
  const { begun, ahead } = syncs();
  ahead.wrote(63 * MIB, 1);
  assert.equal(begun.length, 0);
  ahead.wrote(MIB, 1);
  assert.equal(begun.length, 1, "64 MiB");
  ahead.wrote(640 * MIB, 100_000);
  assert.equal(begun.length, 1, "one at a time");
  begun[0]?.resolve();
  await turn();
  ahead.wrote(1, 1);
  assert.equal(begun.length, 2, "what was written meanwhile counts for the next one");
  begun[1]?.resolve();
  await turn();
  ahead.wrote(0, 7_999);
  assert.equal(begun.length, 2);
  ahead.wrote(0, 1);
  assert.equal(begun.length, 3, "8,000 files");
  let ended = false;
  const end = ahead.end().then(() => ended = true);
  await turn();
  assert.equal(ended, false, "the end waits for the one that runs");
  begun[2]?.resolve();
  await end;
});

Deno.test("a sync ahead that failed fails the end, whatever is written after it", async () => {
  const { begun, ahead } = syncs();
  ahead.wrote(64 * MIB, 1);
  begun[0]?.reject(new Error("EIO"));
  await turn();
  ahead.wrote(64 * MIB, 1);
  assert.equal(begun.length, 1, "no further one would say so again");
  await assert.rejects(ahead.end(), /EIO/);
});
