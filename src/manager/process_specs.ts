/** From configuration to what the supervisor runs: environments without the manager's secrets. */

import type { LoadedConfig } from "../config/mod.ts";
import type { Config, ProcessConfig } from "../config/types.ts";
import { inheritedVariables, type LogFormat, type LogSpec, type ProcessSpec } from "../supervisor/mod.ts";

/** What a process inherits: the manager's environment less its own settings, plus what `env_from` names. */
export function processEnvironment(
  process: Pick<ProcessConfig, "envFrom">,
  environment: Readonly<Record<string, string>>,
): Record<string, string> {
  return inheritedVariables(environment, process.envFrom);
}

/** What becomes of the output of a process; `standard` is the form of what is passed on where none is configured. */
export function logSpec({ logs }: ProcessConfig, standard: LogFormat): LogSpec {
  return { ...logs, format: logs.format ?? standard };
}

/**
 * The specs of all processes that `stacks` names (or all, when it names the built-in stack), in its order; those of the
 * built-in stack in that of the configuration. `own`: the manager's environment without the variables of
 * `storage.env_dir`, which each start reads anew.
 */
export function processSpecs(
  config: Config,
  environment: Readonly<Record<string, string>>,
  own: Readonly<Record<string, string>> = environment,
): ProcessSpec[] {
  const { envDir } = config.storage;
  const placeOf = (name: string) =>
    config.stacks.findIndex((stack) => stack === name || stack === "processes");
  return Object.entries(config.processes)
    .filter(([name]) => placeOf(name) >= 0)
    .sort(([one], [other]) => placeOf(one) - placeOf(other))
    .map(([name, process]) => ({
      name,
      command: process.command,
      cwd: process.cwd,
      env: processEnvironment(process, environment),
      envDir: envDir === null ? null : {
        path: envDir,
        envFrom: process.envFrom,
        under: processEnvironment(process, own),
      },
      envFiles: process.envFiles,
      ownEnv: process.env,
      execution: process.execution,
      schedule: process.schedule,
      watch: process.watch,
      memoryLimit: process.memoryLimit,
      dependsOn: process.dependsOn,
      restartWith: process.restartWith,
      restart: process.restart,
      restartDelayMs: process.restartDelayMs,
      restartMaxDelayMs: process.restartMaxDelayMs,
      startLimit: process.startLimit,
      timeoutStopMs: process.timeoutStopMs,
      stopSignal: process.stopSignal,
      stopMode: process.stopMode,
      stopCommand: process.stopCommand,
      finishCommand: process.finishCommand,
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

/** Neither changes once it is made. */
const made = new WeakMap<LoadedConfig, { readonly config: Config; readonly specs: readonly ProcessSpec[] }>();

/**
 * Those of a configuration that is in force; `config` where it has none (yet). Made once: each end of a process asks, and
 * very many may end in one moment.
 */
export function specsOf(loaded: LoadedConfig, config: Config): readonly ProcessSpec[] {
  const known = made.get(loaded);
  const inForce = loaded.config ?? config;
  if (known?.config === inForce) return known.specs;
  const specs = processSpecs(inForce, loaded.environment, loaded.ownEnvironment);
  made.set(loaded, { config: inForce, specs });
  return specs;
}
