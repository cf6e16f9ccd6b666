/**
 * One configuration out of file, variables and flags, or every problem with them at once. Nothing is written here,
 * and nothing that is wrong is guessed at: a manager with half of its configuration is worse than none.
 */

import { fileMode, listFiles } from "../platform/environment.ts";
import type { ErrorDetail } from "../platform/errors.ts";
import { isError } from "../platform/errors.ts";
import { readTextIfPresent } from "../platform/files.ts";
import { hostPlatform } from "../platform/host_platform.ts";
import { CredentialSource, type StoreCredentials } from "./credentials.ts";
import { effectiveConfig } from "./effective.ts";
import { readEnvDir } from "./env_dir.ts";
import { escapeValue, expandValue } from "./expand.ts";
import { type ConfigFlags, flagSettings, type Setting } from "./flags.ts";
import { checkShape, parseJsonc } from "./jsonc.ts";
import { layered, type Origin, pointerOf } from "./layers.ts";
import { findConfigFile } from "./locate.ts";
import { parseTogether } from "./parse.ts";
import { configError, kindOf, MOST_PROBLEMS, plainPointer, type Problem } from "./problems.ts";
import { redactedConfig } from "./redact.ts";
import { readTokens } from "./tokens.ts";
import type { Config, ServerConfig } from "./types.ts";
import { fallbackSettings, type ReadText, variableSettings } from "./variables.ts";

type Variables = Readonly<Record<string, string>>;

/** Files as the loader sees them; tests bring their own. */
export interface FileAccess {
  readonly readText: ReadText;
  /** Names of the regular files of a folder. */
  readonly listFiles: (path: string) => Promise<readonly string[]>;
  /** Permission bits; null where there is no file. */
  readonly fileMode: (path: string) => Promise<number | null>;
}

export interface LoadOptions {
  readonly environment: Variables;
  readonly flags: ConfigFlags;
  /** Absolute. */
  readonly dataDir: string;
  /** The current folder: relative paths in flags start there. */
  readonly folder: string;
  /** Default: the machine's. */
  readonly access?: FileAccess;
  /** Whether messages may show what is in the file. Default: true. */
  readonly showValues?: boolean;
}

export interface LoadedConfig {
  /** Null: no storage is given anywhere; the manager waits for `POST /config`. */
  readonly config: Config | null;
  /** In force for an unconfigured manager too. */
  readonly server: ServerConfig;
  readonly log: Config["log"];
  /** The manager's variables with those of `storage.env_dir` over them: what processes inherit from. */
  readonly environment: Variables;
  /** Without those of `storage.env_dir`. */
  readonly ownEnvironment: Variables;
  /** Where the file is, or would be kept. */
  readonly file: string;
  /** In the file's language, unexpanded: what `persistConfig` keeps. Null: there is no file. */
  readonly raw: unknown;
  /** By dotted key: what set it. A key that is not here has its default. */
  readonly origins: Readonly<Record<string, Origin>>;
  readonly warnings: readonly string[];
  /** In the file's names, secrets as "***"; null while unconfigured. */
  redacted(): Record<string, unknown> | null;
  /** The store's credentials as they are now. Null for a folder store and while unconfigured. */
  currentCredentials(): StoreCredentials | null;
  /**
   * Reads the folder of variables and secret files again; true when the credentials changed. On an error
   * (`config-invalid`, `local-io`) the old ones stay.
   */
  refreshCredentials(): Promise<boolean>;
  /** These count from now on, until those that were read change. */
  replaceCredentials(next: StoreCredentials): void;
}

const MACHINE: FileAccess = { readText: readTextIfPresent, listFiles, fileMode };

/** What `POST /config` sent: unlike a file, it must name a store. */
const BODY = "body";

/** The part that comes from a file or a body, before variables and flags. */
interface Document {
  /** Undefined: none. */
  readonly value: unknown;
  readonly source: string;
  readonly expand: boolean;
  /** Whether messages may show values: not in answers over HTTP. */
  readonly showValues: boolean;
  /** What could not be done, for the error. */
  readonly action: string;
}

interface Gathered {
  readonly problems: Problem[];
  readonly warnings: string[];
  readonly variables: Variables;
  readonly value: unknown;
  readonly origins: Readonly<Record<string, Origin>>;
}

function member(value: unknown, key: string): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  return Object.hasOwn(value, key) ? (value as Readonly<Record<string, unknown>>)[key] : undefined;
}

/** The folder of variables must be known before variables are: it is taken from the process's own alone. */
async function variablesWithEnvDir(
  document: Document,
  options: LoadOptions,
  access: FileAccess,
  problems: Problem[],
): Promise<Variables> {
  const named = options.environment["STATE_MANAGER_STORAGE_ENV_DIR"];
  const written = member(member(document.value, "storage"), "env_dir");
  const expanded = document.expand ? expandValue(written, options.environment).value : written;
  const path = named || expanded;
  if (typeof path !== "string" || !path.startsWith("/")) return options.environment; // the schema speaks of it
  try {
    return { ...options.environment, ...await readEnvDir(path, access) };
  } catch (error) {
    const detail = isError(error) ? error.message : "got a folder that cannot be read, wanted a readable one";
    problems.push({ at: named ? "STATE_MANAGER_STORAGE_ENV_DIR" : ["storage", "env_dir"], detail });
    return options.environment;
  }
}

async function gather(
  document: Document,
  options: LoadOptions,
  flags: readonly Setting[],
): Promise<Gathered> {
  const access = options.access ?? MACHINE;
  const problems: Problem[] = [];
  const variables = await variablesWithEnvDir(document, options, access, problems);
  const expansion = document.expand
    ? expandValue(document.value, variables)
    : { value: document.value, problems: [] };
  problems.push(...expansion.problems);
  const environment = await variableSettings(variables, access.readText);
  problems.push(...environment.problems);
  const { value, origins } = layered({
    file: document.value === undefined ? null : { value: expansion.value, source: document.source },
    fallback: fallbackSettings(variables),
    environment: environment.settings,
    flags,
  });
  return { problems, warnings: environment.warnings, variables, value, origins };
}

/** Everything after the document is at hand; the document's own problems come first. */
async function assemble(
  document: Document,
  options: LoadOptions,
  file: string,
  raw: unknown,
  documentProblems: readonly Problem[],
): Promise<LoadedConfig> {
  const access = options.access ?? MACHINE;
  const flags = flagSettings(options.flags, options.folder);
  const gathered = await gather(document, options, flags);
  const problems = [...documentProblems, ...gathered.problems];
  const warnings = [...gathered.warnings];
  const exists = async (path: string) => await access.fileMode(path).catch(() => null) !== null;
  const platform = await hostPlatform(options.environment, exists);
  const parsed = await parseTogether(gathered.value, document.showValues, async (value) => {
    const tokens = await readTokens(value, gathered.variables, access.readText);
    const surroundings = { dataDir: options.dataDir, tokens: tokens.tokens, platform };
    const effective = effectiveConfig(value, surroundings);
    return { ...effective, problems: [...tokens.problems, ...effective.problems], tokens };
  });
  // A text that could not be expanded is wrong already; what the schema thinks of its remains is of no use.
  const told = new Set(problems.map(({ at }) => JSON.stringify(at)));
  problems.push(...parsed.problems.filter(({ at }) => !told.has(JSON.stringify(at))));
  const effective = parsed.result;
  if (effective !== null && parsed.complete) {
    warnings.push(...effective.tokens.warnings, ...effective.warnings);
    if (document.source === BODY && effective.config === null && problems.length === 0) {
      problems.push({ at: ["storage"], detail: "got neither bucket nor directory, wanted one of them" });
    }
  }
  if (problems.length > 0 || effective === null) {
    throw configError(document.action, detailsOf(problems, gathered.origins));
  }
  const { config, server, log } = effective;
  const credentials = new CredentialSource(config, async () => {
    const again = await gather(document, options, flags);
    return { value: again.value, details: detailsOf(again.problems, again.origins) };
  });
  return {
    config,
    server,
    log,
    environment: gathered.variables,
    ownEnvironment: options.environment,
    file,
    raw,
    origins: gathered.origins,
    warnings,
    redacted: () => config === null ? null : redactedConfig(config),
    currentCredentials: () => credentials.current(),
    refreshCredentials: () => credentials.refresh(),
    replaceCredentials: (next) => credentials.replace(next),
  };
}

function detailsOf(problems: readonly Problem[], origins: Readonly<Record<string, Origin>>): ErrorDetail[] {
  const seen = new Set<string>();
  return problems.flatMap((problem) => {
    // The rest is only counted: what set it takes a look at everything.
    const pointer = seen.size < MOST_PROBLEMS ? pointerOf(problem, origins) : plainPointer(problem);
    const key = `${pointer}\n${problem.detail}`;
    if (seen.has(key)) return [];
    seen.add(key);
    return [{ pointer, detail: problem.detail }];
  });
}

/**
 * The configuration of this start. Errors: `config-invalid` with every problem, `usage` for flags that contradict
 * each other.
 */
export async function loadConfig(options: LoadOptions): Promise<LoadedConfig> {
  const access = options.access ?? MACHINE;
  const { path, source } = findConfigFile(
    options.flags,
    options.environment,
    options.dataDir,
    options.folder,
  );
  const action = `load ${path}`;
  const problems: Problem[] = [];
  const warnings: string[] = [];
  let text: string | null = null;
  try {
    text = await access.readText(path);
    if (text === null && source !== null) {
      problems.push({ at: source, detail: `got ${path}, where there is no file; wanted a file` });
    }
  } catch {
    problems.push({ at: source ?? path, detail: "got a file that cannot be read, wanted a readable one" });
  }
  const parsed = text === null ? { value: undefined, problems: [] } : parseJsonc(text, path);
  // A text that could not be expanded is wrong already; what the schema thinks of its remains is of no use.
  const told = new Set(problems.map(({ at }) => JSON.stringify(at)));
  problems.push(...parsed.problems.filter(({ at }) => !told.has(JSON.stringify(at))));
  if (text !== null) {
    const mode = await access.fileMode(path);
    if (mode !== null && (mode & 0o004) !== 0) {
      warnings.push(`${path} can be read by everybody: chmod 600 it`);
    }
  }
  const document = {
    value: parsed.value,
    source: path,
    expand: true,
    showValues: options.showValues ?? true,
    action,
  };
  // With a file that is no JSON all else would only be said to be missing.
  if (text !== null && parsed.value === undefined) throw configError(action, detailsOf(problems, {}));
  const loaded = await assemble(document, options, path, parsed.value ?? null, problems);
  return { ...loaded, warnings: [...warnings, ...loaded.warnings] };
}

/**
 * The configuration that `POST /config` asks for: the same rules, but nothing in the body is expanded, messages show
 * none of its values, and it must name a store. `raw` is the body in the file's language, ready to be kept.
 */
export async function validateBody(body: unknown, options: LoadOptions): Promise<LoadedConfig> {
  const { path } = findConfigFile(options.flags, options.environment, options.dataDir, options.folder);
  const action = "check the configuration";
  const shape = checkShape(body);
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    shape.push({ at: [], detail: `got ${kindOf(body)}, wanted an object` });
  }
  if (shape.length > 0) throw configError(action, detailsOf(shape, {}));
  const document = { value: body, source: BODY, expand: false, showValues: false, action };
  return await assemble(document, options, path, escapeValue(body), []);
}
