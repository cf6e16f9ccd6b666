/** The command after a capture, while the lease may be in doubt. */

import assert from "node:assert/strict";
import { ProgramHold } from "../../src/manager/program_hold.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { log } from "../../src/platform/log.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { Supervisor } from "../../src/supervisor/mod.ts";
import { FOLDER_STORE, load } from "../support/config_files.ts";
import { settled, VirtualClock } from "../support/virtual_clock.ts";

const inDoubt = () => new StateManagerError("lease-not-held", "use lease: no answer");

async function scene() {
  const clock = new VirtualClock();
  const checkpoint = { consistency: "hooks", before: ["true"], after: ["true"] };
  const { config } = await load({ file: { ...FOLDER_STORE, checkpoint } });
  assert.ok(config);
  const never = () => null;
  const supervisor = new Supervisor({
    specs: [],
    clock,
    random: systemRandom(),
    output: never,
    onEvent: never,
  });
  const stop = new AbortController();
  /** One for each time that somebody asked. */
  const known: PromiseWithResolvers<AbortSignal>[] = [];
  const runs: { readonly signal: AbortSignal; readonly end: () => void }[] = [];
  const hold = new ProgramHold({
    config: config.checkpoint,
    supervisor,
    clock,
    log: log("test"),
    signal: new AbortController().signal,
    stopping: stop.signal,
    databases: () => Promise.resolve({}),
    leaseKnown: () => {
      known.push(Promise.withResolvers());
      return known.at(-1)?.promise ?? Promise.reject();
    },
    run: (which, { signal }) => {
      if (which === "before") return Promise.resolve();
      signal.throwIfAborted();
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      runs.push({ signal, end: resolve });
      signal.addEventListener("abort", () => reject(signal.reason));
      return promise;
    },
  });
  await hold.begin();
  return { clock, hold, known, runs, stop };
}

Deno.test("ProgramHold runs after when the lease is known, and anew where it fell into doubt meanwhile", async () => {
  const { clock, hold, known, runs } = await scene();
  await hold.end();
  await settled();
  assert.equal(runs.length, 0, "not known yet");
  const first = new AbortController();
  known[0]?.resolve(first.signal);
  await settled();
  assert.equal(runs.length, 1);
  first.abort(inDoubt());
  await settled();
  assert.ok(runs[0]?.signal.aborted);
  assert.deepEqual([runs.length, known.length], [1, 2], "it waits until the lease is known again");
  known[1]?.resolve(new AbortController().signal);
  await settled();
  runs[1]?.end();
  await hold[Symbol.asyncDispose]();
  assert.deepEqual([runs.length, known.length], [2, 2]);
  assert.equal(clock.sleeping, 0);
});

Deno.test("ProgramHold does not run after for a stop while the lease is in doubt", async () => {
  const { clock, hold, known, runs, stop } = await scene();
  await hold.end();
  await settled();
  stop.abort();
  known[0]?.resolve(AbortSignal.abort(inDoubt()));
  await hold[Symbol.asyncDispose]();
  assert.deepEqual([runs.length, known.length], [0, 1]);
  await settled();
  assert.equal(clock.sleeping, 0);
});
