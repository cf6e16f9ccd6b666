/** One process's machine driven through events, for tests of the table in states.ts. */

import assert from "node:assert/strict";
import type { Effect, Machine, MachineEvent } from "../../src/supervisor/machine.ts";
import { newMachine } from "../../src/supervisor/machine.ts";
import { READY_AFTER_MS, transition } from "../../src/supervisor/states.ts";
import type { ExitCause, ProcessSpec, ProcessState, RestartReason } from "../../src/supervisor/types.ts";
import { processSpec } from "./process_specs.ts";

export const exit = (code: number): ExitCause => ({ kind: "exit", code });
export const signal = (name: string, number: number): ExitCause => ({
  kind: "signal",
  signal: name,
  number,
});
const spawnError = {
  kind: "spawn-error",
  error: "start app: not found",
  code: 127,
} as const;

export const EVENTS: {
  readonly [E in MachineEvent["type"]]: MachineEvent & { type: E };
} = {
  "want-up": { type: "want-up" },
  "want-down": { type: "want-down", deadlineMs: 9_000 },
  "fence": { type: "fence" },
  "met": { type: "met" },
  "unmeetable": { type: "unmeetable", reason: "database is failed" },
  "spawned": { type: "spawned" },
  "spawn-failed": { type: "spawn-failed", cause: spawnError, permanent: true, isShortage: false },
  "leader-exited": { type: "leader-exited", cause: exit(1), groupGone: true },
  "group-gone": { type: "group-gone" },
  "output-ended": { type: "output-ended" },
  "hook-ended": { type: "hook-ended" },
  "tick": { type: "tick" },
  "restart": { type: "restart", reason: "person", detail: null },
  "ready": { type: "ready" },
  "not-ready": { type: "not-ready" },
};

/** Drives a machine through events at given times. */
export class Life {
  machine: Machine = newMachine();
  effects: Effect[] = [];
  nowMs = 0;
  constructor(readonly spec: ProcessSpec, readonly roll = 0.5) {}

  to(...events: (MachineEvent | MachineEvent["type"])[]): this {
    this.effects = [];
    for (const event of events) {
      const full = typeof event === "string" ? EVENTS[event] : event;
      const step = transition(this.spec, this.machine, full, {
        nowMs: this.nowMs,
        roll: this.roll,
      });
      this.machine = step.machine;
      this.effects.push(...step.effects);
    }
    return this;
  }

  at(nowMs: number): this {
    this.nowMs = nowMs;
    return this;
  }

  /** One whole run that ends with `cause` after `uptimeMs`. */
  run(cause: ExitCause, uptimeMs = 0): this {
    this.to("met", "spawned");
    this.nowMs += uptimeMs;
    return this.to(
      { type: "leader-exited", cause, groupGone: true },
      "output-ended",
    );
  }
}

export function machineIn(state: ProcessState): Machine {
  const life = new Life(processSpec({ restart: "on-failure" }));
  const path: { readonly [S in ProcessState]: MachineEvent["type"][] } = {
    pending: [],
    waiting: ["want-up"],
    starting: ["want-up", "met", "spawned"],
    running: ["want-up", "met", "spawned"],
    stopping: ["want-up", "met", "spawned", "want-down"],
    draining: ["want-up", "met", "spawned", "leader-exited"],
    backoff: ["want-up", "met", "spawned", "leader-exited", "output-ended"],
    stopped: ["want-down"],
    completed: ["want-up", "met", "spawned"],
    failed: ["want-up", "met", "spawn-failed"],
    skipped: ["want-up", "unmeetable"],
  };
  life.to(...path[state]);
  if (state === "running") life.at(READY_AFTER_MS).to("tick");
  if (state === "completed") {
    life.to(
      { type: "leader-exited", cause: exit(0), groupGone: true },
      "output-ended",
    );
  }
  assert.equal(life.machine.state, state);
  return life.machine;
}

export const RESTART_REASONS: readonly RestartReason[] = [
  "person",
  "changed",
  "watch",
  "schedule",
  "dependency",
  "startup",
  "liveness",
  "watchdog",
  "memory",
];
