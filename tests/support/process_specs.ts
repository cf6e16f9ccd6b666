/** Process specs for supervisor tests: short delays, everything else as plain as can be. */

import { NO_PROBES } from "../../src/supervisor/probe_types.ts";
import type { ProcessSpec } from "../../src/supervisor/types.ts";

export function processSpec(change: Partial<ProcessSpec> = {}): ProcessSpec {
  return {
    name: "app",
    command: ["true"],
    cwd: null,
    env: { PATH: Deno.env.get("PATH") ?? "/usr/bin:/bin" },
    envDir: null,
    envFiles: [],
    ownEnv: {},
    execution: { user: null, group: null, umask: null, nice: null, limits: {} },
    dependsOn: {},
    restartWith: [],
    restart: "no",
    restartDelayMs: 20,
    restartMaxDelayMs: 100,
    startLimit: { burst: 3, intervalMs: 60_000, rearmMs: null },
    timeoutStopMs: 5_000,
    stopSignal: "SIGTERM",
    stopMode: "group",
    stopCommand: null,
    finishCommand: null,
    successExit: [],
    noRestartOn: [],
    essential: true,
    probes: NO_PROBES,
    timeoutStartMs: null,
    schedule: null,
    watch: null,
    memoryLimit: null,
    forwardSignals: {},
    reloadSignal: null,
    stdio: "pipe",
    ...change,
  };
}

/** A process that runs `script` in a shell. */
export function shellSpec(
  name: string,
  script: string,
  change: Partial<ProcessSpec> = {},
): ProcessSpec {
  return processSpec({ name, command: ["/bin/sh", "-c", script], ...change });
}
