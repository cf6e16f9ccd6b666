/**
 * Any value as plain JSON data for the log and the catalog: bounded, without cycles, secrets as `***`. Never throws,
 * whatever getters, proxies or toJSON methods do: what is told about a failure must not become the next failure.
 */

import { StateManagerError } from "./errors.ts";
import { Secret } from "./secret.ts";

export type PlainValue =
  | string
  | number
  | boolean
  | null
  | readonly PlainValue[]
  | { readonly [key: string]: PlainValue };

/** Deeper than anything told on purpose. */
const DEPTH_LIMIT = 8;
/** Values in one record: a line stays readable and costs at most about a millisecond. */
const NODE_LIMIT = 1000;
/** A stack with its source lines fits. */
const TEXT_LIMIT = 8192;
const TOO_MUCH = "[…]";

/** The second net: values that should have been a `Secret`. Only texts; the lease's fencing token is a number. */
const SECRET_NAME =
  /^(password|passwd|secret|token|authorization|cookie|(access|secret|session|auth|private|api)_?(key|token))$/i;

interface Walk {
  readonly open: Set<object>;
  nodes: number;
  /** False below an expected error: its message says all, the stack of its cause would drown it. */
  stacks: boolean;
}

function text(value: string): string {
  return value.length <= TEXT_LIMIT ? value : `${value.slice(0, TEXT_LIMIT)}…`;
}

function errorValue(error: Error, depth: number, walk: Walk): PlainValue {
  const ours = error instanceof StateManagerError;
  const plain: Record<string, PlainValue> = {
    name: text(String(error.name)),
    message: text(String(error.message)),
  };
  if (ours) {
    plain["code"] = error.code;
    if (error.hint !== undefined) plain["hint"] = error.hint;
    if (error.details.length > 0) plain["details"] = convert(error.details, depth + 1, walk);
  }
  if (error instanceof AggregateError) plain["errors"] = convert(error.errors, depth + 1, walk);
  const stacks = walk.stacks;
  walk.stacks = stacks && (!ours || error.code === "internal");
  if (walk.stacks && typeof error.stack === "string") plain["stack"] = text(error.stack);
  if (error.cause !== undefined) plain["cause"] = convert(error.cause, depth + 1, walk);
  walk.stacks = stacks;
  return plain;
}

function entriesValue(entries: Iterable<readonly [string, unknown]>, depth: number, walk: Walk): PlainValue {
  const plain: Record<string, PlainValue> = Object.create(null); // a key "__proto__" is a key like any other
  for (const [key, value] of entries) {
    if (value === undefined) continue;
    if (walk.nodes >= NODE_LIMIT) {
      plain[TOO_MUCH] = true;
      break;
    }
    plain[key] = typeof value === "string" && SECRET_NAME.test(key) ? "***" : convert(value, depth + 1, walk);
  }
  return plain;
}

function listValue(values: Iterable<unknown>, depth: number, walk: Walk): PlainValue {
  const plain: PlainValue[] = [];
  for (const value of values) {
    if (walk.nodes >= NODE_LIMIT) {
      plain.push(TOO_MUCH);
      break;
    }
    plain.push(convert(value, depth + 1, walk));
  }
  return plain;
}

function* readableEntries(value: object): Generator<readonly [string, unknown]> {
  for (const key of Object.keys(value)) {
    let item: unknown;
    try {
      item = (value as Record<string, unknown>)[key];
    } catch {
      item = "[unreadable]";
    }
    yield [key, item];
  }
}

function objectValue(value: object, depth: number, walk: Walk): PlainValue {
  if (value instanceof Error) return errorValue(value, depth, walk);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "Invalid Date" : value.toISOString();
  if (value instanceof URL) {
    const shown = new URL(value);
    if (shown.password !== "") shown.password = "***";
    return text(shown.href);
  }
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return `[${value.byteLength} bytes]`;
  if (value instanceof Map) {
    return entriesValue([...value].map(([key, item]) => [String(key), item] as const), depth, walk);
  }
  if (Array.isArray(value) || value instanceof Set) return listValue(value, depth, walk);
  if ("toJSON" in value && typeof value.toJSON === "function") {
    return convert(value.toJSON(), depth + 1, walk);
  }
  return entriesValue(readableEntries(value), depth, walk);
}

function convert(value: unknown, depth: number, walk: Walk): PlainValue {
  walk.nodes++;
  switch (typeof value) {
    case "string":
      return text(value);
    case "number":
      return Number.isFinite(value) ? value : String(value);
    case "boolean":
      return value;
    case "bigint":
    case "symbol":
      return String(value);
    case "function":
      return "[function]";
    case "undefined":
      return null;
  }
  if (typeof value !== "object" || value === null) return null;
  if (value instanceof Secret) return "***";
  if (walk.open.has(value)) return "[circular]";
  if (depth >= DEPTH_LIMIT) return TOO_MUCH;
  walk.open.add(value);
  try {
    return objectValue(value, depth, walk);
  } catch {
    return "[unreadable]";
  } finally {
    walk.open.delete(value);
  }
}

/** `value` as plain data. */
export function plainValue(value: unknown): PlainValue {
  return convert(value, 0, { open: new Set(), nodes: 0, stacks: true });
}

/** A record of fields as plain data; fields that are undefined are left out. */
export function plainFields(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, PlainValue>> {
  const plain = plainValue(fields);
  if (typeof plain === "object" && plain !== null && !Array.isArray(plain)) {
    return plain as Readonly<Record<string, PlainValue>>;
  }
  return { fields: plain };
}
