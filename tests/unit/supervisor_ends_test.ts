/** What an end means: codes and signals kept apart, success, last ends. */

import assert from "node:assert/strict";
import { newMachine } from "../../src/supervisor/machine.ts";
import { decideNext, isSuccess } from "../../src/supervisor/restart.ts";
import type { ExitCause, ProcessSpec } from "../../src/supervisor/types.ts";
import { processSpec } from "../support/process_specs.ts";

const exit = (code: number): ExitCause => ({ kind: "exit", code });
const TERM: ExitCause = { kind: "signal", signal: "SIGTERM", number: 15 };
const NOT_FOUND: ExitCause = { kind: "spawn-error", error: "not found", code: 127 };

function after(cause: ExitCause, change: Partial<ProcessSpec>) {
  const machine = { ...newMachine(), wanted: "up", state: "draining", exit: cause } as const;
  return decideNext(
    processSpec({ startLimit: { burst: 100, intervalMs: 1000, rearmMs: null }, ...change }),
    machine,
    0,
    0.5,
  );
}

Deno.test("143 and SIGTERM are two different successes", () => {
  assert.ok(!isSuccess(processSpec(), TERM));
  assert.ok(!isSuccess(processSpec({ successExit: [143] }), TERM));
  assert.ok(isSuccess(processSpec({ successExit: [143] }), exit(143)));
  assert.ok(isSuccess(processSpec({ successExit: ["SIGTERM"] }), TERM));
  assert.ok(!isSuccess(processSpec({ successExit: ["SIGTERM"] }), exit(143)));
  assert.ok(!isSuccess(processSpec({ successExit: [127] }), NOT_FOUND));
});

Deno.test("an end for want of memory is a failure, also where success_exit names its signal", () => {
  const killed: ExitCause = { kind: "signal", signal: "SIGKILL", number: 9 };
  const spec = { restart: "on-failure", successExit: ["SIGKILL"] } as const;
  assert.ok(isSuccess(processSpec(spec), killed));
  assert.ok(!isSuccess(processSpec(spec), { ...killed, oom: true }));
  assert.equal(after(killed, spec).state, "completed");
  const after137 = after({ ...killed, oom: true }, spec);
  assert.deepEqual([after137.state, after137.reason], ["backoff", "signal SIGKILL (out of memory)"]);
  const last = after({ ...killed, oom: true }, { ...spec, noRestartOn: ["SIGKILL"] });
  assert.equal(last.state, "failed");
});

Deno.test("an end that no_restart_on names is the last one under every policy", () => {
  for (const restart of ["always", "on-failure", "no"] as const) {
    const byCode = after(exit(23), { restart, noRestartOn: [23] });
    assert.equal(byCode.state, "failed", restart);
    assert.equal(byCode.reason, "exit code 23, which is named in no_restart_on");
    assert.equal(after(TERM, { restart, noRestartOn: ["SIGTERM"] }).state, "failed", restart);
    assert.equal(after(exit(0), { restart, noRestartOn: [0] }).state, "completed", restart);
    assert.equal(after(exit(7), { restart, noRestartOn: [7], successExit: [7] }).state, "completed", restart);
  }
  assert.equal(after(exit(143), { restart: "always", noRestartOn: ["SIGTERM"] }).state, "backoff");
  assert.equal(after(TERM, { restart: "always", noRestartOn: [143] }).state, "backoff");
});

Deno.test("what was ended for being unwell is no last end, whatever its code", () => {
  const machine = {
    ...newMachine(),
    wanted: "up",
    state: "draining",
    stopRequested: true,
    restartFor: "liveness",
    reason: "liveness",
    exit: exit(0),
  } as const;
  const spec = processSpec({ restart: "always", noRestartOn: [0] });
  assert.equal(decideNext(spec, machine, 0, 0.5).state, "backoff");
});
