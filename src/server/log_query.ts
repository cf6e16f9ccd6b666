/** What a request for output wants: how much of it, since when, which lines, and in which form. */

import { accepts } from "hono/accepts";
import type { HistoryQuery, OutputLine } from "../supervisor/mod.ts";
import { invalid } from "./body.ts";
import type { ServerContext } from "./env.ts";
import { parseSince } from "./times.ts";

export type LogType = "application/json" | "application/x-ndjson" | "text/plain" | "text/event-stream";

export interface LogQuery {
  readonly follow: boolean;
  readonly type: LogType;
  /** Most lines; Infinity: all. */
  readonly tail: number;
  /** No line before this time; -Infinity: all. */
  readonly sinceMs: number;
  /** True when a number of lines or a time is given: then log files are read, too, where memory does not reach back. */
  readonly asksBack: boolean;
  readonly stream: string | undefined;
  /** Number of the last line that the client has; null: it has none. */
  readonly after: number | null;
  readonly matches: (line: OutputLine) => boolean;
  /** The same of files, at most so many lines. */
  ofFiles(tail: number): HistoryQuery;
}

/** Longest text to look for. */
const LONGEST_TEXT = 200;
const STREAMS = ["stdout", "stderr", "note"] as const;
const LINE_ID = /^([0-9a-f]{1,32})-(\d{1,15})$/;

/** `runId` tells whose numbers a client goes on from: another run's mean nothing. Throws `invalid-request`. */
export function readLogQuery(c: ServerContext, nowMs: number, runId: string): LogQuery {
  const follow = flagOf(c, "follow");
  const type = accepts(c, {
    header: "Accept",
    supports: ["application/json", "application/x-ndjson", "text/plain", "text/event-stream"],
    default: "application/json",
  }) as LogType;
  const stream = c.req.query("stream");
  if (stream !== undefined && !STREAMS.some((known) => known === stream)) {
    throw wrong(`stream: want ${STREAMS.join(", ")}`);
  }
  const text = c.req.query("text") ?? "";
  if (text.length > LONGEST_TEXT) throw wrong(`text: want at most ${LONGEST_TEXT} characters`);
  const sinceMs = sinceOf(c, nowMs);
  return {
    follow: follow || type === "text/event-stream",
    // One document has an end; what goes on comes line by line.
    type: follow && type === "application/json" ? "application/x-ndjson" : type,
    tail: tailOf(c),
    sinceMs,
    asksBack: c.req.query("tail") !== undefined || sinceMs !== -Infinity,
    stream,
    after: afterOf(c, runId),
    matches: (line) =>
      line.wallMs >= sinceMs && (stream === undefined || line.stream === stream) && line.text.includes(text),
    ofFiles: (tail) => ({
      tail,
      sinceMs,
      matches: text === "" ? null : (line) => line.text.includes(text),
    }),
  };
}

function wrong(detail: string) {
  return invalid([{ pointer: "", detail }]);
}

function flagOf(c: ServerContext, name: string): boolean {
  const text = c.req.query(name) ?? "false";
  if (text !== "true" && text !== "false") throw wrong(`${name}: want true or false`);
  return text === "true";
}

function tailOf(c: ServerContext): number {
  const text = c.req.query("tail") ?? "all";
  if (text === "all") return Infinity;
  if (!/^\d{1,9}$/.test(text)) throw wrong("tail: want a number of lines, or all");
  return Number(text);
}

/** A time, or a duration back from now. */
function sinceOf(c: ServerContext, nowMs: number): number {
  const text = c.req.query("since");
  if (text === undefined) return -Infinity;
  const time = parseSince(text, nowMs);
  if (time === null) {
    throw wrong("since: want a time as in RFC 3339 with its zone, or a duration such as 10m");
  }
  return time;
}

/** `after=ID`, or the header that a browser sends when it comes back. */
function afterOf(c: ServerContext, runId: string): number | null {
  const text = c.req.query("after") ?? c.req.header("last-event-id");
  if (text === undefined || text === "") return null;
  const [, run, number] = LINE_ID.exec(text) ?? [];
  if (run === undefined) throw wrong("after: want the id of a line");
  return run === runId ? Number(number) : null;
}
