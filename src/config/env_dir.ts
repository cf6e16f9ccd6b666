/**
 * A folder of files, one per variable (daemontools' envdir, mounted secrets): the name is the file's, the value its
 * content less one trailing line break. Names that begin with a dot are ignored; mounts keep their own things there.
 */

import { StateManagerError } from "../platform/errors.ts";

/** More than any secret mount has; a bound so that a wrong folder is an error, not a long wait. */
const MOST_FILES = 1000;
/** A mount swaps all files at once, but we read one by one: two equal readings in a row were not torn. */
const MOST_READINGS = 5;

export interface EnvDirAccess {
  readonly listFiles: (path: string) => Promise<readonly string[]>;
  readonly readText: (path: string) => Promise<string | null>;
}

async function readOnce(path: string, access: EnvDirAccess): Promise<Record<string, string>> {
  const names = (await access.listFiles(path)).filter((name) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name));
  if (names.length > MOST_FILES) {
    throw new StateManagerError(
      "config-invalid",
      `read ${path}: got ${names.length} files, wanted at most ${MOST_FILES}, one per variable`,
      { hint: "set storage.env_dir to a folder that holds nothing but variables" },
    );
  }
  const variables: Record<string, string> = {};
  for (const name of names) {
    const text = await access.readText(`${path}/${name}`);
    if (text !== null) variables[name] = text.replace(/\r?\n$/, "");
  }
  return variables;
}

function isSame(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  return JSON.stringify(a) === JSON.stringify(b); // names come sorted
}

/**
 * The variables of one folder; files whose names are no variable's are ignored. Read until two readings agree, so
 * that the parts of a credential belong together; errors: `local-io`, `config-invalid`.
 */
export async function readEnvDir(path: string, access: EnvDirAccess): Promise<Record<string, string>> {
  let last = await readOnce(path, access);
  for (let reading = 1; reading < MOST_READINGS; reading++) {
    const next = await readOnce(path, access);
    if (isSame(last, next)) return next;
    last = next;
  }
  throw new StateManagerError(
    "local-io",
    `read ${path}: its files change all the time, wanted them at rest`,
    {
      hint: "write all files of a rotation at once",
    },
  );
}
