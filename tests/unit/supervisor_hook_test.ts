/** What a finish command is told of the end before it. */

import assert from "node:assert/strict";
import { endVariables } from "../../src/supervisor/hook.ts";
import { newMachine } from "../../src/supervisor/machine.ts";
import { causeOf } from "../../src/supervisor/outcome.ts";
import type { ExitCause, RestartReason } from "../../src/supervisor/types.ts";
import { exit, signal } from "../support/process_life.ts";
import { processSpec } from "../support/process_specs.ts";

Deno.test("a finish command gets systemd's variables for every end", async () => {
  const aborted = signal("SIGABRT", 6);
  const dumped = await causeOf(Promise.resolve({ code: 134, signal: "SIGABRT", dumped: true }));
  const cases: [ExitCause, { killed?: true; stopRequested?: true; for?: RestartReason }, string][] = [
    [exit(0), {}, "success exited 0"],
    [exit(3), {}, "success exited 3"],
    [exit(1), {}, "exit-code exited 1"],
    [exit(1), { stopRequested: true }, "success exited 1"],
    [aborted, {}, "signal killed ABRT"],
    [dumped, {}, "core-dump dumped ABRT"],
    [{ ...signal("SIGKILL", 9), oom: true } as ExitCause, {}, "oom-kill killed KILL"],
    [signal("SIGKILL", 9), { stopRequested: true, killed: true }, "timeout killed KILL"],
    [signal("SIGTERM", 15), { stopRequested: true }, "success killed TERM"],
    [signal("SIGTERM", 15), { stopRequested: true, for: "person" }, "success killed TERM"],
    [signal("SIGTERM", 15), { stopRequested: true, for: "startup" }, "timeout killed TERM"],
    [signal("SIGTERM", 15), { stopRequested: true, for: "liveness" }, "watchdog killed TERM"],
    [signal("SIGTERM", 15), { stopRequested: true, for: "memory" }, "oom-kill killed TERM"],
  ];
  for (const [cause, { for: restartFor = null, ...how }, wanted] of cases) {
    const machine = { ...newMachine(), exit: cause, ...how };
    const told = endVariables(processSpec({ successExit: [3] }), machine, restartFor);
    assert.equal(`${told["SERVICE_RESULT"]} ${told["EXIT_CODE"]} ${told["EXIT_STATUS"]}`, wanted);
  }
});
