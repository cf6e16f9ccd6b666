/**
 * Kinds of configuration values in valibot. The message of each schema is what was *wanted*; problems.ts adds what
 * was got. So a message must read well after "wanted": "a duration from 1s to 1d, such as 30s".
 */

import * as v from "valibot";
import { type CronSpec, parseCron } from "../platform/cron.ts";
import type { ForwardedSignals } from "../platform/signals.ts";
import { Secret } from "../platform/secret.ts";
import { formatSize, parseSize } from "./size.ts";
import { DURATION_PATTERN, formatDuration, parseDuration } from "./duration.ts";

/** Longest text of any value but a command or an environment value. */
const LONGEST_TEXT = 4096;

/** Names of processes, files and tokens: they become object keys, labels and arguments. */
export const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/;
const NAME_WANTED = "a name: a letter or digit, then up to 62 of letters, digits, _ and -";

export const nameSchema = v.pipe(v.string(NAME_WANTED), v.regex(NAME_PATTERN, NAME_WANTED));

export const booleanSchema = v.boolean("true or false");

/** A text without control characters. */
export function textSchema(wanted: string, longest = LONGEST_TEXT) {
  return v.pipe(
    v.string(wanted),
    v.nonEmpty(wanted),
    v.maxLength(longest, `at most ${longest} characters`),
    // deno-lint-ignore no-control-regex
    v.check((text) => !/[\x00-\x1f\x7f]/.test(text), `${wanted}, without control characters`),
  );
}

export function integerSchema(least: number, most: number, what: string) {
  const wanted = `${what}: a whole number from ${least} to ${most}`;
  return v.pipe(v.number(wanted), v.integer(wanted), v.minValue(least, wanted), v.maxValue(most, wanted));
}

/** A duration to milliseconds, within bounds. */
export function durationSchema(leastMs: number, mostMs: number, example: string) {
  const bounds = `from ${formatDuration(leastMs)} to ${formatDuration(mostMs)}`;
  const wanted = `a duration ${bounds}, such as ${example}, or a number of seconds`;
  return v.pipe(
    v.union([v.pipe(v.string(wanted), v.regex(DURATION_PATTERN, wanted)), v.number(wanted)], wanted),
    v.rawTransform<string | number, number>(({ dataset, addIssue, NEVER }) => {
      const ms = parseDuration(dataset.value);
      if (ms !== null && ms >= leastMs && ms <= mostMs) return ms;
      addIssue({ message: wanted });
      return NEVER;
    }),
  );
}

/** A size to bytes: 0, or at least so many. */
export function sizeSchema(leastBytes: number, example: string) {
  const wanted = `a size such as ${example}, at least ${formatSize(leastBytes)}, or 0`;
  return v.pipe(
    v.union([v.string(wanted), v.number(wanted)], wanted),
    v.rawTransform<string | number, number>(({ dataset, addIssue, NEVER }) => {
      const bytes = parseSize(dataset.value);
      if (bytes !== null && (bytes === 0 || bytes >= leastBytes)) return bytes;
      addIssue({ message: wanted });
      return NEVER;
    }),
  );
}

/** "/a//b/../c/" as "/a/c"; only for paths that are absolute. */
export function normalizePath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}

/** True when `inner` is `outer` or below it; both normalised. */
export function isWithin(inner: string, outer: string): boolean {
  return outer === "/" || inner === outer || inner.startsWith(`${outer}/`);
}

/** An absolute path, normalised. Relative ones are refused: nobody knows where a manager was started from. */
export function pathSchema(what: string) {
  const wanted = `${what}: an absolute path`;
  return v.pipe(
    v.string(wanted),
    v.maxLength(LONGEST_TEXT, wanted),
    v.regex(/^\/[^\0\n]*$/, wanted),
    v.transform(normalizePath),
  );
}

/** A value that is never shown again. */
export function secretSchema(what: string) {
  const wanted = `${what}: a text of 1 to ${LONGEST_TEXT} characters without spaces or line breaks`;
  return v.pipe(
    v.string(wanted),
    v.regex(/^[\x21-\x7e]+$/, wanted),
    v.maxLength(LONGEST_TEXT, wanted),
    v.transform((text) => new Secret(text)),
  );
}

const SIGNALS = [
  "SIGABRT",
  "SIGALRM",
  "SIGBUS",
  "SIGCHLD",
  "SIGCONT",
  "SIGFPE",
  "SIGHUP",
  "SIGILL",
  "SIGINT",
  "SIGIO",
  "SIGKILL",
  "SIGPIPE",
  "SIGPROF",
  "SIGPWR",
  "SIGQUIT",
  "SIGSEGV",
  "SIGSTKFLT",
  "SIGSTOP",
  "SIGSYS",
  "SIGTERM",
  "SIGTRAP",
  "SIGTSTP",
  "SIGTTIN",
  "SIGTTOU",
  "SIGURG",
  "SIGUSR1",
  "SIGUSR2",
  "SIGVTALRM",
  "SIGWINCH",
  "SIGXCPU",
  "SIGXFSZ",
] as const satisfies readonly Deno.Signal[];

type SignalName = (typeof SIGNALS)[number];

/** By name, with or without SIG, in any case. */
function signalNamed(text: string): SignalName | undefined {
  const upper = text.toUpperCase();
  return SIGNALS.find((name) => name === upper || name === `SIG${upper}`);
}

/** A signal by name, with or without SIG, in any case; some make no sense where they are named. */
export function signalSchema(what: string, refused: readonly SignalName[]) {
  const wanted = `${what}: a signal's name such as SIGTERM, but none of ${refused.join(", ")}`;
  return v.pipe(
    v.string(wanted),
    v.rawTransform<string, SignalName>(({ dataset, addIssue, NEVER }) => {
      const signal = signalNamed(dataset.value);
      if (signal !== undefined && !refused.includes(signal)) return signal;
      addIssue({ message: wanted });
      return NEVER;
    }),
  );
}

/** One of these signals, by name as above. `why`: what is wrong with all others. */
export function signalChoiceSchema(allowed: readonly SignalName[], why: string) {
  const wanted = `one of ${allowed.join(", ")}: ${why}`;
  return v.pipe(
    v.string(wanted),
    v.transform((text) => text.toUpperCase().replace(/^(?!SIG)/, "SIG")),
    v.picklist(allowed, wanted),
  );
}

const FORWARD_WANTED = "a list of signals, or an object of those that come and of those that it gets";
/** Nobody can catch these, or they mean something between us and our children. */
const NEVER_SENT: readonly SignalName[] = ["SIGKILL", "SIGSTOP", "SIGCONT", "SIGCHLD"];

/** Signals that come, each with what is sent for it: as a list the same one, as an object another one. */
export function forwardSchema(allowed: readonly SignalName[], why: string) {
  const text = v.string("a signal's name such as SIGHUP");
  return v.pipe(
    v.union([listSchema(text, 31, FORWARD_WANTED), v.record(text, text)], FORWARD_WANTED),
    v.rawTransform<string[] | Record<string, string>, ForwardedSignals>(
      ({ dataset: { value }, addIssue, NEVER }) => {
        const isList = Array.isArray(value);
        const pairs: [SignalName, SignalName][] = [];
        for (const [key, named] of Object.entries(value)) {
          const came = signalNamed(isList ? named : key);
          const sent = signalNamed(named);
          const item = {
            type: isList ? "array" : "object",
            input: value,
            key,
            value: named,
          } as v.IssuePathItem;
          if (came === undefined || !allowed.includes(came)) {
            const path = [{ ...item, origin: isList ? "value" : "key" }] as [v.IssuePathItem];
            addIssue({ message: `one of ${allowed.join(", ")}: ${why}`, input: isList ? named : key, path });
          } else if (sent === undefined || NEVER_SENT.includes(sent)) {
            const message = `a signal's name such as SIGUSR1, but none of ${NEVER_SENT.join(", ")}`;
            addIssue({ message, input: named, path: [{ ...item, origin: "value" }] as [v.IssuePathItem] });
          } else pairs.push([came, sent]);
        }
        return pairs.length < Object.keys(value).length ? NEVER : Object.fromEntries(pairs);
      },
    ),
  );
}

export function listSchema<const Item extends v.GenericSchema>(item: Item, most: number, wanted: string) {
  return v.pipe(v.array(item, wanted), v.maxLength(most, `at most ${most} entries`));
}

/** A map from names to values; names are checked here, its size is bounded. */
export function mapSchema<const Item extends v.GenericSchema>(item: Item, most: number, wanted: string) {
  return v.pipe(
    v.record(nameSchema, item, wanted),
    v.check((map) => Object.keys(map).length <= most, `at most ${most} entries`),
  );
}

const CRON_WANTED = 'five cron fields such as "0 3 * * *", six with seconds first, or "@daily"';

/** A cron expression in UTC, or one with its time zone; it must come at some time. */
export const scheduleSchema = v.pipe(
  v.union(
    [
      v.string(CRON_WANTED),
      v.strictObject({
        cron: requiredKey("Cron", "The expression.", v.string(CRON_WANTED)),
        time_zone: described(
          "Time zone",
          "IANA name such as Europe/Berlin. Default: UTC.",
          v.string("a time zone"),
        ),
      }, "an object"),
    ],
    "a cron expression, or an object with cron and time_zone",
  ),
  v.rawTransform<string | { cron: string; time_zone?: string | undefined }, CronSpec>(
    ({ dataset: { value }, addIssue, NEVER }) => {
      const spec = typeof value === "string"
        ? { cron: value, timeZone: "UTC" }
        : { cron: value.cron, timeZone: value.time_zone ?? "UTC" };
      const next = parseCron(spec);
      if (next !== null && next(Date.UTC(2000, 0, 1)) !== null) return spec;
      const message = parseCron({ ...spec, timeZone: "UTC" }) === null
        ? CRON_WANTED
        : next === null
        ? "a time zone by its IANA name, such as Europe/Berlin"
        : "an expression that comes at some time";
      addIssue({ message });
      return NEVER;
    },
  ),
);

/** One of `values`, with the list in the message. */
export function choiceSchema<const Values extends readonly string[]>(values: Values) {
  return v.picklist(values, values.map((value) => `"${value}"`).join(" or "));
}

/** Adds what an editor and the documentation show. */
export function described<const Schema extends v.GenericSchema>(
  title: string,
  description: string,
  schema: Schema,
) {
  return v.optional(v.pipe(schema, v.title(title), v.description(description)));
}

/** The same for a key that must be there. */
export function requiredKey<const Schema extends v.GenericSchema>(
  title: string,
  description: string,
  schema: Schema,
) {
  return v.nonOptional(v.pipe(schema, v.title(title), v.description(description)), "this key");
}
