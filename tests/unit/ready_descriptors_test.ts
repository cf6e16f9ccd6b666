/** The one wait for all descriptors. */

import assert from "node:assert/strict";
import { libcSpawn } from "../../src/platform/libc_spawn.ts";
import { ReadyDescriptors } from "../../src/platform/ready_descriptors.ts";

Deno.test({
  name: "a listener that throws is an error of its own: others go on to be told, and the wait can end",
  // The library is opened once for the process.
  sanitizeResources: false,
  async fn() {
    const libc = libcSpawn();
    const ready = ReadyDescriptors.open();
    assert.ok(libc !== null && ready !== null);
    const uncaught: unknown[] = [];
    const onError = (event: ErrorEvent) => {
      event.preventDefault();
      uncaught.push(event.error);
    };
    globalThis.addEventListener("error", onError);
    // A pipe that nobody can write to any more has something to tell: its end.
    const [bad, good] = [libc.pipe(), libc.pipe()];
    const failure = new Error("a bad listener");
    const pipes = [bad, good].map(([reader]) => ready.watch(reader));
    try {
      const failed = Promise.withResolvers<void>();
      pipes[0]?.arm(() => {
        failed.resolve();
        throw failure;
      });
      const told = Promise.withResolvers<void>();
      pipes[1]?.arm(() => told.resolve());
      libc.close(bad[1]);
      await failed.promise;
      libc.close(good[1]);
      await told.promise;
      assert.deepEqual(uncaught, [failure]);
    } finally {
      globalThis.removeEventListener("error", onError);
      for (const pipe of pipes) pipe.release();
      for (const [reader] of [bad, good]) libc.close(reader);
    }
  },
});
