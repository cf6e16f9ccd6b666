/** Reloads one at a time, whole or not at all; SIGHUP is never lost. */

import assert from "node:assert/strict";
import { loadConfig, type LoadedConfig } from "../../src/config/mod.ts";
import { Reloader } from "../../src/manager/reloader.ts";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import type { Supervisor } from "../../src/supervisor/mod.ts";
import { optionsFor } from "../support/config_files.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

type Json = Record<string, unknown>;

const STORE = { storage: { directory: "/srv/store" } };
const web = (change: Json = {}) => ({ web: { command: ["web"], ...change } });

function read(file: unknown, environment: Record<string, string> = {}): Promise<LoadedConfig> {
  return loadConfig(optionsFor({ file, environment }));
}

interface Scene {
  readonly reloader: Reloader;
  readonly clock: VirtualClock;
  readonly recorded: string[];
  inForce: LoadedConfig;
  /** What the next reads find. */
  next: () => Promise<LoadedConfig>;
  reads: number;
  supervisor: () => Supervisor | null;
}

async function scene(file: Json): Promise<Scene> {
  const clock = new VirtualClock();
  const recorded: string[] = [];
  const made: Scene = {
    clock,
    recorded,
    inForce: await read({ ...STORE, ...file }),
    next: () => Promise.reject(new StateManagerError("config-invalid", "nothing was prepared")),
    reads: 0,
    supervisor: () => null,
    reloader: new Reloader({
      clock,
      read: () => {
        made.reads++;
        return made.next();
      },
      inForce: () => made.inForce,
      takeOver: (loaded) => made.inForce = loaded,
      supervisor: () => made.supervisor(),
      record: ({ summary }) => recorded.push(summary),
      ended: new AbortController().signal,
    }),
  };
  return made;
}

const WISH = { dryRun: false, restart: false };

Deno.test("a reload takes over processes and what they inherit, and nothing else", async () => {
  const it = await scene({ processes: web(), stacks: ["web"], checkpoint: { interval: "1m" } });
  it.next = () =>
    read({ ...STORE, processes: { ...web({ restart: "no" }), more: { command: ["more"] } }, name: "other" }, {
      SOME_VARIABLE: "1",
    });
  const result = await it.reloader.reload(WISH);
  assert.deepEqual(result.added, ["more"]);
  // The second process makes `essential` false where the lone one had it true.
  assert.deepEqual(result.changed, [{ name: "web", live: ["restart", "essential"], start: ["env"] }]);
  assert.deepEqual(result.needsManagerRestart.filter((key) => key !== "stacks"), [
    "checkpoint.interval",
    "name",
  ]);
  const { config, environment } = it.inForce;
  assert.equal(config?.processes["web"]?.restart, "no");
  assert.equal(environment["SOME_VARIABLE"], "1");
  assert.equal(config?.checkpoint.intervalMs, 60_000);
  assert.notEqual(config?.name, "other");
  assert.deepEqual(it.recorded, ["configuration reloaded"]);
  // The same again: nothing is new any more but what waits for the manager.
  const again = await it.reloader.reload(WISH);
  assert.deepEqual([again.added, again.removed, again.changed], [[], [], []]);
  assert.deepEqual(again.unchanged, ["web", "more"]);
});

Deno.test("an error of any kind leaves all as it is", async () => {
  const it = await scene({ processes: web() });
  const before = it.inForce;
  for (const file of ["{", { ...STORE, processes: web({ restart: "sometimes" }) }, { processes: web() }]) {
    it.next = () => read(file);
    await assert.rejects(it.reloader.reload(WISH), (error) => isError(error, "config-invalid"));
    await it.reloader.hangUp(); // tells it in the log alone
  }
  it.next = () => read({ ...STORE, processes: {} });
  it.supervisor = () => {
    throw new StateManagerError("wrong-state", "stopping");
  };
  await assert.rejects(it.reloader.reload(WISH), (error) => isError(error, "wrong-state"));
  assert.equal(it.inForce, before);
  it.supervisor = () => null;
  const { removed } = await it.reloader.reload({ dryRun: true, restart: true });
  assert.deepEqual(removed, ["web"]);
  assert.equal(it.inForce, before, "a dry run changes nothing");
  assert.deepEqual(it.recorded, []);
});

Deno.test("an unconfigured manager has nothing to reload", async () => {
  const it = await scene({});
  it.inForce = await read(undefined);
  await assert.rejects(it.reloader.reload(WISH), (error) => isError(error, "wrong-state"));
  assert.equal(it.reads, 0);
});

Deno.test("two reloads at once: the second is told so, a second SIGHUP makes another one", async () => {
  const it = await scene({ processes: web() });
  const gate = Promise.withResolvers<void>();
  it.next = async () => {
    await gate.promise;
    return await read({ ...STORE, processes: web() });
  };
  const first = it.reloader.hangUp();
  await assert.rejects(it.reloader.reload(WISH), (error) => isError(error, "busy"));
  // What came meanwhile is one more, however often it came.
  await Promise.all([it.reloader.hangUp(), it.reloader.hangUp(), it.reloader.hangUp()]);
  assert.equal(it.reads, 1);
  it.next = () => read({ ...STORE, processes: web({ restart: "no" }) });
  gate.resolve();
  await first;
  for (let turn = 0; turn < 1000 && it.recorded.length < 2; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.equal(it.reads, 2);
  assert.equal(it.inForce.config?.processes["web"]?.restart, "no");
});

Deno.test("a reload waits while programs stand still, but not for ever", async () => {
  const it = await scene({ processes: web() });
  it.next = () => read({ ...STORE, processes: web({ restart: "no" }) });
  let isBusy = true;
  it.supervisor = () => {
    if (isBusy) throw new StateManagerError("busy", "frozen");
    return null;
  };
  const patient = it.reloader.reload(WISH);
  await passes(it.clock, 2_000);
  isBusy = false;
  await passes(it.clock, 1_000);
  assert.equal((await patient).changed.length, 1);
  isBusy = true;
  const vain = assert.rejects(it.reloader.reload(WISH), (error) => isError(error, "busy"));
  await passes(it.clock, 2_000);
  it.clock.jump(60_000);
  await passes(it.clock, 200);
  await vain;
});

async function passes(clock: VirtualClock, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 100) {
    await new Promise((resolve) => setTimeout(resolve)); // what was read comes in its own turn
    await clock.advance(100);
  }
}
