/**
 * Keys and values that belong to the configuration's language but whose feature this version does not have. They are
 * refused with a reason: a manager that ignored `databases` would lose what somebody believes to be safe.
 */

import { describeValue, type KeyPath, type Problem } from "./problems.ts";
import { withoutPaths } from "./without_paths.ts";

interface Unavailable {
  /** "*" stands for any name. */
  readonly key: string;
  /** Values that are available all the same; left out: none. */
  readonly except?: readonly unknown[];
  /** What to do instead. */
  readonly instead: string;
}

const EMBEDDED_INSTEAD =
  "open the remote primary from the program itself; only local databases are replicated";

export const UNAVAILABLE: readonly Unavailable[] = [
  { key: "databases.*.sync_url", instead: EMBEDDED_INSTEAD },
  { key: "databases.*.auth_token", instead: EMBEDDED_INSTEAD },
  { key: "mounts", instead: "mount it before the manager starts, or run the mount as a process" },
  {
    key: "lease.mode",
    except: ["required", "none"],
    instead: 'use "required": the manager waits for the lease',
  },
  { key: "catalog.sync_url", instead: "the catalog is a local file" },
  { key: "catalog.auth_token", instead: "the catalog is a local file" },
  { key: "catalog.sync_interval", instead: "the catalog is a local file" },
];

/** Values that a mistyped one is not taken for: only these are "known, but not available". */
const KNOWN_VALUES: Readonly<Record<string, readonly string[]>> = {
  "lease.mode": ["follow"],
};

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function pathsOf(
  value: unknown,
  parts: readonly string[],
  done: KeyPath = [],
): { path: KeyPath; value: unknown }[] {
  const [part, ...rest] = parts;
  if (part === undefined) return value === undefined ? [] : [{ path: done, value }];
  if (!isObject(value)) return [];
  const names = part === "*" ? Object.keys(value) : Object.hasOwn(value, part) ? [part] : [];
  return names.flatMap((name) => pathsOf(value[name], rest, [...done, name]));
}

/** What in `value` is not available, and the value without it, so that the schema does not complain a second time. */
export function refuseUnavailable(value: unknown): { value: unknown; problems: Problem[] } {
  const problems: Problem[] = [];
  const paths: KeyPath[] = [];
  for (const { key, except, instead } of UNAVAILABLE) {
    for (const found of pathsOf(value, key.split("."))) {
      const name = found.path.join(".");
      if (except !== undefined && !(KNOWN_VALUES[key] ?? []).includes(found.value as string)) continue;
      const what = except === undefined ? name : `${name} ${describeValue(found.value, true)}`;
      problems.push({ at: found.path, detail: `${what}: not available in this version; ${instead}` });
      paths.push(found.path);
    }
  }
  return { value: withoutPaths(value, paths), problems };
}
