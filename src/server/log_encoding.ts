/** Lines of output in the form that a client wants. */

import type { OutputLine, PastLine } from "../supervisor/mod.ts";
import type { LogType } from "./log_query.ts";

export type ShownLine = OutputLine | PastLine;

export interface LogEncoder {
  /** Before and after everything. */
  readonly start: string;
  readonly end: string;
  line(line: ShownLine): string;
  gap(lines: number): string;
  /** May be empty: then there is none. */
  heartbeat(): string;
}

/** For one answer: a document is told line by line, too. */
export function encoderFor(type: LogType, process: string, runId: string): LogEncoder {
  if (type === "text/plain") return plain;
  if (type === "application/json") return document(process, runId);
  const encode = type === "text/event-stream"
    ? (name: string, fields: object, id?: string) =>
      `${id === undefined ? "" : `id: ${id}\n`}event: ${name}\ndata: ${JSON.stringify(fields)}\n\n`
    : (name: string, fields: object) => JSON.stringify({ type: name, ...fields }) + "\n";
  return {
    start: "",
    end: "",
    line: (line) => encode("line", lineView(line, runId), idOf(line, runId)),
    gap: (lines) => encode("gap", { lines }),
    heartbeat: () => encode("heartbeat", {}),
  };
}

const plain: LogEncoder = {
  start: "",
  end: "",
  line: ({ text, partial }) => partial ? text : `${text}\n`,
  gap: (lines) => `\nstate-manager: ${lines} lines dropped\n`,
  heartbeat: () => "",
};

function document(process: string, runId: string): LogEncoder {
  let separator = "\n";
  return {
    start: `{"process": ${JSON.stringify(process)}, "lines": [`,
    end: "]}\n",
    line(line) {
      const text = separator + JSON.stringify(lineView(line, runId));
      separator = ",\n";
      return text;
    },
    gap: () => "",
    heartbeat: () => "",
  };
}

/**
 * The public form of a line. `partial` and `part` are there only where a line came in pieces. One from a file has no `id`,
 * its `time` is that from which on it may have come, and its `stream` is null, which is not known.
 */
function lineView(line: ShownLine, runId: string): Readonly<Record<string, unknown>> {
  const { wallMs, stream, text, partial, part } = line;
  const id = idOf(line, runId);
  return {
    ...(id === undefined ? {} : { id }),
    time: new Date(wallMs).toISOString(),
    stream,
    text,
    ...(partial || part > 0 ? { partial, part } : {}),
  };
}

function idOf({ sequence }: ShownLine, runId: string): string | undefined {
  return sequence === null ? undefined : `${runId}-${sequence}`;
}
