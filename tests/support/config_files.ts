/** Files for the configuration's loader that exist only in a test. */

import type { ConfigFlags, FileAccess, LoadedConfig, LoadOptions } from "../../src/config/mod.ts";
import { loadConfig } from "../../src/config/mod.ts";
import { StateManagerError } from "../../src/platform/errors.ts";

/** The files of `content` by absolute path; changing the map changes the files. */
export function fakeFiles(
  content: Record<string, string>,
  mode = 0o600,
): FileAccess {
  return {
    readText: (path) => Promise.resolve(content[path] ?? null),
    listFiles: (path) => {
      const names = Object.keys(content).filter((name) => name.startsWith(`${path}/`));
      if (names.length === 0) {
        return Promise.reject(new Error(`no folder ${path}`));
      }
      return Promise.resolve(
        names.map((name) => name.slice(path.length + 1)).sort(),
      );
    },
    fileMode: (path) => Promise.resolve(content[path] === undefined ? null : mode),
  };
}

export interface Given {
  /** The configuration file: a text, or a value that becomes one. */
  readonly file?: unknown;
  readonly environment?: Record<string, string>;
  readonly flags?: ConfigFlags;
  /** Further files by absolute path. */
  readonly files?: Record<string, string>;
}

export function optionsFor(
  { file, environment = {}, flags = {}, files = {} }: Given,
): LoadOptions {
  const content = { ...files };
  if (file !== undefined) {
    content["/data/config.json"] = typeof file === "string" ? file : JSON.stringify(file);
  }
  return {
    environment,
    flags,
    dataDir: "/data",
    folder: "/home/me",
    access: fakeFiles(content),
  };
}

export function load(given: Given): Promise<LoadedConfig> {
  return loadConfig(optionsFor(given));
}

/** What is wrong, by pointer. Fails when nothing is. */
export async function problemsOf(
  loading: Promise<unknown>,
): Promise<Record<string, string>> {
  try {
    await loading;
  } catch (error) {
    if (
      !(error instanceof StateManagerError) || error.code !== "config-invalid"
    ) throw error;
    return Object.fromEntries(
      error.details.map(({ pointer, detail }) => [pointer, detail]),
    );
  }
  throw new Error("the configuration was accepted, wanted it refused");
}

/** The least that is configured. */
export const FOLDER_STORE = { storage: { directory: "/store" } };
