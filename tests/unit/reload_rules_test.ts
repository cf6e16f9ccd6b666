/** Reload rules: what a new definition changes at once, what from the next start on, what only with the manager. */

import assert from "node:assert/strict";
import { planReload, type ReloadSide } from "../../src/manager/reload_rules.ts";
import { type ProcessSpec, specChanges } from "../../src/supervisor/mod.ts";
import { processSpec } from "../support/process_specs.ts";

const side = (specs: readonly ProcessSpec[], change: Partial<ReloadSide> = {}): ReloadSide => ({
  specs,
  logs: {},
  shown: {
    name: "shop",
    stacks: ["processes"],
    processes: {},
    checkpoint: { interval: "5m", on_stop: true },
  },
  stacks: ["files"],
  hidden: { "storage.secret_key": "one" },
  ...change,
});

Deno.test("a definition that says the same in another order changes nothing", () => {
  const before = processSpec({ env: { A: "1", B: "2" }, dependsOn: { db: "ready", cache: "started" } });
  const after = processSpec({ env: { B: "2", A: "1" }, dependsOn: { cache: "started", db: "ready" } });
  assert.deepEqual(specChanges(before, after), { live: [], start: [] });
});

Deno.test("rules change at once, what a spawn takes changes with the next start", () => {
  const changes = specChanges(
    processSpec({ command: ["a"] }),
    processSpec({
      command: ["a", "b"],
      cwd: "/srv",
      env: { PATH: "/bin", MORE: "1" },
      restart: "always",
      startLimit: { burst: 3, intervalMs: 1000, rearmMs: null },
      timeoutStopMs: 1,
      stopSignal: "SIGQUIT",
      successExit: ["SIGTERM"],
      noRestartOn: [143],
      essential: false,
    }),
  );
  assert.deepEqual(changes.start, ["command", "cwd", "env"]);
  assert.deepEqual(changes.live, [
    "restart",
    "start_limit",
    "timeout_stop",
    "stop_signal",
    "success_exit",
    "no_restart_on",
    "essential",
  ]);
});

Deno.test("one argument more, one variable less, another type: each is a change", () => {
  const start = (before: Partial<ProcessSpec>, after: Partial<ProcessSpec>) =>
    specChanges(processSpec(before), processSpec(after)).start;
  assert.deepEqual(start({ command: ["a", "b"] }, { command: ["a"] }), ["command"]);
  assert.deepEqual(start({ env: { A: "1", B: "1" } }, { env: { A: "1" } }), ["env"]);
  assert.deepEqual(start({ env: { A: "1" } }, { env: { B: "1" } }), ["env"]);
  assert.deepEqual(start({ cwd: null }, { cwd: "/" }), ["cwd"]);
  assert.deepEqual(
    specChanges(processSpec({ successExit: [143] }), processSpec({ successExit: ["SIGTERM"] })).live,
    [
      "success_exit",
    ],
  );
});

Deno.test("a plan names what is new, gone, different and the same", () => {
  const spec = (name: string, change: Partial<ProcessSpec> = {}) => processSpec({ name, ...change });
  const plan = planReload(
    side([spec("kept"), spec("gone"), spec("other")]),
    side([spec("new"), spec("other", { command: ["x"], restart: "always" }), spec("kept")]),
  );
  assert.deepEqual(plan, {
    added: ["new"],
    removed: ["gone"],
    changed: [{ name: "other", live: ["restart"], start: ["command"] }],
    unchanged: ["kept"],
    needsManagerRestart: [],
  });
});

Deno.test("whatever is outside of processes needs a restart of the manager, secrets and stacks too", () => {
  const before = side([]);
  const after = side([], {
    shown: {
      name: "other",
      stacks: ["web"],
      processes: { web: {} },
      checkpoint: { interval: "1h", on_stop: true },
      files: { app: { path: "/srv" } },
    },
    stacks: [],
    hidden: { "storage.secret_key": "two", "storage.session_token": "three" },
  });
  assert.deepEqual(planReload(before, after).needsManagerRestart, [
    "checkpoint.interval",
    "files.app",
    "name",
    "stacks",
    "storage.secret_key",
    "storage.session_token",
  ]);
  assert.ok(!JSON.stringify(planReload(before, after)).includes("two"));
});
