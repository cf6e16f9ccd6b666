/** The command after a capture, while the lease may be in doubt; programs that are to stand still. */

import assert from "node:assert/strict";
import { ProgramHold } from "../../src/manager/program_hold.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { log } from "../../src/platform/log.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { Supervisor } from "../../src/supervisor/mod.ts";
import { FOLDER_STORE, load } from "../support/config_files.ts";
import { settled, VirtualClock } from "../support/virtual_clock.ts";

const inDoubt = () => new StateManagerError("lease-not-held", "use lease: no answer");

async function scene(checkpoint: Record<string, unknown>, still: () => boolean | null = () => true) {
  const clock = new VirtualClock();
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
  supervisor.standsStill = still;
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
  return { clock, hold, known, runs, stop };
}

const HOOKS = { consistency: "hooks", before: ["true"], after: ["true"] };

Deno.test("ProgramHold looks again where it is not known whether all stand still, and says so when it never is", async () => {
  const answers = [null, null, true];
  let looks = 0;
  const seen = await scene({ consistency: "freeze" }, () => answers[looks++] ?? null);
  const begun = seen.hold.begin();
  await seen.clock.advance(50);
  await begun;
  assert.deepEqual([looks, seen.hold.over.aborted], [3, false]);
  await seen.hold[Symbol.asyncDispose]();

  const unseen = await scene({ consistency: "freeze" }, () => null);
  const over = unseen.hold.begin();
  await unseen.clock.advance(2_000);
  await over;
  assert.match(String(unseen.hold.over.reason), /not to be seen whether all stood still/);
  await unseen.hold[Symbol.asyncDispose]();
  await settled();
  assert.deepEqual([seen.clock.sleeping, unseen.clock.sleeping], [0, 0]);
});

Deno.test("ProgramHold runs after when the lease is known, and anew where it fell into doubt meanwhile", async () => {
  const { clock, hold, known, runs } = await scene(HOOKS);
  await hold.begin();
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
  const { clock, hold, known, runs, stop } = await scene(HOOKS);
  await hold.begin();
  await hold.end();
  await settled();
  stop.abort();
  known[0]?.resolve(AbortSignal.abort(inDoubt()));
  await hold[Symbol.asyncDispose]();
  assert.deepEqual([runs.length, known.length], [0, 1]);
  await settled();
  assert.equal(clock.sleeping, 0);
});
