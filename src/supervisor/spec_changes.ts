/** What a new definition of a process changes: at once, or from its next start on. Pure. */

import { isToldAlike } from "./probe_types.ts";
import type { Execution, ProcessSpec } from "./types.ts";

/** live: a rule that is looked up when it is needed. start: given to the incarnation when it was spawned. */
type FieldClass = "live" | "start";

/** Every field of a definition, by its key in the configuration. Total by type: a new field must be thought of here. */
const FIELDS: Readonly<Record<Exclude<keyof ProcessSpec, "name">, readonly [key: string, FieldClass]>> = {
  command: ["command", "start"],
  cwd: ["cwd", "start"],
  env: ["env", "start"],
  envDir: ["env_dir", "start"],
  ownEnv: ["env", "start"],
  envFiles: ["env_file", "start"],
  execution: ["execution", "start"], // told by its own keys
  stdio: ["interactive", "start"],
  probes: ["probes", "live"], // but where they need a descriptor or another interval of heartbeats
  timeoutStartMs: ["timeout_start", "live"],
  schedule: ["schedule", "live"],
  watch: ["watch", "live"],
  memoryLimit: ["memory_limit", "live"],
  dependsOn: ["depends_on", "live"],
  restartWith: ["depends_on", "live"],
  restart: ["restart", "live"],
  restartDelayMs: ["restart_delay", "live"],
  restartMaxDelayMs: ["restart_max_delay", "live"],
  startLimit: ["start_limit", "live"],
  timeoutStopMs: ["timeout_stop", "live"],
  stopSignal: ["stop_signal", "live"],
  stopMode: ["stop_mode", "live"],
  stopCommand: ["stop_command", "live"],
  finishCommand: ["finish_command", "live"],
  successExit: ["success_exit", "live"],
  noRestartOn: ["no_restart_on", "live"],
  essential: ["essential", "live"],
  forwardSignals: ["forward_signals", "live"],
  reloadSignal: ["reload_signal", "live"],
};

export interface SpecChanges {
  /** Keys that count at once. */
  readonly live: readonly string[];
  /** Keys that count from the next start on. */
  readonly start: readonly string[];
}

/** Keys in the table's order; both empty: nothing differs. */
export function specChanges(before: ProcessSpec, after: ProcessSpec): SpecChanges {
  const live = new Set<string>();
  const start = new Set<string>();
  for (const [field, [key, kind]] of Object.entries(FIELDS)) {
    const name = field as keyof typeof FIELDS;
    if (isSame(before[name], after[name])) continue;
    const keys = name === "execution" ? executionKeys(before.execution, after.execution) : [key];
    const isLive = kind === "live" && (name !== "probes" || isToldAlike(before.probes, after.probes));
    for (const each of keys) (isLive ? live : start).add(each);
  }
  return { live: [...live], start: [...start] };
}

function executionKeys(before: Execution, after: Execution): string[] {
  return Object.entries(before)
    .filter(([key, value]) => !isSame(value, after[key as keyof Execution]))
    .map(([key]) => key);
}

/** Same plain data; the order of an object's keys says nothing. */
export function isSame(one: unknown, other: unknown): boolean {
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) {
    return Object.is(one, other);
  }
  if (Array.isArray(one) !== Array.isArray(other)) return false;
  const entries = Object.entries(one);
  return entries.length === Object.keys(other).length &&
    entries.every(([key, value]) =>
      Object.hasOwn(other, key) && isSame(value, (other as Readonly<Record<string, unknown>>)[key])
    );
}
