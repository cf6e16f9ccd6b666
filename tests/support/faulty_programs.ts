/** Programs with every fault that a supervisor meets, all for one manager at once, and what must become of each. */

import type { Json } from "./manager_process.ts";
import { TELL } from "./notify_sender.ts";

/** Ignores the request to end, and says when it does. */
const DEAF = `trap "" TERM; echo up; exec sleep 1000`;
const MANY = 500;

export interface FaultyProgram {
  readonly config: Json;
  /** How many of its processes live when it has come up; 0: it need not come up. */
  readonly alive: number;
  /** What a stop makes of it. */
  readonly stopped: {
    readonly kind: "exit" | "signal";
    readonly code?: number;
    readonly signal?: string;
  };
}

const sh = (command: string, change: Json = {}): Json => ({
  command,
  shell: true,
  essential: false,
  timeout_stop: "3s", // who ends when asked has ended by then, on a loaded machine too
  restart_delay: "10ms",
  restart_max_delay: "100ms",
  ...change,
});

const TERM = { kind: "signal", signal: "SIGTERM" } as const;
const KILL = { kind: "signal", signal: "SIGKILL" } as const;
const LEFT = { kind: "exit", code: 0 } as const;
/** Ends itself as soon as it is asked to. */
const LEAVES = `trap "exit 0" TERM; sleep 1000 & wait`;

/** Those that run until they are stopped. */
export function stubbornPrograms(): Record<string, FaultyProgram> {
  return {
    "deaf-leader": { config: sh(DEAF), alive: 1, stopped: KILL },
    "deaf-grandchild": { config: sh(`sh -c '${DEAF}' & ${LEAVES}`), alive: 3, stopped: LEFT },
    // Neither group nor session is the leader's, and it is no child of anybody that is left.
    "escapee": {
      config: sh(`(setsid setsid sh -c '${DEAF}' >/dev/null 2>&1 </dev/null &); exec sleep 1000`),
      alive: 2,
      stopped: TERM,
    },
    "escapee-holding-output": {
      config: sh(`setsid sh -c '${DEAF}' & exec sleep 1000`),
      alive: 2,
      stopped: TERM,
    },
    // Its only trace is that its parents were ours.
    "escapee-without-mark": {
      config: sh(`env -i /usr/bin/setsid /bin/sh -c '${DEAF}' & exec sleep 1000`),
      alive: 1,
      stopped: TERM,
    },
    "orphans": {
      config: sh(
        `i=0; while [ $i -lt ${MANY} ]; do (sleep 0.1 &); i=$((i+1)); done; echo made; exec sleep 1000`,
      ),
      alive: 1,
      stopped: TERM,
    },
    // A member that ended while its parent, in another session, never asks for it: kill(-group, 0) succeeds.
    "zombie-group": {
      config: sh(`sh -c 'trap "" TERM; sleep 0.1 & exec setsid sleep 1000' & ${LEAVES}`),
      alive: 3,
      stopped: LEFT,
    },
    "suspended": { config: sh("kill -STOP $$; exec sleep 1000"), alive: 1, stopped: TERM },
    "suspended-child": { config: sh(`sh -c 'kill -STOP $$' & ${LEAVES}`), alive: 3, stopped: LEFT },
    "many-children": {
      config: sh(`i=0; while [ $i -lt 40 ]; do sh -c '${DEAF}' & i=$((i+1)); done; ${LEAVES}`),
      alive: 42,
      stopped: LEFT,
    },
    // The command of the probe never ends, and has a child that ignores what it is told.
    "hanging-probe": {
      config: sh("exec sleep 1000", {
        probes: {
          readiness: {
            exec: { command: ["/bin/sh", "-c", `sh -c '${DEAF}' & sleep 1000`] },
            period: "100ms",
            timeout: "100ms",
          },
        },
      }),
      alive: 0,
      stopped: TERM,
    },
    // No fault of its own: what it says by the data folder's socket is heard in all surroundings.
    "telling": {
      config: sh(`${TELL} tell READY=1 || exit 3; exec sleep 1000`, {
        probes: { startup: { notify: { socket: true } } },
      }),
      alive: 1,
      stopped: TERM,
    },
    "slow-follower": {
      config: sh("while :; do seq 100000; sleep 0.05; done", { logs: { pass_through: false } }),
      alive: 0,
      stopped: TERM,
    },
    // Ends all the time, so that a stop meets it in every moment of its life.
    "always-ending": {
      config: sh("exit 0", { restart: "always", restart_delay: "50ms" }),
      alive: 0,
      stopped: LEFT,
    },
  };
}

/** Those that fail by themselves; `plain` is a file without the right to be run, `busy` one that is being written. */
export function failingPrograms(plain: string, busy: string): Record<string, Json> {
  const command = (path: string, change: Json = {}): Json => ({
    ...sh("", change),
    command: [path, "1000"],
    shell: false,
  });
  return {
    "no-file": command("/no/such/program"),
    "no-right": command(plain),
    // Tried until the test has seen it fail.
    "busy": command(busy, { restart_delay: "100ms", start_limit: { burst: 600, interval: "2m" } }),
    "crash-loop": sh("exit 3", { start_limit: { burst: 5, interval: "1m" } }),
    "killed-loop": sh("kill -KILL $$", { start_limit: { burst: 5, interval: "1m" } }),
  };
}

/** One in every state that a process can be in when the end of all comes. */
export function programsInEveryState(): Record<string, Json> {
  const never = { exec: { command: ["false"] }, period: "100ms" };
  return {
    "is-waiting": sh("exec sleep 1000", { depends_on: { "is-starting": "ready" } }),
    "is-starting": sh("exec sleep 1000", { probes: { readiness: never }, timeout_start: "0s" }),
    "is-running": sh(DEAF, { timeout_stop: "10m" }),
    "is-stopping": sh(DEAF, { timeout_stop: "10m" }),
    "is-draining": sh(`sh -c '${DEAF}' & ${LEAVES}`, { timeout_stop: "10m" }),
    "is-backoff": sh("exit 1", { restart_delay: "1h", restart_max_delay: "1h" }),
    "is-stopped": sh("exec sleep 1000"),
    "is-completed": sh("exit 0", { restart: "no" }),
    "is-failed": sh("exit 1", { restart: "no" }),
    "is-skipped": sh("exec sleep 1000", { depends_on: { "is-failed": "succeeded" } }),
  };
}
