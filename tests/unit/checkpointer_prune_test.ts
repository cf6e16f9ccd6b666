/** The checkpointer's one place: a prune is in it only while nobody wants it for a checkpoint. */

import assert from "node:assert/strict";
import { Checkpointer, type CheckpointerOptions } from "../../src/manager/checkpointer.ts";
import { isError } from "../../src/platform/errors.ts";

/** Of the options a refused or waiting checkpoint uses none but the lease, which refuses. */
function checkpointer(seen: string[]): Checkpointer {
  const lease = {
    assertHeld: () => {
      seen.push("checkpoint");
      throw new Error("not in this test");
    },
  };
  return new Checkpointer({ lease } as unknown as CheckpointerOptions);
}

/** Runs until it is ended. */
const untilEnded = (seen: string[]) => (signal: AbortSignal) =>
  new Promise<void>((_, reject) =>
    signal.addEventListener("abort", () => {
      seen.push("prune ended");
      reject(signal.reason);
    })
  );

Deno.test("a checkpoint ends a prune and begins when it is over", async () => {
  const seen: string[] = [];
  const subject = checkpointer(seen);
  const prune = subject.runPrune(untilEnded(seen));
  const ended = assert.rejects(prune, (error) => isError(error, "cancelled"));
  await assert.rejects(subject.create("request", { comment: "", labels: {} }), /not in this test/);
  await ended;
  assert.deepEqual(seen, ["prune ended", "checkpoint"]);
  await subject.idle();
});

Deno.test("a prune is refused while another runs, and ends when the lease is gone", async () => {
  const seen: string[] = [];
  const subject = checkpointer(seen);
  const prune = subject.runPrune(untilEnded(seen));
  await assert.rejects(subject.runPrune(() => Promise.resolve()), (error) => isError(error, "busy"));
  subject.abort("the lease is lost");
  await assert.rejects(prune, (error) => isError(error, "cancelled"));
  await subject.idle();
  assert.equal(await subject.runPrune(() => Promise.resolve(7)), 7);
});
