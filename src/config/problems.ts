/** Everything that is wrong with a configuration, collected and told at once, never with a secret's value in it. */

import { type ErrorDetail, StateManagerError } from "../platform/errors.ts";

/** Keys from the root; list positions as text. */
export type KeyPath = readonly string[];

export interface Problem {
  /** Where it is: a key, or, for what has no key, the name of a file, variable or flag. */
  readonly at: KeyPath | string;
  /** "got …, wanted …". */
  readonly detail: string;
}

/** More problems than this help nobody; the rest is counted. */
export const MOST_PROBLEMS = 100;
/** Longest piece of a value that is shown. */
const LONGEST_SHOWN = 40;

/** RFC 6901. */
export function jsonPointer(path: KeyPath): string {
  return path.map((part) => `/${part.replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
}

/** Where it is in the document, whatever set it. */
export function plainPointer({ at }: Problem): string {
  return typeof at === "string" ? at : jsonPointer(at);
}

/** What kind of thing a value is, in words. */
export function kindOf(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "string") return value === "" ? "an empty text" : "a text";
  if (typeof value === "object") return "an object";
  return `a ${typeof value}`;
}

/** A value as a message may show it: short, one line, and only its kind where it is not `shown`. */
export function describeValue(value: unknown, shown: boolean): string {
  if (!shown || value === "" || (typeof value === "object" && value !== null)) return kindOf(value);
  if (typeof value === "string") {
    return JSON.stringify(value.length > LONGEST_SHOWN ? `${value.slice(0, LONGEST_SHOWN)}…` : value);
  }
  return typeof value === "number" || typeof value === "boolean" ? String(value) : kindOf(value);
}

/** The error for all of `details`; `action` is what could not be done ("load /etc/x.json"). */
export function configError(action: string, details: readonly ErrorDetail[]): StateManagerError {
  const kept = details.slice(0, MOST_PROBLEMS);
  const count = details.length === 1 ? "1 problem" : `${details.length} problems`;
  return new StateManagerError("config-invalid", `${action}: ${count}, wanted a valid configuration`, {
    hint: 'correct what is listed; "state-manager config check" looks again, "config schema" lists every key',
    details: kept,
  });
}

/** The error as lines for a terminal: the message, one line per problem, the hint. */
export function describeProblems(error: StateManagerError): string {
  const lines = [error.message];
  for (const { pointer, detail } of error.details) {
    lines.push(`  ${pointer === "" ? "/" : pointer}: ${detail}`);
  }
  if (error.hint !== undefined) lines.push(`hint: ${error.hint}`);
  return lines.join("\n");
}
