/** Runs the schema over a raw value and turns valibot's issues into problems that say what was got and wanted. */

import * as v from "valibot";
import { isHidden, listsForObjects, siblingsOf } from "./keys.ts";
import { describeValue, type KeyPath, kindOf, type Problem } from "./problems.ts";
import { configSchema, type ParsedConfig } from "./schema.ts";
import { REDACTED } from "./redact.ts";
import { didYouMean } from "./suggest.ts";
import { refuseUnavailable } from "./unavailable.ts";
import { withoutPaths } from "./without_paths.ts";

export interface Parsed {
  /** Null when something is wrong. */
  readonly value: ParsedConfig | null;
  readonly problems: Problem[];
}

function pathOf(issue: v.BaseIssue<unknown>): KeyPath {
  return (issue.path ?? []).map((item) => String(item.key));
}

function problemsOf(issue: v.BaseIssue<unknown>, showValues: boolean): Problem[] {
  const at = pathOf(issue);
  const last = issue.path?.at(-1);
  if (issue.type === "strict_object" && last !== undefined) {
    const known = siblingsOf(at);
    // Both a foreign key and a missing one are issues of the object; a missing one is among its entries.
    if (!known.includes(at.at(-1) ?? "")) {
      return unknownKeys(last, known).map((key) => ({
        at: [...at.slice(0, -1), key],
        detail: `unknown key${didYouMean(key, known)}`,
      }));
    }
    if (issue.input === undefined) return [{ at, detail: "got nothing, wanted this key" }];
  }
  if (issue.path?.some((item) => item.origin === "key") === true) {
    return [{ at, detail: `got a name that is not allowed, wanted ${issue.message}` }];
  }
  const shown = showValues && !isHidden(at);
  const got = issue.type === "max_length" || issue.type === "check"
    ? kindOfLong(issue.input, shown)
    : describeValue(issue.input, shown);
  return [{ at, detail: `got ${got}, wanted ${issue.message}` }];
}

/** Valibot tells the first one of an object and no other. */
function unknownKeys({ key, input }: v.IssuePathItem, known: readonly string[]): string[] {
  if (known.length === 0 || typeof input !== "object" || input === null) return [String(key)];
  return Object.keys(input).filter((each) => !known.includes(each)).slice(0, MOST_UNKNOWN);
}

/** Told of one object. More is no mistake of writing, and each is compared with all keys that are known. */
const MOST_UNKNOWN = 20;

/** What we show instead of a secret must never become one: a file copied from `GET /config` says where it is lacking. */
function placeholders(value: unknown, path: KeyPath = []): Problem[] {
  if (value === REDACTED) {
    return [{ at: path, detail: `got "${REDACTED}", which stands for a secret; wanted its value` }];
  }
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => placeholders(inner, [...path, key]));
}

function kindOfLong(input: unknown, shown: boolean): string {
  if (typeof input === "string" && input.length > 100) return `a text of ${input.length} characters`;
  if (Array.isArray(input)) return `a list of ${input.length}`;
  return typeof input === "object" ? kindOf(input) : describeValue(input, shown);
}

/**
 * Checks every value by itself. `showValues` false: messages name the kind of what was got, never the value, for
 * answers to a caller over HTTP.
 */
export function parseRaw(raw: unknown, showValues: boolean): Parsed {
  const { value: available, problems } = refuseUnavailable(raw);
  problems.push(...placeholders(available));
  const lists = listsForObjects(available);
  problems.push(...lists.map((at) => ({ at, detail: "got a list, wanted an object" })));
  if (lists.some((path) => path.length === 0)) return { value: null, problems };
  const value = withoutPaths(available, lists);
  const result = v.safeParse(configSchema, value);
  const all = [...problems, ...(result.issues ?? []).flatMap((issue) => problemsOf(issue, showValues))];
  return { value: result.success && all.length === 0 ? result.output : null, problems: all };
}

/** What a rule over several keys finds. */
export interface Together {
  readonly problems: readonly Problem[];
}

/** True when one path lies in the other: a key that was taken away explains what is said about its surroundings. */
function isRelated(problem: Problem, removed: readonly KeyPath[]): boolean {
  const { at } = problem;
  if (typeof at === "string") return false;
  return removed.some((path) => path.every((part, index) => at[index] === part || index >= at.length));
}

/** True for what others name or count: without a whole process, those that depend on it would be said to be wrong. */
function isReferredTo([section, key, ...rest]: KeyPath): boolean {
  if (section === "stacks" || (section === "server" && key === "tokens")) return true;
  return (section === "processes" || section === "files" || section === "databases") && rest.length === 0;
}

/**
 * Checks single values, then `rules` over all of them. Where single values are wrong, the rules still run without
 * those, so that a person is told everything at once; what they say about the missing ones is left out, and `complete`
 * is false.
 */
export async function parseTogether<Result extends Together>(
  raw: unknown,
  showValues: boolean,
  rules: (value: ParsedConfig) => Promise<Result>,
): Promise<{ result: Result | null; problems: Problem[]; complete: boolean }> {
  const first = parseRaw(raw, showValues);
  if (first.value !== null) {
    const result = await rules(first.value);
    return { result, problems: [...result.problems], complete: true };
  }
  const removed = first.problems.flatMap(({ at }) => typeof at === "string" ? [] : [at]);
  if (removed.some(isReferredTo)) return { result: null, problems: first.problems, complete: false };
  const second = parseRaw(withoutPaths(raw, removed), showValues);
  if (second.value === null) return { result: null, problems: first.problems, complete: false };
  const result = await rules(second.value);
  const more = result.problems.filter((problem) => !isRelated(problem, removed));
  return { result, problems: [...first.problems, ...more], complete: false };
}
