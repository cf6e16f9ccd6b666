/** From configuration to what the supervisor runs: environments without the manager's secrets. */

import type { Config, ProcessConfig } from "../config/types.ts";
import type { LogFormat, LogSpec, ProcessSpec } from "../supervisor/mod.ts";

/** Variables that hold the manager's own credentials and settings; a process gets one only by naming it. */
const WITHHELD = /^(AWS_|STATE_MANAGER_|BUCKET_NAME$)/;

/** What a process inherits: the manager's environment less its own settings, plus what `env_from` names. */
export function processEnvironment(
  process: Pick<ProcessConfig, "envFrom">,
  environment: Readonly<Record<string, string>>,
): Record<string, string> {
  const result: Record<string, string> = {};
  for (const [name, value] of Object.entries(environment)) {
    if (!WITHHELD.test(name) || process.envFrom.includes(name)) {
      result[name] = value;
    }
  }
  return result;
}

/** What becomes of the output of a process; `standard` is the form of what is passed on where none is configured. */
export function logSpec({ logs }: ProcessConfig, standard: LogFormat): LogSpec {
  return { ...logs, format: logs.format ?? standard };
}

/** The specs of all processes that `stacks` names (or all, when it names the built-in stack). */
export function processSpecs(
  config: Config,
  environment: Readonly<Record<string, string>>,
): ProcessSpec[] {
  const all = config.stacks.includes("processes");
  return Object.entries(config.processes)
    .filter(([name]) => all || config.stacks.includes(name))
    .map(([name, process]) => ({
      name,
      command: process.command,
      cwd: process.cwd,
      env: processEnvironment(process, environment),
      envFiles: process.envFiles,
      ownEnv: process.env,
      execution: process.execution,
      schedule: process.schedule,
      watch: process.watch,
      memoryLimit: process.memoryLimit,
      dependsOn: process.dependsOn,
      restart: process.restart,
      restartDelayMs: process.restartDelayMs,
      restartMaxDelayMs: process.restartMaxDelayMs,
      startLimit: process.startLimit,
      timeoutStopMs: process.timeoutStopMs,
      stopSignal: process.stopSignal,
      successExit: process.successExit,
      noRestartOn: process.noRestartOn,
      essential: process.essential,
      probes: process.probes,
      timeoutStartMs: process.timeoutStartMs,
      forwardSignals: process.forwardSignals,
      reloadSignal: process.reloadSignal,
      stdio: process.interactive ? "inherit" : "pipe",
    }));
}
