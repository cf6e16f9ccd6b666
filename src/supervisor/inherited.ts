/**
 * What a process gets of the manager's variables: all but its credentials and settings. With a folder of variables (as
 * Kubernetes mounts secrets) they are read from it anew at each start, so that they rotate as those of files do.
 */

import { listFilesNow } from "../platform/environment.ts";
import { readSmallFile } from "../platform/small_file.ts";

type Variables = Readonly<Record<string, string>>;

/** Variables that hold the manager's own credentials and settings; a process gets one only by naming it. */
const WITHHELD = /^(AWS_|STATE_MANAGER_|BUCKET_NAME$)/;
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/;
/** Linux takes no longer single variable (MAX_ARG_STRLEN). */
const LONGEST_BYTES = 131_071;
/** A mount swaps all its files at once, but we read one by one: two equal readings in a row were not torn. */
const MOST_READINGS = 5;

export interface InheritedFolder {
  readonly path: string;
  /** Names that are not withheld. */
  readonly envFrom: readonly string[];
  /** What it gets besides: the manager's own variables. */
  readonly under: Variables;
}

export function inheritedVariables(
  environment: Variables,
  envFrom: readonly string[],
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).filter(([name]) => !WITHHELD.test(name) || envFrom.includes(name)),
  );
}

/** As the folder is now, or what is wrong with it. */
export function readInherited({ path, envFrom, under }: InheritedFolder): Record<string, string> | string {
  let last = readOnce(path);
  for (let reading = 1; reading < MOST_READINGS && typeof last !== "string"; reading++) {
    const next = readOnce(path);
    if (JSON.stringify(next) === JSON.stringify(last)) {
      return inheritedVariables({ ...under, ...last }, envFrom);
    }
    last = next;
  }
  return typeof last === "string" ? last : "its files change all the time";
}

function readOnce(path: string): Record<string, string> | string {
  const names = listFilesNow(path);
  if (typeof names === "string") return names;
  const variables: Record<string, string> = {};
  for (const name of names.filter((name) => VARIABLE.test(name))) {
    const { content, error } = readSmallFile(`${path}/${name}`, LONGEST_BYTES);
    if (error !== null) return `${name}: ${error}`;
    if (content.includes("\0")) return `${name}: it holds a NUL`;
    variables[name] = content.replace(/\r?\n$/, "");
  }
  return variables;
}
