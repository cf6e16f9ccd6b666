/** Variables as layers of the configuration: ours above the file, the usual AWS ones below it. */

import { CONFIG_KEYS, OTHER_VARIABLES, UNAVAILABLE_KEYS, VARIABLE_PREFIX } from "./keys.ts";
import type { ConfigKey } from "./keys.ts";
import type { Setting } from "./flags.ts";
import type { Problem } from "./problems.ts";
import { didYouMean } from "./suggest.ts";
import { parseJsonc } from "./jsonc.ts";

type Variables = Readonly<Record<string, string>>;

/** Reads a small text file; null when there is none. Throws when it cannot be read. */
export type ReadText = (path: string) => Promise<string | null>;

/** Where nothing else sets the key; these names are what platforms inject. */
const FALLBACKS: Readonly<Record<string, string>> = {
  BUCKET_NAME: "storage.bucket",
  AWS_ENDPOINT_URL_S3: "storage.endpoint",
  AWS_REGION: "storage.region",
  AWS_ACCESS_KEY_ID: "storage.access_key",
  AWS_SECRET_ACCESS_KEY: "storage.secret_key",
  AWS_SESSION_TOKEN: "storage.session_token",
};

export const INJECTED_VARIABLES: readonly string[] = Object.keys(FALLBACKS);

/** An empty variable counts as unset, as in `docker run -e NAME=`. */
function textOf(variables: Variables, name: string): string | undefined {
  const text = Object.hasOwn(variables, name) ? variables[name] : undefined;
  return text === "" ? undefined : text;
}

/** The settings below the file. */
export function fallbackSettings(variables: Variables): Setting[] {
  return Object.entries(FALLBACKS).flatMap(([name, key]) => {
    const value = textOf(variables, name);
    return value === undefined ? [] : [{ path: key.split("."), value, source: name }];
  });
}

/** A variable's text as the key's kind wants it; what does not fit stays text, and the schema says what was wanted. */
function convert(key: ConfigKey, text: string): { value: unknown; problem?: string } {
  if (key.kind === "number") return { value: /^-?\d+$/.test(text) ? Number(text) : text };
  // lease.wait is either; its schema takes texts as durations.
  if (key.kind === "boolean" || key.path.join(".") === "lease.wait") {
    if (/^(true|yes|on)$/i.test(text)) return { value: true };
    if (/^(false|no|off)$/i.test(text)) return { value: false };
    if (key.kind === "boolean" && (text === "1" || text === "0")) return { value: text === "1" };
    return { value: text };
  }
  if (key.kind === "list" && !text.trimStart().startsWith("[")) {
    return { value: text.split(",").map((part) => part.trim()).filter((part) => part !== "") };
  }
  if (key.kind === "json" || key.kind === "list") {
    const { value, problems } = parseJsonc(text, key.variable);
    const [first] = problems;
    return first === undefined ? { value } : { value, problem: `got text that is not JSON, wanted JSON` };
  }
  return { value: text };
}

async function settingOf(
  key: ConfigKey,
  variables: Variables,
  readText: ReadText,
): Promise<Setting | Problem | null> {
  const direct = textOf(variables, key.variable);
  const fileName = key.secret && key.kind === "text" ? `${key.variable}_FILE` : null;
  const file = fileName === null ? undefined : textOf(variables, fileName);
  if (direct !== undefined && file !== undefined) {
    return { at: key.variable, detail: `got both ${key.variable} and ${fileName}, wanted one` };
  }
  if (direct !== undefined) {
    const { value, problem } = convert(key, direct);
    if (problem !== undefined) return { at: key.variable, detail: problem };
    return { path: key.path, value, source: key.variable };
  }
  if (file === undefined || fileName === null) return null;
  const text = await readSecretFile(file, readText);
  if (text === null) {
    return { at: fileName, detail: "got a file that cannot be read, wanted a readable file" };
  }
  return { path: key.path, value: text, source: fileName };
}

/** Content less one trailing line break, or null when it cannot be read. */
export async function readSecretFile(path: string, readText: ReadText): Promise<string | null> {
  try {
    return (await readText(path))?.replace(/\r?\n$/, "") ?? null;
  } catch {
    return null;
  }
}

export interface VariableLayer {
  readonly settings: Setting[];
  readonly problems: Problem[];
  readonly warnings: string[];
}

/** The settings above the file, from `STATE_MANAGER_…`. */
export async function variableSettings(variables: Variables, readText: ReadText): Promise<VariableLayer> {
  const settings: Setting[] = [];
  const problems: Problem[] = [];
  const known = new Set<string>(OTHER_VARIABLES);
  for (const key of [...CONFIG_KEYS, ...UNAVAILABLE_KEYS]) {
    known.add(key.variable);
    if (key.secret && key.kind === "text") known.add(`${key.variable}_FILE`);
    const found = await settingOf(key, variables, readText);
    if (found === null) continue;
    if ("at" in found) problems.push(found);
    else settings.push(found);
  }
  const warnings = Object.keys(variables)
    .filter((name) => name.startsWith(VARIABLE_PREFIX) && !known.has(name))
    .sort()
    .map((name) => `unknown variable ${name}${didYouMean(name, [...known])} (ignored)`);
  return { settings, problems, warnings };
}
