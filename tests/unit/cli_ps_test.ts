/** What `state-manager ps` shows of a process. */

import assert from "node:assert/strict";
import { processTable } from "../../src/cli/ps.ts";

Deno.test("ps shows who runs and is not ready, what its probe said last, and who or what is waited for", () => {
  const process = {
    name: "web",
    wanted: "up",
    state: "running",
    ready: true,
    reason: null,
    probe_failure: null,
  };
  const lines = processTable([
    process,
    { ...process, name: "api", ready: false, probe_failure: "readiness: HTTP 503" },
    { ...process, name: "job", state: "failed", ready: false, reason: "exit code 1" },
    {
      ...process,
      name: "deaf",
      state: "stopping",
      stop: {
        blockers: [{ pid: 7, name: "a\tb", state: "D", wchan: "nfs_wait" }],
        kill: "1970-01-01T00:00:01.000Z",
        command: "stop_command",
      },
    },
    {
      ...process,
      name: "late",
      state: "waiting",
      next_start: "1970-01-01T00:00:02.000Z",
      waiting_for: [{ name: "db", condition: "ready", state: "starting" }],
    },
  ]).split("\n");
  assert.match(lines[1] ?? "", /^web\s+running\s/);
  assert.match(lines[2] ?? "", /^api\s+not ready\s.*readiness: HTTP 503\s*$/);
  assert.match(lines[3] ?? "", /^job\s+failed\s.*exit code 1\s*$/);
  assert.match(
    lines[4] ?? "",
    /its stop_command runs; waits for 7 \(a b, D, nfs_wait\); killed at 1970-01-01T00:00:01.000Z$/,
  );
  assert.match(
    lines[5] ?? "",
    /next start 1970-01-01T00:00:02.000Z; waits for db to be ready, it is starting$/,
  );
});
