/**
 * New storage keys into the configuration file, in place of those that stand there: everything else of it, comments
 * too, stays as a person wrote it. If we die before the last rename the file before is still in force.
 */

import { applyEdits, modify } from "jsonc-parser";
import { StateManagerError } from "../platform/errors.ts";
import { readTextIfPresent } from "../platform/files.ts";
import { type LocalFiles, systemFiles } from "../platform/local_files.ts";
import type { StoreCredentials } from "./credentials.ts";
import { escapeText } from "./expand.ts";
import { parseJsonc } from "./jsonc.ts";
import type { Origin } from "./layers.ts";
import { writeConfigText } from "./persist.ts";

const KEYS = ["access_key", "secret_key", "session_token"] as const;

/**
 * Where else than in the file the keys in force come from: a restart would read them there again. Null: from the file
 * alone, which can keep others. `raw` is the file's value, unexpanded.
 */
export function credentialsElsewhere(raw: unknown, origins: Readonly<Record<string, Origin>>): string | null {
  for (const key of KEYS) {
    const origin = origins[`storage.${key}`];
    if (origin !== undefined && origin.layer !== "file") return origin.source;
    const text = storageOf(raw)[key];
    if (typeof text === "string" && text.replaceAll("$$", "").includes("${")) return "a variable of the file";
  }
  return origins["storage.access_key"] === undefined ? "nowhere" : null;
}

function storageOf(raw: unknown): Readonly<Record<string, unknown>> {
  const storage = typeof raw === "object" && raw !== null && "storage" in raw ? raw.storage : null;
  return typeof storage === "object" && storage !== null ? storage as Readonly<Record<string, unknown>> : {};
}

/** Errors: `config-unwritable`, also where the file is gone or does not parse any more; then nothing is changed. */
export async function persistCredentials(
  path: string,
  { accessKey, secretKey, sessionToken }: StoreCredentials,
  wallMs: number,
  files: LocalFiles = systemFiles,
): Promise<void> {
  const text = await readTextIfPresent(path, files).catch(() => null);
  if (text === null || parseJsonc(text, path).problems.length > 0) {
    throw new StateManagerError(
      "config-unwritable",
      `keep the storage keys: ${path} cannot be read any more`,
      {
        hint: "correct the file, then send them again",
      },
    );
  }
  const values = {
    access_key: escapeText(accessKey.reveal()),
    secret_key: escapeText(secretKey.reveal()),
    // Undefined takes it out.
    session_token: sessionToken === null ? undefined : escapeText(sessionToken.reveal()),
  };
  const formattingOptions = { insertSpaces: true, tabSize: 2 };
  const next = KEYS.reduce(
    (edited, key) => applyEdits(edited, modify(edited, ["storage", key], values[key], { formattingOptions })),
    text,
  );
  await writeConfigText(path, text, next, wallMs, files);
}
