/** Configuration: read from file, variables and flags, checked whole, shown without secrets, kept atomically. */

export type { StoreCredentials } from "./credentials.ts";
export { formatDuration, parseDuration } from "./duration.ts";
export { type EnvDirAccess, readEnvDir } from "./env_dir.ts";
export { type ConfigFlags, type NamedPath, nameFromPath } from "./flags.ts";
export { configJsonSchema, configJsonSchemaText } from "./json_schema.ts";
export { CONFIG_KEYS, type ConfigKey, itemKeysOf, listsForObjects } from "./keys.ts";
export type { LayerName, Origin } from "./layers.ts";
export { isLoopback, parseListen } from "./listen.ts";
export { type FileAccess, loadConfig, type LoadedConfig, type LoadOptions, validateBody } from "./load.ts";
export { defaultDataDir, findConfigFile, findDataDir, type Place } from "./locate.ts";
export { persistConfig } from "./persist.ts";
export { credentialsElsewhere, persistCredentials } from "./persist_credentials.ts";
export { describeProblems, jsonPointer } from "./problems.ts";
export { redactedConfig } from "./redact.ts";
export { otherStacks, withProcessesOf } from "./reload.ts";
export { INJECTED_VARIABLES } from "./variables.ts";
export { durationSchema, secretSchema, signalSchema } from "./schema_values.ts";
export { formatSize, parseSize } from "./size.ts";
export type {
  CheckpointConfig,
  Config,
  DatabaseConfig,
  FilesConfig,
  LeaseConfig,
  ProcessConfig,
  RestoreConfig,
  ServerConfig,
  StorageConfig,
  TokenConfig,
} from "./types.ts";
