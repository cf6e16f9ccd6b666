/** All keys of the schema, with the variable that sets each: derived from the schema, so none can be forgotten. */

import type * as v from "valibot";
import { configSchema } from "./schema.ts";
import type { KeyPath } from "./problems.ts";
import { UNAVAILABLE } from "./unavailable.ts";

/** How a variable's text becomes the key's value. */
export type KeyKind = "text" | "boolean" | "number" | "list" | "json";

export interface ConfigKey {
  readonly path: KeyPath;
  readonly kind: KeyKind;
  /** `STATE_MANAGER_STORAGE_BUCKET`. */
  readonly variable: string;
  /** True when its value is never shown and may come from a file named by the variable with `_FILE` added. */
  readonly secret: boolean;
  readonly title: string;
  readonly description: string;
}

export const VARIABLE_PREFIX = "STATE_MANAGER_";

/** Variables of ours that are no key: where to find things, the API's token, the client's address, the keys of what is copied to. */
export const OTHER_VARIABLES: readonly string[] = [
  ...["CONFIG", "DATA_DIR", "TOKEN", "TOKEN_FILE", "URL"],
  ...["TO_ACCESS_KEY", "TO_SECRET_KEY", "TO_SESSION_TOKEN"].flatMap((name) => [name, `${name}_FILE`]),
]
  .map((name) => VARIABLE_PREFIX + name);

const SECRETS = ["storage.access_key", "storage.secret_key", "storage.session_token", "catalog.auth_token"];

/** The parts of a valibot schema that a walk needs. */
interface Walked {
  readonly type: string;
  readonly wrapped?: Walked;
  readonly pipe?: readonly {
    readonly kind: string;
    readonly type: string;
    readonly [key: string]: unknown;
  }[];
  readonly entries?: Readonly<Record<string, Walked>>;
  readonly value?: Walked;
  readonly item?: Walked;
}

function asWalked(schema: v.GenericSchema): Walked {
  return schema as unknown as Walked; // valibot's generic type hides the parts that every object schema has
}

function unwrap(schema: Walked): Walked {
  return schema.wrapped === undefined ? schema : unwrap(schema.wrapped);
}

/** The title or description; the outermost one, since an inner pipe may carry that of a reused schema. */
function textOf(schema: Walked, type: "title" | "description"): string {
  const own = unwrap(schema);
  const action = own.pipe?.findLast((part) => part.type === type);
  const text = action?.[type];
  if (typeof text === "string") return text;
  const inner = own.pipe?.[0] as unknown as Walked | undefined;
  return inner !== undefined && inner !== own && inner.pipe !== undefined ? textOf(inner, type) : "";
}

/** The object schema inside pipes and options, if it is one. */
function entriesOf(schema: Walked): Readonly<Record<string, Walked>> | undefined {
  return unwrap(schema).entries;
}

function kindOfSchema(schema: Walked): KeyKind {
  const own = unwrap(schema);
  if (own.type === "boolean") return "boolean";
  if (own.type === "number") return "number";
  if (own.type === "record") return "json";
  if (own.type === "array") {
    return own.item !== undefined && entriesOf(own.item) !== undefined ? "json" : "list";
  }
  return "text";
}

/** `["storage", "bucket"]` to `STATE_MANAGER_STORAGE_BUCKET`. */
export function variableOf(path: KeyPath): string {
  return VARIABLE_PREFIX + path.join("_").toUpperCase();
}

function walk(schema: Walked, path: KeyPath): ConfigKey[] {
  const entries = entriesOf(schema);
  if (entries !== undefined) {
    return Object.entries(entries)
      .filter(([name]) => name !== "$schema")
      .flatMap(([name, inner]) => walk(inner, [...path, name]));
  }
  return [{
    path,
    kind: kindOfSchema(schema),
    variable: variableOf(path),
    secret: isSecret(path),
    title: textOf(schema, "title"),
    description: textOf(schema, "description"),
  }];
}

/** Every key that has a variable, in the schema's order. */
export const CONFIG_KEYS: readonly ConfigKey[] = walk(asWalked(configSchema), []);

/** Keys with a variable whose feature is missing: the variable is refused like the key. */
export const UNAVAILABLE_KEYS: readonly ConfigKey[] = UNAVAILABLE
  .filter(({ key, except }) => except === undefined && !key.includes("*"))
  .map(({ key }) => {
    const path = key.split(".");
    const kind = path.length === 1 ? "json" as const : "text" as const;
    return { path, kind, variable: variableOf(path), secret: isSecret(path), title: "", description: "" };
  });

function isSecret(path: KeyPath): boolean {
  return SECRETS.includes(path.join("."));
}

/** True where a value must never be shown, not even shortly: secrets, and places where people put them. */
export function isHidden(path: KeyPath): boolean {
  if (isSecret(path)) return true;
  const [section, , key] = path;
  const inProbe = section === "processes" && key === "probes" &&
    (path[4] === "exec" || path[5] === "headers");
  return inProbe || (section === "processes" && (key === "env" || key === "command")) ||
    (section === "databases" && (key === "auth_token" || key === "sync_url")) ||
    (section === "server" && path[1] === "tokens") || (section === "storage" && path[1] === "endpoint");
}

/** The names that are allowed beside `path`'s last part; also below maps and lists. For suggestions. */
export function siblingsOf(path: KeyPath): string[] {
  let schema: Walked | undefined = asWalked(configSchema);
  for (const part of path.slice(0, -1)) {
    const own: Walked | undefined = schema === undefined ? undefined : unwrap(schema);
    schema = own?.entries === undefined ? own?.value ?? own?.item : own.entries[part];
  }
  const entries = schema === undefined ? undefined : entriesOf(schema);
  return Object.keys(entries ?? {});
}

/** The entries of the map's or list's items at `path` (`["processes"]`), for the documentation. */
export function itemKeysOf(path: KeyPath): ConfigKey[] {
  let schema: Walked | undefined = asWalked(configSchema);
  for (const part of path) schema = schema === undefined ? undefined : entriesOf(schema)?.[part];
  const own = schema === undefined ? undefined : unwrap(schema);
  const item = own?.value ?? own?.item;
  return item === undefined ? [] : walk(item, [...path, "*"]);
}

/** Where a list stands in place of an object: to valibot, as to JavaScript, a list is an object too. */
export function listsForObjects(value: unknown, schema: v.GenericSchema = configSchema): KeyPath[] {
  return listsBelow(value, asWalked(schema), []);
}

function listsBelow(value: unknown, schema: Walked, path: KeyPath): KeyPath[] {
  const own = unwrap(schema);
  const wantsObject = own.entries !== undefined || own.type === "record";
  if (wantsObject && Array.isArray(value)) return [path];
  if (typeof value !== "object" || value === null || (Array.isArray(value) && own.item === undefined)) {
    return [];
  }
  return Object.entries(value).flatMap(([key, inner]) => {
    const next = own.entries === undefined ? own.value ?? own.item : own.entries[key];
    return next === undefined ? [] : listsBelow(inner, next, [...path, key]);
  });
}
