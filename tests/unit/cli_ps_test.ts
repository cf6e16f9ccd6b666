/** What `state-manager ps` shows of a process. */

import assert from "node:assert/strict";
import { processTable } from "../../src/cli/ps.ts";

Deno.test("ps shows who runs and is not ready, and what its probe said last", () => {
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
  ]).split("\n");
  assert.match(lines[1] ?? "", /^web\s+running\s/);
  assert.match(lines[2] ?? "", /^api\s+not ready\s.*readiness: HTTP 503\s*$/);
  assert.match(lines[3] ?? "", /^job\s+failed\s.*exit code 1\s*$/);
});
