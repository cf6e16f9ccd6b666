/** What a reload may change of a configuration in force: its processes and what they inherit. All else stays as it is. */

import type { LoadedConfig } from "./load.ts";
import { redactedConfig } from "./redact.ts";
import type { Config } from "./types.ts";

/** `inForce` with the processes of `read`. */
export function withProcessesOf(inForce: LoadedConfig, read: LoadedConfig): LoadedConfig {
  if (inForce.config === null || read.config === null) return inForce;
  const config: Config = {
    ...inForce.config,
    processes: read.config.processes,
    stacks: [...otherStacks(inForce.config), ...processStacks(read.config)],
  };
  return { ...inForce, config, environment: read.environment, redacted: () => redactedConfig(config) };
}

const isOfProcesses = ({ processes }: Config, name: string) =>
  name === "processes" || Object.hasOwn(processes, name);

/** Names of stacks that start no process. */
export function otherStacks(config: Config): string[] {
  return config.stacks.filter((name) => !isOfProcesses(config, name));
}

function processStacks(config: Config): string[] {
  return config.stacks.filter((name) => isOfProcesses(config, name));
}
