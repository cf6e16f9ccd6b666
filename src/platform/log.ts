/**
 * Logging behind one file: LogTape today. A line is a plain sentence and fields; secrets are `Secret`s and print as
 * `***`. Lines go to standard error by a sink that never blocks, and no field, whatever it is, makes a call throw.
 */

import { configureSync, getLogger, type LogRecord } from "@logtape/logtape";
import { plainFields, type PlainValue } from "./plain_value.ts";
import { type OutputSink, standardError } from "./standard_output.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";
/** Any values; a `Secret` prints as `***`, an error with code, hint and cause. */
export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

export interface LogOptions {
  /** "auto": text on a terminal, else JSON lines. */
  readonly format: "text" | "json" | "auto";
  readonly level: LogLevel;
  /** Default: standard error. */
  readonly sink?: OutputSink;
  /** Default: on a terminal without NO_COLOR. */
  readonly color?: boolean;
}

const ROOT = "state-manager";
/** Until `configureLog` was called every line is dropped. */
let currentSink: OutputSink | undefined;

/** The log of one part of the program, e.g. `log("lease")`. Silent until `configureLog` was called. */
export function log(category: string): Log {
  const logger = getLogger([ROOT, category]);
  // Made plain before anything else looks at them: a getter or proxy that throws must not lose the line.
  const at = (level: "debug" | "info" | "warn" | "error") => (message: string, fields: LogFields = {}) => {
    if (logger.isEnabledFor(level === "warn" ? "warning" : level)) {
      logger[level](message, { fields: plainFields(fields) });
    }
  };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** What a line shows, before it has a format. */
interface Line {
  readonly timeMs: number;
  readonly level: LogLevel;
  readonly category: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, PlainValue>>;
}

/** Fields are nested, so none can pose as the level or the time. */
function jsonLine(line: Line): string {
  const time = new Date(line.timeMs).toISOString();
  const { level, category, message, fields } = line;
  return `${JSON.stringify({ time, level, category, message, fields })}\n`;
}

const COLORS: Readonly<Record<LogLevel, string>> = {
  debug: "\x1b[2m",
  info: "",
  warn: "\x1b[33m",
  error: "\x1b[31m",
};
const RESET = "\x1b[0m";

/** Control characters from foreign text must not move the cursor, forge a line or colour the terminal. */
function visible(text: string): string {
  return text.replace(
    /\p{Cc}/gu,
    (char) => char === "\n" ? "\\n" : `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function fieldText(value: PlainValue): string {
  if (typeof value === "string") return /^[\w.:/@+*-]+$/.test(value) ? value : visible(JSON.stringify(value));
  return visible(JSON.stringify(value));
}

function isErrorValue(
  value: PlainValue,
): value is { readonly message: string; readonly [key: string]: PlainValue } {
  return typeof value === "object" && value !== null && !Array.isArray(value) &&
    "name" in value && "message" in value &&
    typeof (value as Record<string, PlainValue>)["message"] === "string";
}

/** An error reads as its message, code and hint; causes follow, a stack comes last on lines of its own. */
function errorText(
  key: string,
  error: { readonly [key: string]: PlainValue },
): { text: string; stack: string } {
  let text = `${key}=${fieldText(error["message"] ?? "")}`;
  if (error["code"] !== undefined) text += ` code=${fieldText(error["code"])}`;
  if (error["hint"] !== undefined) text += ` hint=${fieldText(error["hint"])}`;
  let stack = typeof error["stack"] === "string" ? error["stack"] : "";
  const cause = error["cause"];
  if (cause !== undefined && isErrorValue(cause)) {
    const inner = errorText("cause", cause);
    text += ` ${inner.text}`;
    stack ||= inner.stack;
  } else if (cause !== undefined) text += ` cause=${fieldText(cause)}`;
  return { text, stack };
}

function textLine(line: Line, color: boolean): string {
  const time = new Date(line.timeMs).toISOString();
  let text = `${time} ${line.level.toUpperCase().padEnd(5)} ${line.category}: ${visible(line.message)}`;
  let stack = "";
  for (const [key, value] of Object.entries(line.fields)) {
    if (isErrorValue(value)) {
      const error = errorText(key, value);
      text += ` ${error.text}`;
      stack ||= error.stack;
    } else text += ` ${visible(key)}=${fieldText(value)}`;
  }
  for (const frame of stack.split("\n").slice(1)) text += `\n    ${visible(frame.trim())}`;
  return color && COLORS[line.level] !== "" ? `${COLORS[line.level]}${text}${RESET}\n` : `${text}\n`;
}

function lineOf(record: LogRecord): Line {
  return {
    timeMs: record.timestamp,
    level: record.level === "warning"
      ? "warn"
      : record.level === "fatal" || record.level === "trace"
      ? "error"
      : record.level,
    category: record.category.slice(1).join(".") || record.category.join("."),
    // The raw text: placeholders in it would be foreign text that happens to hold braces.
    message: typeof record.rawMessage === "string" ? record.rawMessage : record.rawMessage.join(""),
    fields: plainFields((record.properties["fields"] ?? record.properties) as LogFields),
  };
}

/** Sets where lines go, from which level, in which form. May be called again: once early, once with the configuration. */
export function configureLog(options: LogOptions): void {
  const sink = options.sink ?? standardError();
  const terminal = options.sink === undefined && Deno.stderr.isTerminal();
  const json = options.format === "json" || (options.format === "auto" && !terminal);
  const color = !json && (options.color ?? (terminal && !Deno.noColor));
  const render = json ? jsonLine : (line: Line) => textLine(line, color);
  const encoder = new TextEncoder();
  sink.describeDrops((lines) =>
    render({
      timeMs: Date.now(),
      level: "warn",
      category: "log",
      message: "lines dropped: the reader of this output stalled",
      fields: { lines },
    })
  );
  currentSink = sink;
  configureSync({
    reset: true,
    sinks: { lines: (record) => sink.write(encoder.encode(render(lineOf(record)))) },
    loggers: [
      {
        category: [ROOT],
        lowestLevel: options.level === "warn" ? "warning" : options.level,
        sinks: ["lines"],
      },
      { category: ["logtape", "meta"], lowestLevel: "error", sinks: ["lines"] },
    ],
  });
}

/** Waits until the lines so far are written, at most `deadlineMs`; call it before the process exits. */
export async function flushLog(deadlineMs: number): Promise<void> {
  await currentSink?.flush(deadlineMs);
}
